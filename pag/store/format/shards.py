"""Shard files of the gradient store: where every byte lies, and reading them without decoding.

Zarr v3's sharding codec allows inner chunks of plain bytes, in any order. Written in C order, each followed by its
CRC-32C, they form records of one length, so that the place of a direction is a sum of two products and a batch of
directions is one gather:

    shard = image 0 | image 1 | … | index (offset and length of every chunk, uint64) | CRC-32C of the index
    image = chunk 0 | CRC-32C | chunk 1 | CRC-32C | …

A chunk is one direction, or all directions of an image where one is small (see Layout).

The chunks' CRCs are for other readers. They cannot tell whose shard it is, nor can a CRC-32C of the whole file: the
CRC of a message followed by its own CRC is the same for every message. So the store records each shard's SHA-256.
"""

import contextlib
import hashlib
import math
import mmap
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np

from pag.foundation.artifacts import ArtifactError

Shape = tuple[int, int, int, int, int]  # (N, K, C, H, W): images, classes, channels, rows, columns

DIRECTIONS = "directions/zarr.json"  # the array's metadata, beside whose folder `c` the shards lie
SHARD_BYTES = 128 << 20  # a shard holds as many images as fit, so that it is between half of this and this
MAX_SHARDS = 512  # more data makes larger shards: all of them may be open at once
SMALL_CHUNK = 512  # bytes; a smaller direction shares its chunk with the image's others, since each chunk costs 20
CRC_BYTES = 4
INDEX_ENTRY = 16  # offset and length of one chunk
READ_BYTES = 4 << 20  # one step of a sequential read
CALL_COST = 8192  # bytes that can be copied in about the time of one read call


