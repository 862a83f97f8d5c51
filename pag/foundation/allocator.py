"""How this process's memory is taken from the system and given back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc reuse freed activations instead of returning them to the system; elsewhere, do nothing.

    By default a tensor above some hundred kilobytes costs page faults whenever it is allocated: at 170 images of 8×8
    pixels they took 40 % of the time of the small CNN under attack.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
