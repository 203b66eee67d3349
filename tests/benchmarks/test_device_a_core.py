"""What has a device for each core does the work of one device, and of PyTorch's where it is."""

import subprocess
import sys

import pytest

from benchmarks import machine, results

# Along rows, along heads and those of keys, and along heads that share the only one of keys.
CUT = "bert-base", "llama-8b", "gemma-2b"


@pytest.mark.skipif(machine.available_threads() < 2, reason="one core is one device")
@pytest.mark.parametrize("name", ["lstm", *(f"attention-{n}" for n in CUT)])
def test_a_device_a_core(name, tmp_path):
    path = tmp_path / "figures.json"
    options = ["--quick", "--threads", "2", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks", "run", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.ROOT)
    assert done.returncode == 0, done.stderr
    assert results.read(path)[name]["competitors"]["one device"]["disagreement"] < 1e-5
