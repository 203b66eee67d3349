"""What the vendors publish about the chips that programs are compiled for, read in November 2026.

    h100   NVIDIA, "H100 Tensor Core GPU" (nvidia.com/en-us/data-center/h100), the SXM column: 989
           TFLOP/s in bfloat16 without sparsity, 80 GB, 3.35 TB/s, NVLink 900 GB/s
    v4     Google Cloud, "TPU v4" (docs.cloud.google.com/tpu/docs/v4), and for its links Jouppi et
           al. 2023 (arXiv:2304.01433): six of 50 GB/s
    v5e, v5p, v6e, tpu7x   beside it, the pages of those names

They are peaks, which no program reaches. Links are published as the sum of both directions; here
stands one, as what a chip sends is what it takes in. A tpu7x is two devices to JAX, which share it.
"""

import os
from dataclasses import dataclass

from train.targets import Target

TERA, GB, GIB = 1e12, 1e9, 2.0**30
# Of a GPU's memory JAX takes this share when it starts, unless the variable of this name says so.
GPU_SHARE = ("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75)


@dataclass(frozen=True)
class Chip:
    """One chip at its best."""

    flops: float  # a second, in bfloat16 with float32 sums
    memory: float  # bytes
    memory_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second that it sends to others of its node or slice
    slices: tuple[str, ...]  # shapes that are offered, from the smallest
    devices: int = 1  # that JAX sees in it


CUBES = ("4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CHIPS = {
    "h100": Chip(989 * TERA, 80 * GB, 3350 * GB, 450 * GB, ("1", "2", "4", "8")),
    "v4": Chip(
        275 * TERA, 32 * GIB, 1200 * GB, 300 * GB, ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *CUBES)
    ),
    "v5e": Chip(197 * TERA, 16 * GB, 819 * GB, 200 * GB, FLAT),
    "v5p": Chip(
        459 * TERA, 95 * GIB, 2765 * GB, 600 * GB, ("2x2x1", "2x2x2", "2x4x4", *CUBES, "16x16x16")
    ),
    "v6e": Chip(918 * TERA, 32 * GB, 1638 * GB, 400 * GB, FLAT),
    "tpu7x": Chip(
        2307 * TERA,
        192 * GIB,
        7380 * GB,
        600 * GB,
        ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *CUBES),
        devices=2,
    ),
}


def chip_of(target: Target) -> Chip:
    """What is published about the chips of a target."""
    return CHIPS[target.chip]


def usable_bytes(target: Target) -> int:
    """Memory of a device that a program may fill: on GPUs the share that JAX takes of it."""
    chip = chip_of(target)
    share = 1.0
    if target.platform == "gpu":
        name, default = GPU_SHARE
        share = float(os.environ.get(name, default))
    return int(chip.memory * share / chip.devices)


def larger(target: Target, num_devices: int) -> list[Target]:
    """The slices on offer of the same chip with more devices than so many, the smallest first."""
    found = [Target(target.chip, shape) for shape in chip_of(target).slices]
    return [each for each in found if count(each) > num_devices]


def count(target: Target) -> int:
    """Devices of a target, without asking its compiler."""
    number = chip_of(target).devices
    for side in target.shape.split("x"):
        number *= int(side)
    return number
