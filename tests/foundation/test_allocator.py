"""Freed memory stays with the process, whatever the kernel counts as a page fault: glibc's own books show it."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
ROOT = Path(__file__).resolve().parents[2]
TENSORS, SIZE, MIB = 6, 48, 2**20  # SIZE MiB a tensor: more than the largest threshold that glibc accepts for maps
BOOKS = f"""
import ctypes, sys
import torch
from pag.foundation.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # malloc.h
Books = type("Books", (ctypes.Structure,), {{"_fields_": [(field, ctypes.c_size_t) for field in fields]}})
books = ctypes.CDLL(None).mallinfo2
books.restype = Books
mapped = books().hblkhd
tensors = [torch.ones({SIZE} * 2**18) for _ in range({TENSORS})]
mapped = books().hblkhd - mapped
del tensors
print(mapped, books().fordblks)
"""


def mapped_and_kept(mode: str) -> tuple[float, float]:
    """MiB taken from the system for themselves by 6 tensors of 48 MiB, and MiB kept in the heap when they are freed."""
    run = subprocess.run([sys.executable, "-c", BOOKS, mode], capture_output=True, text=True, cwd=ROOT, check=True)
    mapped, kept = map(int, run.stdout.split())
    return mapped / MIB, kept / MIB


@pytest.mark.skipif(not hasattr(LIBC, "mallinfo2"), reason="the books are glibc's, from 2.33 on")
def test_freed_memory_is_kept() -> None:
    mapped, kept = mapped_and_kept("keep")
    assert mapped < 1 and kept >= TENSORS * SIZE
    mapped, kept = mapped_and_kept("return")
    assert mapped >= TENSORS * SIZE and kept < SIZE
