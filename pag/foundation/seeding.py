"""Randomness has an owner: every draw comes from a generator whose seed names its purpose.

Seeds are derived by hashing (seed, purpose…), so that two purposes never share a stream and a sample's draw depends
neither on the batch it is in nor on the order in which samples are visited.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. ``derive_seed(0, "noise", image_index)``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose; its stream is the same on every machine."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Inside, the global generators, which dropout draws from, may be seeded; afterwards they are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
