"""Raw images for the miniature of a paper's preset: a slice of real ones where they are at hand, else generated."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The folder that holds data/cifar10-jpeg.tar.xz and data/tiny-imagenet-200-subset.tar.xz.
SHARED = Path(os.environ.get("PAG_SHARED", Path(__file__).resolve().parents[1] / "../shared")) / "data"
CIFAR10_JPEG, TINY_IMAGENET = "cifar10-jpeg.tar.xz", "tiny-imagenet-200-subset.tar.xz"
TINY_CLASSES = 20
PER_CLASS = {"train": 3, "test": 1}  # one to validate with, two to train with, since NN needs another one
FEWER = {"train": 2, "test": 1}  # where there are many classes, and no preset with NN


def provide(dataset: str, folder: Path) -> dict[str, Any]:
    """Put the raw files of a preset's dataset into `folder`; returns what to change in `data` of its conf."""
    makers: dict[str, Callable[[Path], dict[str, Any]]] = {
        "cifar10": _cifar10,
        "cifar100": lambda folder: _generated(folder, 100, 32, FEWER),
        "stl10": lambda folder: _generated(folder, 10, 96),
        "tinyimagenet": _tiny_imagenet,
        "mnist5k": lambda folder: _limits(10),  # comes with a package
    }
    folder.mkdir(parents=True, exist_ok=True)
    return makers[dataset](folder) | {"download": False}


def _cifar10(folder: Path) -> dict[str, Any]:
    archive = SHARED / CIFAR10_JPEG
    if archive.is_file():
        return {"loader": "folder", "root": str(archive.resolve()), "note": "a few images of the JPEG copy"} | _limits(
            10
        )
    return _generated(folder, 10, 32)


def _tiny_imagenet(folder: Path) -> dict[str, Any]:
    """The first classes in the official layout: real images, or generated ones."""
    root, archive = folder / "tiny-imagenet-200", SHARED / TINY_IMAGENET
    if archive.is_file():
        _unpack_classes(archive, root)
        note = "a few real images"
    else:
        _generate_tiny_imagenet(root)
        note = "generated images"
    return {"root": str(root), "note": note} | _limits(TINY_CLASSES, FEWER)


def _limits(num_classes: int, per_class: dict[str, int] = PER_CLASS) -> dict[str, Any]:
    limits = {f"{part}_limit": count * num_classes for part, count in per_class.items()}
    return limits | {"validation_fraction": 1 / per_class["train"]}


def _generated(folder: Path, num_classes: int, side: int, per_class: dict[str, int] = PER_CLASS) -> dict[str, Any]:
    """A tree of images in the place of a download."""
    for part, count in per_class.items():
        for y in range(num_classes):
            home = folder / part / f"class {y}"
            home.mkdir(parents=True)
            for index, pixels in enumerate(_pixels([y] * count, side, f"{part} {y}")):
                Image.fromarray(pixels.transpose(1, 2, 0)).save(home / f"{index}.png")
    limits = _limits(num_classes, per_class)
    return {"loader": "folder", "root": str(folder), "note": "generated images"} | limits


def _unpack_classes(archive: Path, root: Path) -> None:
    """The first classes of the archive, with a few training images of each and all validation images."""
    taken: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts[1:]
            match parts:
                case ("train", wnid, "images", _) if member.isfile():
                    if wnid not in taken and len(taken) == TINY_CLASSES:
                        continue
                    taken[wnid] = taken.get(wnid, 0) + 1
                    wanted = taken[wnid] <= FEWER["train"]
                case ("val", *_) | ("words.txt",):
                    wanted = member.isfile()
                case _:
                    wanted = False
            if wanted:
                (root / Path(*parts)).parent.mkdir(parents=True, exist_ok=True)
                (root / Path(*parts)).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    _drop_other_classes(root, set(taken))


def _drop_other_classes(root: Path, wnids: set[str]) -> None:
    for line in (root / "val/val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        if wnid not in wnids:
            (root / "val/images" / name).unlink(missing_ok=True)


def _generate_tiny_imagenet(root: Path) -> None:
    wnids = [f"n{y:08}" for y in range(TINY_CLASSES)]
    annotations = []
    for y, wnid in enumerate(wnids):
        for index, pixels in enumerate(_pixels([y] * (FEWER["train"] + 1), 64, wnid)):
            part = "val" if index == FEWER["train"] else f"train/{wnid}"
            path = root / part / "images" / f"{wnid}_{index}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
            if part == "val":
                annotations.append(f"{path.name}\t{wnid}\t0\t0\t63\t63")
    (root / "val/val_annotations.txt").write_text("\n".join(annotations))
    (root / "words.txt").write_text("\n".join(f"{wnid}\tclass {wnid}" for wnid in wnids))


def _pixels(labels: list[int], side: int, name: str) -> np.ndarray:
    """uint8 (N, 3, side, side): noise around a colour of the class, other noise for every `name`."""
    colours = np.random.default_rng(0).integers(40, 216, (max(labels) + 1, 3, 1, 1))
    noise = np.random.default_rng(list(name.encode())).integers(-40, 40, (len(labels), 3, side, side))
    return (colours[labels] + noise).astype(np.uint8)
