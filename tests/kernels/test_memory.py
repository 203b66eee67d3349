"""Freed memory stays: pages that a second run of a program touches are there already."""

import ctypes
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import kernels
if sys.argv[1] == "keep":
    assert kernels.keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
def program(x):  # 64 MB between
    return jax.lax.optimization_barrier(jnp.tile(x + 1, (16, 1))).sum()

x = jnp.ones((1024, 1024))
for _ in range(3):
    program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    program(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_a_program_that_runs_again_faults_no_page():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS, how], text=True))
        for how in ("keep", "leave")
    }
    assert faults["leave"] > 16_000, "else there is nothing to be gained any more"
    assert faults["keep"] < 100
