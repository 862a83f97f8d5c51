"""What the gradient store is compared with: np.memmap held to a bound, and other Zarr readers of the same files."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

Read = Callable[[np.ndarray, np.ndarray], Any]


class BoundedMemmap:
    """np.memmap that returns its pages when more than a bound of them has become resident."""

    def __init__(self, path: Path, bound: int, shape: tuple[int, ...]) -> None:
        self.memmap, self.bound = np.memmap(path, np.int8, "r", shape=shape), bound
        self.resident = 0
        self._status = os.open("/proc/self/statm", os.O_RDONLY)

    def read(self, indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        before = self._resident_file_bytes()
        directions = self.memmap[indices[:, None], classes]
        self.resident += self._resident_file_bytes() - before
        if self.resident > self.bound:
            self.memmap._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
            self.resident = 0
        return directions

    def _resident_file_bytes(self) -> int:
        return int(os.pread(self._status, 128, 0).split()[2]) * mmap.PAGESIZE


def libraries(path: Path) -> dict[str, Read]:
    """Other Zarr readers of the same store, as far as they are installed."""
    readers: dict[str, Read] = {"zarr-python": _zarr_read(path)}
    try:
        import zarrs  # noqa: F401

        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            readers["zarr-python with zarrs"] = _zarr_read(path)
    except ImportError:
        pass
    try:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "directions")}}
        array = tensorstore.open(spec, read=True).result()
        readers["tensorstore"] = lambda indices, classes: array[indices[:, None], classes].read().result()
    except ImportError:
        pass
    return readers


def _zarr_read(path: Path) -> Read:
    array = zarr.open_group(path, mode="r")["directions"]
    assert isinstance(array, zarr.Array)

    def read(indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Its vectorised indexing has no whole directions: one by one, or all classes of an image at once."""
        if classes.shape[1] == array.shape[1]:
            return np.asarray(array.oindex[indices])[np.arange(len(indices))[:, None], classes]
        return np.stack(
            [np.asarray(array[i, c]) for i, row in zip(indices, classes, strict=True) for c in row]
        ).reshape(*classes.shape, *array.shape[2:])

    return read
