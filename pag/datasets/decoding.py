"""Image files to uint8 arrays: all of one size and mode, or an error that names the file."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from pag.datasets.source import SourceError
from pag.datasets.tree import FileTree
from pag.foundation.config.conf import DataConfig
from pag.images.balance import balanced
from pag.images.dataset import Split

CHANNELS = {"L": 1, "RGB": 3}


def decode_splits(
    tree: FileTree,
    train: dict[str, list[str]],
    test: dict[str, list[str]],
    config: DataConfig,
    mode: str | None = None,
) -> tuple[Split, Split | None]:
    """The train and test parts from their files by class; labels are positions among the classes of train.

    `train_limit` and `test_limit` choose files before anything is decoded, and the archive is read once for both parts.
    Where `test` is empty, it will be cut from the training images, so these are not limited here.
    """
    kept_train, train_labels = _choose(train, list(train), config.train_limit if test else None)
    kept_test, test_labels = _choose(test, list(train), config.test_limit)
    images = decode(tree, kept_train + kept_test, config.image_size, mode)
    train_split = Split(images[: len(kept_train)], train_labels)
    return train_split, Split(images[len(kept_train) :], test_labels) if test else None


def _choose(files: dict[str, list[str]], classes: Sequence[str], limit: int | None) -> tuple[list[str], np.ndarray]:
    """The files that `limit` keeps and their labels."""
    index = {name: label for label, name in enumerate(classes)}
    names = [name for of_class in files.values() for name in of_class]
    labels = np.array([index[name] for name, of_class in files.items() for _ in of_class], dtype=np.int64)
    chosen = balanced(labels, limit)
    return [names[i] for i in chosen], labels[chosen]


def decode(tree: FileTree, names: Sequence[str], image_size: int | None, mode: str | None = None) -> np.ndarray:
    """The images `names` of `tree`, in this order, as uint8 (N, C, H, W) with C = 1 (grey) or 3 (RGB).

    With `image_size`, an image of another size is resized to this square by bicubic interpolation with antialiasing;
    without, all must be squares of one size. With `mode`, "L" or "RGB", images are converted to it; without, all must
    have one of the two already. Raises SourceError with the file and what was expected.
    """
    position = {name: i for i, name in enumerate(names)}
    images: np.ndarray | None = None
    first, expected = "", ""
    for name, content in tree.read(names):
        image = _open(content, name)
        if mode is not None:
            image = image.convert(mode)
        if image.mode not in CHANNELS:
            raise SourceError(f"{name} has mode {image.mode}, expected RGB or L (8-bit grey): convert the images first")
        if image_size is not None and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
        if images is None:
            if image.width != image.height:
                raise SourceError(f"{name} is {_describe(image)}, expected a square: set data.image_size")
            first, expected = name, _describe(image)
            images = np.empty((len(names), CHANNELS[image.mode], image.height, image.width), dtype=np.uint8)
        if _describe(image) != expected:
            advice = "set data.image_size" if CHANNELS[image.mode] == images.shape[1] else "convert the images"
            raise SourceError(
                f"{name} is {_describe(image)}, but {first} is {expected}: all images need one size and mode, {advice}"
            )
        pixels = np.asarray(image)
        images[position[name]] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    assert images is not None, "no names given"
    return images


def _open(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError:
        raise SourceError(f"{name} cannot be read as an image: unknown format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        raise SourceError(f"{name} cannot be read as an image: {' '.join(str(error).split())}") from None
    return image


def _describe(image: Image.Image) -> str:
    return f"{image.width}×{image.height} {image.mode}"
