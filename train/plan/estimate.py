"""The time of a step at the chip's published peaks: no program is faster, and most are not near it.

It is that of its slowest part, as if everything else were hidden behind it:

    max(operations / peak,  bytes to and from memory / bandwidth,  bytes sent / bandwidth of links)

Operations are those of the step as it is, with what rematerialisation repeats; the share of the
peak that serves the model (MFU; Chowdhery et al. 2022, "PaLM", appendix B) counts what that needs.
Between memory and chip goes at least what a step takes and gives, once, and what it keeps beside
that and what collectives bring, twice. Links are all used at once, in one direction.
"""

import math
from collections.abc import Mapping
from typing import Any

from train.chips import chip_of
from train.collectives import Moved
from train.targets import Target


def estimate(
    chosen: Target,
    num_devices: int,
    taken: Mapping[str, int],
    operations: Mapping[str, int],
    moved: Mapping[str, Moved],
) -> dict[str, Any]:
    """Seconds of a step by part, and the share of the peak that serves the model.

    Args:
      chosen: where it runs.
      num_devices: of the target, as JAX counts them.
      taken: bytes on each, `arguments`, `outputs` and `temporaries`.
      operations: of all devices, of the `step` and of the `model`.
      moved: collectives of each.
    """
    chip = chip_of(chosen)
    peak = chip.flops * num_devices / chip.devices
    brought = sum(each.bytes for each in moved.values())
    passed = taken["arguments"] + taken["outputs"] + 2 * (taken["temporaries"] + brought)
    seconds = {
        "compute": operations["step"] / peak,
        "memory": passed * chip.devices / chip.memory_bandwidth,
        "links": sum(each.wire for each in moved.values()) * chip.devices / chip.link_bandwidth,
    }
    bound = max(seconds, key=lambda part: seconds[part])
    step = seconds[bound]
    return {
        "seconds": seconds,
        "step_seconds": step,
        "bound": bound,
        "mfu": operations["model"] / (step * peak) if step else math.nan,
    }