@dataclass(frozen=True)
class Layout:
    """Where the directions of (N, K, C, H, W) lie; a function of shape and bits alone."""

    shape: Shape
    bits: int

    @cached_property
    def stored_shape(self) -> Shape:
        """The array's shape in bytes: 4 bits put two pixels of a row in one."""
        *outer, width = self.shape
        return (*outer, math.ceil(width * self.bits / 8))  # type: ignore[return-value]

    @cached_property
    def direction_bytes(self) -> int:
        return math.prod(self.stored_shape[2:])

    @cached_property
    def chunk_classes(self) -> int:
        return 1 if self.direction_bytes >= SMALL_CHUNK else self.shape[1]

    @cached_property
    def chunk_bytes(self) -> int:
        return self.chunk_classes * self.direction_bytes

    @cached_property
    def chunks_per_image(self) -> int:
        return self.shape[1] // self.chunk_classes

    @cached_property
    def class_stride(self) -> int:
        """Bytes from one class's direction to the next one's."""
        return self.direction_bytes + (CRC_BYTES if self.chunk_classes == 1 else 0)

    @cached_property
    def image_bytes(self) -> int:
        """Bytes from one image to the next in its shard."""
        return self.chunks_per_image * (self.chunk_bytes + CRC_BYTES)

    @cached_property
    def images_per_shard(self) -> int:
        images = self.shape[0]
        return min(images, max(1, SHARD_BYTES // self.image_bytes, math.ceil(images / MAX_SHARDS)))

    @cached_property
    def num_shards(self) -> int:
        return math.ceil(self.shape[0] / self.images_per_shard)

    def images_in(self, shard: int) -> int:
        return min(self.images_per_shard, self.shape[0] - shard * self.images_per_shard)

    def shard_bytes(self, shard: int) -> int:
        index = self.images_per_shard * self.chunks_per_image * INDEX_ENTRY + CRC_BYTES
        return self.images_in(shard) * self.image_bytes + index

    def total_bytes(self) -> int:
        return sum(map(self.shard_bytes, range(self.num_shards)))

    def index(self, shard: int) -> bytes:
        """The sharding index; chunks past the array's end are marked as missing, as the codec prescribes."""
        length = self.chunk_bytes + CRC_BYTES
        entries = np.full((self.images_per_shard * self.chunks_per_image, 2), -1, "<i8").view("<u8")
        present = self.images_in(shard) * self.chunks_per_image
        entries[:present, 0] = np.arange(present) * length
        entries[:present, 1] = length
        content = entries.tobytes()
        return content + google_crc32c.value(content).to_bytes(CRC_BYTES, "little")

    def file(self, shard: int) -> str:
        """The shard's name inside the store: the chunk key of an array called `directions`."""
        return f"directions/c/{shard}/0/0/0/0"

    def check_range(self, indices: np.ndarray, classes: np.ndarray) -> None:
        """Raises IndexError when an image or class does not exist; negative numbers do not count from the end."""
        for name, values, count in (("image", indices, self.shape[0]), ("class", classes, self.shape[1])):
            if values.min() < 0 or values.max() >= count:
                wrong = values[(values < 0) | (values >= count)][0]
                raise IndexError(f"{name} {wrong} does not exist, expected 0..{count - 1}")


class MappedShards:
    """Shards in the process's address space; a batch is one numpy gather, whichever shards it touches."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._layout = layout
        self._maps = [_map(folder / layout.file(shard)) for shard in range(layout.num_shards)]
        self._shards = [np.frombuffer(pages, np.uint8) for pages in self._maps]
        addresses = [shard.ctypes.data for shard in self._shards]
        first = addresses.index(min(addresses))
        end = max(address + shard.size for address, shard in zip(addresses, self._shards, strict=True))
        # One array over the address range of all maps: row r is the direction that starts r bytes after the lowest
        # map. Only rows of the tables below are ever taken, and they lie inside the maps. A gather a shard instead
        # took three times as long with ten shards.
        self._directions = np.lib.stride_tricks.as_strided(
            self._shards[first],
            (end - addresses[first] - layout.direction_bytes + 1, layout.direction_bytes),
            (1, 1),
            writeable=False,
        )
        within = np.arange(layout.images_per_shard) * layout.image_bytes
        rows = np.concatenate([address - addresses[first] + within for address in addresses])
        self._image_rows = rows[: layout.shape[0]]
        self._class_rows = np.arange(layout.shape[1]) * layout.class_stride

    def gather(self, indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The directions (B, k, direction_bytes) of images `indices` (B,) and `classes` (B, k)."""
        if indices.min() < 0 or classes.min() < 0:  # the upper end numpy checks itself, in a fifth less time
            self._layout.check_range(indices, classes)
        try:
            return self._directions[self._image_rows[indices][:, None] + self._class_rows[classes]]
        except IndexError:
            self._layout.check_range(indices, classes)
            raise

    def sha256(self, shard: int) -> str:
        return hashlib.sha256(self._shards[shard].data).hexdigest()


class StreamedShards:
    """Shards read by calls to the operating system: no page of theirs stays in the process.

    A page fault into a map that was released costs more than such a call, and on a cold disk a fault reads 128 KiB
    around the direction, so maps are not the way to read a store that memory must not hold.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        files = [os.open(folder / layout.file(shard), os.O_RDONLY) for shard in range(layout.num_shards)]
        weakref.finalize(self, close, files)
        self._files = np.array(files)

    def gather(self, indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The directions (B, k, direction_bytes) of images `indices` (B,) and `classes` (B, k)."""
        layout, (batch, k) = self._layout, classes.shape
        layout.check_range(indices, classes)
        shards, images = np.divmod(indices, layout.images_per_shard)
        files, starts = self._files[shards], images * layout.image_bytes
        offsets = classes * layout.class_stride
        wasted = layout.image_bytes - k * layout.direction_bytes
        if wasted > (k - 1) * CALL_COST:
            content = self._read(files.repeat(k), layout.direction_bytes, (starts[:, None] + offsets).ravel())
            return content.reshape(batch, k, layout.direction_bytes)
        whole = self._read(files, layout.image_bytes, starts)
        directions = np.lib.stride_tricks.as_strided(
            whole,
            (batch, layout.shape[1], layout.direction_bytes),
            (layout.image_bytes, layout.class_stride, 1),
        )
        return directions[np.arange(batch)[:, None], classes]

    def sha256(self, shard: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, self._layout.shard_bytes(shard), READ_BYTES):
            digest.update(os.pread(int(self._files[shard]), READ_BYTES, start))
        return digest.hexdigest()

    def _read(self, files: np.ndarray, length: int, starts: np.ndarray) -> np.ndarray:
        """`length` bytes from each file (R,) at each start (R,): (R, length)."""
        content = np.empty((len(starts), length), np.uint8)
        reads = map(os.preadv, files.tolist(), zip(content, strict=True), starts.tolist())  # type: ignore[arg-type]
        if sum(reads) != content.size:
            raise ArtifactError(f"{self._folder} became shorter while it was read: run `dvc repro`")
        return content


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it: fewer and larger pages to look up
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def close(files: list[int]) -> None:
    for file in files:
        os.close(file)
