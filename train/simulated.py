"""A CPU that looks like several devices, or is one of several, for trying what needs them."""

import os

DEVICES = "JAX_NUM_CPU_DEVICES"
THREADS_EACH = 16  # more collectives than that do not wait side by side in any recipe's step


def give_threads(*, distributed: bool = False) -> None:
    """Threads enough for the devices of ``JAX_NUM_CPU_DEVICES``; before JAX looks for devices.

    A device that waits in a collective holds a thread, and one that can go on may wait in several
    at once. XLA has as many threads as devices or cores, and where all of them wait none is left
    for those that they wait for: it ends the process after 40 seconds.

    Args:
      distributed: whether one device waits too, for those of other processes.
    """
    asked = os.environ.get(DEVICES, "")
    count = int(asked) if asked.isdecimal() else 1
    if count > 1 or distributed:
        threads = max(THREADS_EACH * count, os.cpu_count() or 1)
        os.environ.setdefault("PJRT_NPROC", str(threads))
