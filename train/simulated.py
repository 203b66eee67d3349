"""A CPU that looks like several devices, for trying what needs them."""

import os

DEVICES = "JAX_NUM_CPU_DEVICES"
THREADS_EACH = 16  # more collectives than that do not wait side by side in any recipe's step


def give_threads() -> None:
    """Threads enough for all devices that ``JAX_NUM_CPU_DEVICES`` asks for; before JAX is imported.

    A device that waits in a collective holds a thread, and one that can go on may wait in several
    at once. XLA has as many threads as devices, and where all of them wait none is left for those
    that they wait for: it ends the process after 40 seconds.
    """
    asked = os.environ.get(DEVICES, "")
    if asked.isdecimal() and int(asked) > 1:
        os.environ.setdefault("PJRT_NPROC", str(THREADS_EACH * int(asked)))
