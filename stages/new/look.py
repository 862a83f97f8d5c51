"""How images of one's own are to be read: the size that they are brought to and the parts that are cut from them."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from pag.datasets.folder import files_of
from pag.datasets.tree import FileTree
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.data import Channels, DataConfig
from pag.foundation.config.section import ConfigError

LOOKED_AT = 500  # images, of which the sizes are read
SIDES = (8, 16, 32, 64)  # that images of other sizes are brought to
SMALLEST = 8
TEST, VALIDATION = 0.2, 0.1  # the parts that are cut, where one image of each class is no larger part


def reading(path: Path, root: str, largest_side: int, most_images: int | None, image_size: int | None) -> DataConfig:
    """The section `data` for the images at `path`, which the conf is to call `root`.

    largest_side: larger images are made smaller. most_images: of the training part, or None. image_size: the user's
    choice, or None. Raises SourceError or ConfigError in one line for images that cannot be used.
    """
    tree = FileTree(path)
    files = files_of(tree)
    sizes, modes = zip(*looks(tree, files), strict=True)
    side = image_size or common_side(set(sizes), root, largest_side)
    rarest = min(len(names) for names in files["train"].values())
    if rarest < 5:
        name = min(files["train"], key=lambda each: len(files["train"][each]))
        raise ConfigError(
            f"class '{name}' has too few training images ({rarest}), expected at least 5: add some or remove it"
        )
    test = None if files["test"] else max(TEST, _one_of(rarest))
    left = rarest * (1 - (test or 0))
    total = sum(map(len, files["train"].values()))
    return DataConfig(
        loader="folder",
        root=root,
        image_size=side,
        channels=common_channels(set(modes)),
        test_fraction=test,
        validation_fraction=VALIDATION if files.get("validation") else max(VALIDATION, _one_of(left)),
        train_limit=most_images if most_images is not None and total > most_images else None,
    )


def _one_of(count: float) -> float:
    """The part of `count` images of a class that is surely one image, in hundredths."""
    return min(0.5, math.ceil(150 / count) / 100)


def looks(tree: FileTree, files: dict[str, dict[str, list[str]]]) -> list[tuple[tuple[int, int], str]]:
    """The sizes and modes (Pillow's) of some images of all parts. Files that are none are left to be named, all at
    once, when every image is read."""
    names = [name for by_class in files.values() for of_class in by_class.values() for name in of_class]
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, LOOKED_AT).astype(int))]
    found = [seen for _, content in tree.read(chosen) if (seen := _look(content)) is not None]
    if not found:
        raise ConfigError(f"{chosen[0]} cannot be read as an image, nor can any other of {len(chosen)} that were tried")
    return found


def common_side(sizes: set[tuple[int, int]], root: str, largest: int) -> int | None:
    """The side in pixels that all images are to have; None where they are as the experiment needs them."""
    shortest = int(np.median([min(size) for size in sizes]))
    if shortest < SMALLEST:
        raise ConfigError(
            f"{root}: images of {shortest} pixels a side, expected at least {SMALLEST}: AutoAttack needs them, "
            f"--image-size {SMALLEST} makes them larger"
        )
    one_square = len(sizes) == 1 and all(width == height for width, height in sizes)
    if one_square and shortest <= largest and square_attack_fits(shortest, shortest):
        return None
    return max(side for side in SIDES if side <= min(shortest, largest))


def common_channels(modes: set[str]) -> Channels | None:
    """3 where some are in colour, or may be by their palette: others are grey by chance. None where all are grey."""
    if modes <= {"1", "L"}:
        return 1 if "1" in modes else None
    return 3


def _look(content: bytes) -> tuple[tuple[int, int], str] | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size, image.mode.removesuffix("A")
    except Exception:  # Pillow's decoders raise errors of every kind
        return None
