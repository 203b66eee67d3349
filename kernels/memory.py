"""Memory that a step gives back and takes again stays with the process (CPU, GNU C library).

XLA's CPU backend asks `malloc` for the temporary arrays of a program every time that it runs. The
library takes more than 32 MB at once from the system and gives it back each time, and then every
page that is written to is a fault: 12,000 a training step of the four-layer GPT, 30 of its 75 ms.
"""

import ctypes

# Parameters of mallopt(3), from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1  # what an int holds: 2 GB may lie idle at the end of the heap
GROWTH = 2**28  # bytes by which a heap grows at once, and which none gives back


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed, for this process; whether it has such settings.

    To be called before JAX is imported, whose threads begin heaps of their own. One heap for all
    would keep as much, but threads would wait for each other at every small array: a step of a
    12-block model of width 4 takes 2.9 ms then, and 1.2 ms with many heaps. What a process once
    needed it holds until it ends, and a heap that is not the first holds no more than 64 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = {MMAP_MAX: 0, TRIM_THRESHOLD: LARGEST, TOP_PAD: GROWTH}
    return mallopt is not None and all([mallopt(*setting) for setting in settings.items()])
