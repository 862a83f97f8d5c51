"""How this process's memory is taken from the system and given back, and what it looks like when there is no more."""

import ctypes
import sys

# of PyTorch on a GPU, on a CPU, and of cuBLAS and cuDNN
_SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc reuse freed activations instead of returning them to the system; elsewhere, do nothing.

    By default a tensor above some hundred kilobytes costs page faults whenever it is allocated: at 170 images of 8×8
    pixels they took 40 % of the time of the small CNN under attack. The price is a heap with holes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # no threshold does: glibc accepts none above 32 MiB, and activations are larger
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory: Python's own error, or a RuntimeError of PyTorch or a library below it."""
    text = str(error)
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)
