"""Memory that a step gives back and takes again stays with the process (CPU, GNU C library).

XLA's CPU backend asks `malloc` for the temporary arrays of a program every time that it runs. The
library takes more than 32 MB at once from the system and gives it back each time, and then every
page that is written to is a fault: 12,000 a training step of the four-layer GPT, 30 of its 75 ms.
"""

import ctypes

# Parameters of mallopt(3), from malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
LARGEST = 2**31 - 1  # what an int holds: 2 GB may lie idle at the end of the heap


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed, for this process; whether it has such settings.

    To be called before JAX is imported: a thread that has begun a heap of its own by then keeps
    little of what does not fit there. JAX 0.12 has such threads, and gains in some of its runs
    only. What a process once needed it holds until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: LARGEST}
    return mallopt is not None and all([mallopt(*setting) for setting in settings.items()])
