"""The gradient store: quantised directions of g(x, y) for every training image and class, as a Zarr v3 group.

    <store>/zarr.json               group; its attributes say what the directions are of, and list all files with size
                                    and SHA-256. Written last: without it nothing here is a Zarr group.
    <store>/directions/zarr.json    array int8 (N, K, C, H, W), or with 4 bits uint8 (N, K, C, H, ⌈W/2⌉)
    <store>/directions/c/*/0/0/0/0  shards

Any Zarr v3 library reads it. Zarr takes a missing or empty shard for zeros, and a shard of another store for this
one's; `GradientStore` refuses both. It is written by `store_writer.py`.

Why an own reader: shuffled batches of 64 CIFAR directions come nearly as fast as from np.memmap on a plain file, from
tensorstore at a twentieth of that or less, from zarr-python at a thousandth (`benchmarks.gradient_store`). The
libraries spend their time on each chunk's decoding and bookkeeping; here there is nothing to decode. Chunks are not
compressed: zstd takes 10 % off directions of normal pixels and 20 % off Laplace ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pag.foundation.artifacts import ArtifactError
from pag.store.format.quantization import unpack
from pag.store.format.record import DAMAGED, Record, load_record
from pag.store.format.shards import DIRECTIONS, Layout, MappedShards, Shape, StreamedShards
from pag.store.remote import Remote, RemoteShards, is_remote

MAX_RESIDENT_BYTES = 2 << 30


class GradientStore:
    """Reads a store in any order. Make one with `open`; pickling carries the path, so that worker processes can read.

    A shard is compared with its hash before its first direction is returned. Shuffled reads touch every shard
    within a few batches, so damage is found before hours of training, not after.
    """

    def __init__(
        self, record: Record, max_resident_bytes: int = MAX_RESIDENT_BYTES, remote: Remote | None = None
    ) -> None:
        self.path, self.max_resident_bytes, self._remote = record.path, max_resident_bytes, remote
        if DIRECTIONS not in record.files:
            raise ArtifactError(
                f"{self.path} has no directions, they are computed from the images: "
                "open it with pag.store.computed.open_distilled"
            )
        record.verify(DIRECTIONS)
        self.attributes: dict[str, Any] = record.content
        self.shape: Shape = record.shape
        self.layout = Layout(record.shape, record.bits)
        self._digests = [record.files[self.layout.file(shard)][1] for shard in range(self.layout.num_shards)]
        self._unverified = set(range(self.layout.num_shards))
        fits = self.layout.total_bytes() <= max_resident_bytes
        self._shards: MappedShards | StreamedShards
        if remote is not None:
            self._shards = RemoteShards(remote, record, self.layout)
        else:
            self._shards = (MappedShards if fits else StreamedShards)(self.path, self.layout)

    @classmethod
    def open(
        cls,
        path: str | Path,
        expect: Mapping[str, Any] | None = None,
        max_resident_bytes: int = MAX_RESIDENT_BYTES,
        *,
        cache: str | Path | None = None,
        max_cached_bytes: int | None = None,
    ) -> "GradientStore":
        """The store at `path`: a folder, or an address in object storage (s3://…).

        expect: attributes that it must have, for instance the dataset's hash; `num_images`, `num_classes`,
            `image_shape` and `bits` are there in every store.
        max_resident_bytes: a store up to this size is memory-mapped, so that as much may become resident. A larger
            one, and one from object storage, is read call by call and leaves nothing resident but the batch.
        cache, max_cached_bytes: where copies of the shards of object storage lie (None: ~/.cache/pag/stores), and how
            many bytes of them (None: as many as the disk has room for); the rest is read from there each time.
        Raises ArtifactError when it is incomplete, damaged, or of something else than expected.
        """
        if is_remote(path):
            remote = Remote(str(path), cache, max_cached_bytes)
            return cls(remote.record(expect), max_resident_bytes, remote)
        return cls(load_record(Path(path), expect), max_resident_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.max_resident_bytes, self._remote)

    def read(self, indices: ArrayLike, target_classes: ArrayLike) -> np.ndarray:
        """Directions of images `indices` (B,) towards `target_classes` (B, k): a new int8 array (B, k, C, H, W).

        Raises ValueError for other shapes, IndexError outside 0..N-1 or 0..K-1, and ArtifactError when a shard is
        damaged; each in one line.
        """
        indices, classes = as_rows(indices, target_classes)
        if classes.size == 0:
            return np.empty((*classes.shape, *self.shape[2:]), np.int8)
        if self._unverified:
            self._verify(indices)
        directions = self._shards.gather(indices, classes).reshape(*classes.shape, *self.layout.stored_shape[2:])
        return directions.view(np.int8) if self.layout.bits == 8 else unpack(directions, self.shape[-1])

    def read_all_classes(self, indices: ArrayLike) -> np.ndarray:
        """Directions of images `indices` (B,) towards every class: a new int8 array (B, K, C, H, W)."""
        indices = np.asarray(indices)
        return self.read(indices, np.broadcast_to(np.arange(self.shape[1]), (len(indices), self.shape[1])))

    def _verify(self, indices: np.ndarray) -> None:
        touched = self._unverified.intersection((indices // self.layout.images_per_shard).tolist())
        if isinstance(self._shards, RemoteShards):
            self._shards.fetch(touched)  # which compares what it copies
            self._unverified -= touched
            return
        for shard in touched:
            if self._shards.sha256(shard) != self._digests[shard]:
                raise ArtifactError(f"{self.path / self.layout.file(shard)} {DAMAGED}")
            self._unverified.discard(shard)


def _reopened(path: Path, max_resident_bytes: int, remote: Remote | None) -> GradientStore:
    record = load_record(path) if remote is None else remote.record(None)
    return GradientStore(record, max_resident_bytes, remote)


def as_rows(indices: ArrayLike, target_classes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64, of shapes (B,) and (B, k). Raises ValueError in one line for anything else."""
    rows, classes = np.asarray(indices), np.asarray(target_classes)
    if rows.ndim != 1 or classes.ndim != 2 or len(rows) != len(classes):
        raise ValueError(f"got image numbers {rows.shape} and classes {classes.shape}: expected (B,) and (B, k)")
    for values in (rows, classes):
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(f"image numbers and classes are {rows.dtype} and {classes.dtype}: expected integers")
    return rows.astype(np.int64, copy=False), classes.astype(np.int64, copy=False)
