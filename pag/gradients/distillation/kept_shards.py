"""What a killed distillation leaves of a store: whole shards, and of the open ones what was made of them.

An open shard is kept with the images that are not in its file yet, since they are written in blocks that depend on
nothing but the store's shape.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from pag.foundation.artifacts import sha256
from pag.foundation.scratch import Scratch, set_aside
from pag.store.format.shards import Layout


@dataclass(frozen=True)
class Written:
    """What lies in the file of a shard, and its part in what the store says of itself."""

    digest: str  # SHA-256
    cosine_sums: list[float]  # of its blocks, in their order: their sum does not depend on who wrote which shard
    cosine_min: float
    zeros: int  # directions that are zero


@dataclass(frozen=True)
class Opened:
    """A shard that was being written."""

    written: Written
    images: int  # in its file
    block: np.ndarray  # float32 (B, K, C, H, W): the images that follow

    def __len__(self) -> int:
        return self.images + len(self.block)


def shards_folder(scratch: Scratch | None, path: Path) -> Path | None:
    """Where finished shards of the store at `path` wait for the others."""
    return scratch.folder / f"{path.name}.shards" if scratch is not None else None


class KeptShards:
    """The shards of the store at `path` that lie in `folder`, and what a scratch knows of them."""

    def __init__(self, scratch: Scratch, path: Path, layout: Layout, folder: Path) -> None:
        self.scratch, self.name, self.layout, self.folder = scratch, path.name, layout, folder

    def whole(self, shard: int) -> Written | None:
        """A shard that was finished, unless it is damaged."""
        saved = self.scratch.load(self._state(shard))
        return self._checked(shard, Written(*saved)) if saved is not None else None

    def opened(self, shard: int) -> Opened | None:
        """A shard that was begun; what its file holds beyond the state is cut off."""
        saved = self.scratch.load(f"{self._state(shard)}.open")
        if saved is None:
            return None
        written, images, block = Written(*saved[0]), saved[1], saved[2].numpy()
        file, size = self._file(shard), images * self.layout.image_bytes
        if file.exists() and file.stat().st_size > size:
            os.truncate(file, size)
        return Opened(written, images, block) if images == 0 or self._checked(shard, written) else None

    def keep_whole(self, shard: int, written: Written) -> None:
        self.scratch.save(self._state(shard), astuple(written))
        for file in self.scratch.folder.glob(f"{self._state(shard)}.open*"):
            file.unlink()

    def keep_open(self, shard: int, opened: Opened) -> None:
        block = torch.from_numpy(opened.block.copy())  # a view would be saved with all that it is a part of
        self.scratch.save(f"{self._state(shard)}.open", (astuple(opened.written), opened.images, block))

    def _checked(self, shard: int, written: Written) -> Written | None:
        file = self._file(shard)
        if not file.exists():
            return None
        if sha256(file) != written.digest:
            set_aside(file, "it is damaged")
            return None
        return written

    def _file(self, shard: int) -> Path:
        return self.folder / self.layout.file(shard)

    def _state(self, shard: int) -> str:
        return f"{self.name}.{shard}"


def spans_of(shards: Sequence[int], layout: Layout, opened: Mapping[int, Opened]) -> list[tuple[int, int]]:
    """Begin and end of every row of images in these shards, which ascend, but for those that are kept already."""
    spans: list[tuple[int, int]] = []
    for shard in shards:
        end = shard * layout.images_per_shard + layout.images_in(shard)
        begin = shard * layout.images_per_shard + (len(opened[shard]) if shard in opened else 0)
        first = spans.pop()[0] if spans and spans[-1][1] == begin else begin
        spans.append((first, end))
    return spans
