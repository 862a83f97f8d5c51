"""What the tests of several rooms share."""

import os
from collections.abc import Iterator

import pytest

# Tiny tensors gain nothing from threads, and on a busy machine threads wait for each other for minutes. To be set
# before torch is loaded; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For what must hold to the bit however the work is split, and for what takes as many processes as threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
