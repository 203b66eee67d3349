"""Freed memory stays: pages that a second run of a program touches are there already."""

import ctypes
import subprocess
import sys

import jax
import pytest

COUNT_FAULTS = """
import resource, sys
import kernels
if sys.argv[1] == "keep":
    assert kernels.keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
def program(x):  # 48 MB between
    return jax.lax.optimization_barrier(jnp.tile(x + 1, (12, 1))).sum()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

x, counts = jnp.ones((1024, 1024)), []
for _ in range(9):
    before = faults()
    program(x).block_until_ready()
    counts.append(faults() - before)
print(sorted(counts)[2])  # the first runs need new pages, and any whose memory overlaps
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="its threads' heaps hold 64 MB each")
def test_a_program_that_runs_again_faults_no_page():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS, how], text=True))
        for how in ("keep", "leave")
    }
    assert faults["leave"] > 12_000, "else there is nothing to be gained any more"
    assert faults["keep"] < 100
