"""What has a device for each core does the work of one device, and of PyTorch's where it is."""

import subprocess
import sys

import pytest

from benchmarks import machine, results


@pytest.mark.skipif(machine.available_threads() < 2, reason="one core is one device")
@pytest.mark.parametrize("name", ["lstm", "attention-bert-base"])
def test_a_device_a_core(name, tmp_path):
    path = tmp_path / "figures.json"
    options = ["--quick", "--threads", "2", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks", "run", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.ROOT)
    assert done.returncode == 0, done.stderr
    assert results.read(path)[name]["competitors"]["one device"]["disagreement"] < 1e-5
