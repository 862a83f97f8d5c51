"""The gradient store: quantised directions of g(x, y) for every training image and class, as a Zarr v3 group.

    <store>/zarr.json               group; its attributes say what the directions are of, and list all files with size
                                    and SHA-256. Written last: without it nothing here is a Zarr group.
    <store>/directions/zarr.json    array int8 (N, K, C, H, W), or with 4 bits uint8 (N, K, C, H, ⌈W/2⌉)
    <store>/directions/c/*/0/0/0/0  shards

Any Zarr v3 library reads it. Zarr takes a missing or empty shard for zeros, and a shard of another store for this
one's; `GradientStore` refuses both. It is written by `store_writer.py`.

Why an own reader: shuffled batches of 64 CIFAR directions reached, relative to np.memmap on a plain file of the same
(`python -m benchmarks.gradient_store`, two cores, files in the operating system's memory, k = 1 and k = 10 classes):

    this reader, store mapped           1.00   0.98
    this reader, nothing resident       0.35   0.63   (np.memmap that returns its pages as it goes: 0.25, 0.57)
    tensorstore                         0.03   0.04
    zarr-python with zarrs' pipeline    0.002  0.001
    zarr-python                         0.001  0.001

The libraries spend their time on each chunk's decoding and bookkeeping; here there is nothing to decode. Chunks are
not compressed: zstd takes 10 % off directions of normal pixels and 20 % off Laplace ones.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pag.checkpoint import ArtifactError
from pag.gradients.quantization import unpack
from pag.gradients.shards import Layout, MappedShards, Shape, StreamedShards

MAX_RESIDENT_BYTES = 2 << 30
GROUP, ARRAY = "zarr.json", "directions/zarr.json"
DAMAGED = "is damaged or of another store: remove the store and run `dvc repro`"


class GradientStore:
    """Reads a store in any order. Make one with `open`; pickling carries the path, so that worker processes can read.

    A shard is compared with its hash before its first direction is returned. Shuffled reads touch every shard
    within a few batches, so damage is found before hours of training, not after.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], max_resident_bytes: int) -> None:
        self.path, self.max_resident_bytes = path, max_resident_bytes
        self.attributes: dict[str, Any] = record["content"]
        images, classes, shape = (self.attributes[key] for key in ("num_images", "num_classes", "image_shape"))
        self.shape: Shape = (images, classes, *shape)  # type: ignore[assignment]
        self.layout = Layout(self.shape, self.attributes["bits"])
        self._digests = [record["files"][self.layout.file(shard)][1] for shard in range(self.layout.num_shards)]
        self._unverified = set(range(self.layout.num_shards))
        fits = self.layout.total_bytes() <= max_resident_bytes
        self._shards = (MappedShards if fits else StreamedShards)(path, self.layout)

    @classmethod
    def open(
        cls, path: Path, expect: Mapping[str, Any] | None = None, max_resident_bytes: int = MAX_RESIDENT_BYTES
    ) -> "GradientStore":
        """The store at `path`.

        expect: attributes that it must have, for instance the dataset's hash; `num_images`, `num_classes`,
            `image_shape` and `bits` are there in every store.
        max_resident_bytes: a store up to this size is memory-mapped, so that as much may become resident. A larger
            one is read call by call and leaves nothing resident but the batch.
        Raises ArtifactError when it is incomplete, damaged, or of something else than expected.
        """
        record = _load_record(path)
        for key, expected in (expect or {}).items():
            if record["content"].get(key) != _as_json(expected):
                raise ArtifactError(
                    f"{path} has {key} = {_short(record['content'].get(key))}, but this run needs {_short(expected)}: "
                    "run `dvc repro`, which makes it anew"
                )
        return cls(path, record, max_resident_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return GradientStore.open, (self.path, None, self.max_resident_bytes)

    def read(self, indices: ArrayLike, target_classes: ArrayLike) -> np.ndarray:
        """Directions of images `indices` (B,) towards `target_classes` (B, k): a new int8 array (B, k, C, H, W).

        Raises IndexError outside 0..N-1 or 0..K-1, and ArtifactError when a shard is damaged.
        """
        indices, classes = np.asarray(indices, np.int64), np.asarray(target_classes, np.int64)
        assert classes.shape[:1] == indices.shape and classes.ndim == 2, (indices.shape, classes.shape)
        if len(indices) == 0:
            return np.empty((0, classes.shape[1], *self.shape[2:]), np.int8)
        if self._unverified:
            self._verify(indices)
        directions = self._shards.gather(indices, classes).reshape(*classes.shape, *self.layout.stored_shape[2:])
        return directions.view(np.int8) if self.layout.bits == 8 else unpack(directions, self.shape[-1])

    def read_all_classes(self, indices: ArrayLike) -> np.ndarray:
        """Directions of images `indices` (B,) towards every class: a new int8 array (B, K, C, H, W)."""
        indices = np.asarray(indices)
        return self.read(indices, np.broadcast_to(np.arange(self.shape[1]), (len(indices), self.shape[1])))

    def _verify(self, indices: np.ndarray) -> None:
        for shard in self._unverified.intersection((indices // self.layout.images_per_shard).tolist()):
            if self._shards.sha256(shard) != self._digests[shard]:
                raise ArtifactError(f"{self.path / self.layout.file(shard)} {DAMAGED}")
            self._unverified.discard(shard)


def _load_record(path: Path) -> dict[str, Any]:
    """The group's attributes, and every file's presence and size checked against them."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it in an earlier stage")
    if not (path / GROUP).exists():
        raise ArtifactError(f"{path} is incomplete, it has no {GROUP}: run `dvc repro`, which makes it anew")
    try:
        record = json.loads((path / GROUP).read_bytes())["attributes"]
        intact = record.pop("sha256") == digest_of(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise ArtifactError(f"{path / GROUP} {DAMAGED}")
    for name, (size, _) in record["files"].items():
        file = path / name
        if not file.exists():
            raise ArtifactError(f"{path} is incomplete, it has no {name}: run `dvc repro`, which makes it anew")
        if file.stat().st_size != size:
            raise ArtifactError(
                f"{file} has {file.stat().st_size} bytes, expected {size}: run `dvc repro` to remake it"
            )
    if hashlib.sha256((path / ARRAY).read_bytes()).hexdigest() != record["files"][ARRAY][1]:
        raise ArtifactError(f"{path / ARRAY} {DAMAGED}")
    return record


def digest_of(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of the group's attributes, which protects the hashes of all files."""
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    """`value` as it comes back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 24 else repr(value)
