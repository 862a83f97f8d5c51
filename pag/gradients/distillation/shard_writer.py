"""The files of a store's shards, written one after the other."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from pag.store.format.shards import CRC_BYTES, Layout


class ShardWriter:
    """Writes the shards of the given numbers one after the other as their images are appended."""

    def __init__(self, folder: Path, layout: Layout, shards: Sequence[int], begun: Mapping[int, int]) -> None:
        """begun: shard → the images that its file holds already, and nothing after them."""
        self.folder, self.layout = folder, layout
        self._shards = list(shards)  # the open one and those that follow
        self._begun = begun
        self._begin()

    def _begin(self) -> None:
        """Open the next shard, if there is one."""
        self.images = self._begun.get(self._shards[0], 0) if self._shards else 0  # in the open shard
        self._started = self.images > 0  # the open shard's file
        self._digest = hashlib.sha256()
        if self._started:
            with open(self._path, "rb") as file:
                self._digest = hashlib.file_digest(file, "sha256")  # which takes up more

    @property
    def room(self) -> int:
        """Images that the open shard still takes."""
        return self.layout.images_in(self.shard) - self.images

    @property
    def left(self) -> int:
        """Shards that are not finished."""
        return len(self._shards)

    @property
    def shard(self) -> int:
        """The number of the open shard."""
        return self._shards[0]

    @property
    def digest(self) -> str:
        """SHA-256 of what the open shard's file holds."""
        return self._digest.hexdigest()

    @property
    def _path(self) -> Path:
        return self.folder / self.layout.file(self.shard)

    def append(self, directions: np.ndarray) -> str | None:
        """directions: bytes (B, K, direction_bytes), C-contiguous, B ≤ room. The shard's SHA-256 if it is finished."""
        assert 0 < len(directions) <= self.room, (len(directions), self.room)
        layout = self.layout
        chunks = directions.view(np.uint8).reshape(-1, layout.chunk_bytes)
        records = np.empty((len(chunks), layout.chunk_bytes + CRC_BYTES), np.uint8)
        records[:, :-CRC_BYTES] = chunks
        checksums = np.fromiter(map(google_crc32c.value, chunks), "<u4", len(chunks))
        records[:, -CRC_BYTES:] = checksums.view(np.uint8).reshape(-1, CRC_BYTES)
        self._write(records)
        self.images += len(directions)
        if self.room:
            return None
        self._write(np.frombuffer(layout.index(self.shard), np.uint8))
        digest = self.digest
        self._shards.pop(0)
        self._begin()
        return digest

    def _write(self, content: np.ndarray) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab" if self._started else "wb") as file:  # anew: a killed writer may have left a part
            file.write(content.data)
        self._started = True
        self._digest.update(content.data)
