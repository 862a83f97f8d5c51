"""Freed memory stays with the process: taking it again costs no page faults."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = """
import resource, sys
import torch
from pag.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
MIB = 2**18  # float32 numbers
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    if step == 5:
        before = faults()
    tensors = [torch.ones(size * MIB) for size in (8, 16, 24)]
    del tensors
print(faults() - before)
"""


def faults(mode: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, cwd=ROOT, check=True)
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_is_taken_from_the_system_once() -> None:
    assert faults("keep") < faults("return") / 10
