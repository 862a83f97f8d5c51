"""Labelled images as every stage sees them: three splits in memory or memory-mapped, and a hash of their content."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pag.foundation.artifacts import REMAKE, ArtifactError, load_array, load_json, save_array, save_json
from pag.foundation.atomic import atomic_directory

SPLITS = ("train", "validation", "test")
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W), or points float32 (N, D), with labels int64 (N,) in 0..num_classes-1.

    levels: the raw value of white: 255, or 16 for the digits; 1 for points, which are not bounded.
    """

    images: np.ndarray
    labels: np.ndarray
    levels: int = 255

    def __post_init__(self) -> None:
        """Raises ValueError, one line, for other arrays; labels of another integer type are converted."""
        images, labels = self.images, np.asarray(self.labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels are {labels.dtype} {labels.shape}, expected whole numbers (N,)")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        if not isinstance(images, np.ndarray):
            raise ValueError(f"images are a {type(images).__name__}, expected a NumPy array: convert them")
        if (images.dtype, images.ndim) not in ((np.uint8, 4), (np.float32, 2)):
            raise ValueError(
                f"images are {images.dtype} {images.shape}, expected uint8 (N, C, H, W), or points float32 (N, D): "
                "convert them, images to 0..levels"
            )
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images have {len(labels)} labels, expected one for each")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "Split":
        return Split(self.images[indices], self.labels[indices], self.levels)

    def unit(self, rows: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """The images `rows` as a new float32 tensor in [0, 1]."""
        return to_unit(self.images[rows], self.levels)


@dataclass(frozen=True)
class ImageDataset:
    """One data set, ready for all stages; its splits have the same `levels`."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split  # held out of the training images; model selection may look only at these
    test: Split
    content_hash: str  # SHA-256 over arrays and metadata; what is made from a data set records it

    @classmethod
    def create(
        cls, name: str, class_names: tuple[str, ...], *, train: Split, validation: Split, test: Split
    ) -> "ImageDataset":
        """The data set with its hash computed."""
        digest = _content_hash(name, class_names, (train, validation, test))
        return cls(name, class_names, train, validation, test, digest)

    @property
    def levels(self) -> int:
        return self.train.levels

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (D,) for points."""
        return self.train.images.shape[1:]

    def split(self, name: str) -> Split:
        """One of SPLITS by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def splits(self) -> Iterator[tuple[str, Split]]:
        return ((name, self.split(name)) for name in SPLITS)


def to_unit(raw: np.ndarray | torch.Tensor, levels: int) -> torch.Tensor:
    """Raw values 0..levels as a new float32 tensor in [0, 1]; a tensor stays on its device."""
    if isinstance(raw, torch.Tensor):
        return raw.to(torch.float32, copy=True).div_(levels)
    return torch.from_numpy(np.array(raw, dtype=np.float32)).div_(levels)  # a copy: `raw` may be a read-only file


def save(dataset: ImageDataset, folder: Path) -> None:
    """Write the arrays and their description; `folder` appears whole or not at all."""
    about = {
        "class_names": list(dataset.class_names),
        "content_hash": dataset.content_hash,
        "image_shape": list(dataset.image_shape),
        "levels": dataset.levels,
        "name": dataset.name,
        "sizes": {name: len(split) for name, split in dataset.splits()},
    }
    with atomic_directory(folder) as partial:
        for name, split in dataset.splits():
            save_array(partial / f"{name}_images.npy", split.images)
            save_array(partial / f"{name}_labels.npy", split.labels)
        save_json(partial / DESCRIPTION, about, sealed=True)


def load(folder: Path) -> ImageDataset:
    """The data set in `folder`, its images memory-mapped read-only.

    Every byte is read once to verify the hash, so that no later stage works on damaged or foreign data.
    Raises ArtifactError when anything is missing, damaged, or does not match the hash.
    """
    keys = ("name", "class_names", "levels", "content_hash")
    about = load_json(folder / DESCRIPTION, sealed=True, keys=keys)
    splits = {name: _split(folder, name, about["levels"]) for name in SPLITS}
    dataset = ImageDataset.create(about["name"], tuple(about["class_names"]), **splits)
    if dataset.content_hash != about["content_hash"]:
        raise ArtifactError(f"{folder} does not match the hash in its {DESCRIPTION}: {REMAKE}")
    return dataset


def _split(folder: Path, name: str, levels: int) -> Split:
    images, labels = load_array(folder / f"{name}_images.npy"), load_array(folder / f"{name}_labels.npy")
    try:
        return Split(images, np.array(labels), levels)
    except ValueError as error:
        raise ArtifactError(f"{folder}: {name}_images.npy or {name}_labels.npy is damaged, {error}: {REMAKE}") from None


def _content_hash(name: str, class_names: tuple[str, ...], splits: tuple[Split, ...]) -> str:
    digest = hashlib.sha256(json.dumps([name, class_names, splits[0].levels]).encode())
    for split in splits:
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
