"""Image files to uint8 arrays, as a viewer shows them: all of one size and mode, or an error that names the file."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pag.datasets.source import Source, SourceError
from pag.datasets.tree import FileTree
from pag.foundation.config.data import Channels, DataConfig
from pag.images.balance import balanced
from pag.images.dataset import Split

CHANNELS = {"L": 1, "RGB": 3}
MODES = {channels: mode for mode, channels in CHANNELS.items()}
SHOWN = 10  # of the files that cannot be used
UNREADABLE = "replace or remove what cannot be read"
TRANSPARENT = (
    "put what is transparent on a background and save it without, for instance by `magick IN -background white "
    "-flatten -alpha off OUT`"
)


def decode_splits(tree: FileTree, files: dict[str, dict[str, list[str]]], config: DataConfig, seed: int) -> Source:
    """The source of `files`: of the parts train, test and, where there is one, validation the files by class.

    Labels are positions among the classes of train, which are the class names. `train_limit` and `test_limit` draw
    files by `seed` before anything is decoded, and the archive is read once for all parts. Where `test` has no files,
    it will be cut from the training images, so these are not limited here.
    """
    classes = list(files["train"])
    limits = {"train": config.train_limit if files["test"] else None, "test": config.test_limit}
    kept, labels = {}, {}
    for part, by_class in files.items():
        kept[part], labels[part] = _choose(by_class, classes, limits.get(part), seed, part)
    chosen = [name for names in kept.values() for name in names]
    images, squashed = decode(tree, chosen, config.image_size, config.channels)
    ends = np.cumsum([len(names) for names in kept.values()])[:-1]
    parts = {
        part: Split(pixels, labels[part])
        for part, pixels in zip(kept, np.split(images, ends), strict=True)
        if len(pixels) > 0
    }
    size, number = config.image_size, len(images)
    notes = (f"{squashed} of {number} images are no squares: squashed to {size}×{size} pixels",) if squashed else ()
    return Source(parts["train"], parts.get("test"), tuple(classes), validation=parts.get("validation"), notes=notes)


def _choose(
    files: dict[str, list[str]], classes: Sequence[str], limit: int | None, seed: int, part: str
) -> tuple[list[str], np.ndarray]:
    """The files that `limit` keeps and their labels."""
    index = {name: label for label, name in enumerate(classes)}
    names = [name for of_class in files.values() for name in of_class]
    labels = np.array([index[name] for name, of_class in files.items() for _ in of_class], dtype=np.int64)
    chosen = balanced(labels, limit, seed, part)
    return [names[i] for i in chosen], labels[chosen]


def decode(
    tree: FileTree, names: Sequence[str], image_size: int | None, channels: Channels | None = None
) -> tuple[np.ndarray, int]:
    """The images `names` of `tree`, in this order, as uint8 (N, C, H, W) with C = 1 (grey) or 3 (RGB).

    They are as a viewer shows them, turned by their EXIF orientation. With `image_size`, an image of another size is
    resized to this square by bicubic interpolation with antialiasing, and the second value counts those that were no
    squares; without, all must be squares of one size. With `channels`, images of 8 bits are made grey or RGB; without,
    all must be one of the two already. Raises SourceError with the file and what was expected; of files that cannot be
    used as they are, with all of them.
    """
    position = {name: i for i, name in enumerate(names)}
    images: np.ndarray | None = None
    first, expected, squashed = "", "", 0
    unusable: list[str] = []
    advice: dict[str, None] = {}  # in the order in which it is found, each piece once
    for name, content in tree.read(names):
        try:
            image = _of_channels(_open(content, name), channels, name)
        except SourceError as error:
            unusable.append(str(error))
            advice |= dict.fromkeys(error.args[1:])
            continue
        if image_size is not None and image.size != (image_size, image_size):
            squashed += image.width != image.height
            image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
        if images is None:
            if image.width != image.height:
                raise SourceError(f"{name} is {_describe(image)}, expected a square: set data.image_size")
            first, expected = name, _describe(image)
            images = _room(len(names), image)
        if _describe(image) != expected:
            key = "image_size" if CHANNELS[image.mode] == images.shape[1] else "channels to 3 (colour) or 1 (grey)"
            raise SourceError(
                f"{name} is {_describe(image)}, but {first} is {expected}: all images need one size and mode, "
                f"set data.{key}"
            )
        pixels = np.asarray(image)
        images[position[name]] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if unusable:
        more = f"; and {len(unusable) - SHOWN:,} more" if len(unusable) > SHOWN else ""
        todo = f" ({'; '.join(advice)})" if advice else ""
        raise SourceError(f"{'; '.join(sorted(unusable)[:SHOWN])}{more}{todo}")
    assert images is not None, "no names given"
    return images, squashed


def _of_channels(image: Image.Image, channels: Channels | None, name: str) -> Image.Image:
    """`image` with so many; as it is where these are None. More than 8 bits would be cut off and not scaled."""
    if image.mode.startswith(("I", "F")):
        raise SourceError(
            f"{name} has mode {image.mode}, more than 8 bits: scale it, for instance by `magick IN -auto-level "
            "-depth 8 OUT`"
        )
    if channels is not None:
        return image.convert(MODES[channels])
    if image.mode not in CHANNELS:
        raise SourceError(
            f"{name} has mode {image.mode}, expected RGB or L (8-bit grey): set data.channels to 3 (colour) or 1 (grey)"
        )
    return image


def _room(number: int, image: Image.Image) -> np.ndarray:
    """Memory for `number` images like this one."""
    shape = (number, CHANNELS[image.mode], image.height, image.width)
    try:
        return np.empty(shape, dtype=np.uint8)
    except MemoryError:
        gigabytes = np.prod(shape, dtype=float) / 2**30
        raise SourceError(
            f"{number} images of {_describe(image)} take {gigabytes:.3g} GiB, more than there is: set data.image_size, "
            "data.train_limit or data.test_limit"
        ) from None


def _open(content: bytes, name: str) -> Image.Image:
    """The image as a viewer shows it; nothing is read that has more to show than one opaque picture."""
    try:
        image = Image.open(io.BytesIO(content))
        frames = getattr(image, "n_frames", 1)
        image.load()
        upright = ImageOps.exif_transpose(image)
        alpha = upright.getchannel("A").getextrema()[0] if "A" in upright.getbands() else 255
    except UnidentifiedImageError:
        raise SourceError(f"{name} cannot be read as an image: unknown format", UNREADABLE) from None
    except Exception as error:  # Pillow's decoders raise errors of every kind
        reason = " ".join(str(error).split())
        raise SourceError(f"{name} cannot be read as an image: {reason}", UNREADABLE) from None
    if frames > 1 and image.format != "MPO":  # a photo with a preview or a second eye, of which viewers show the first
        raise SourceError(f"{name} has {frames} frames: save the one that counts as an image of its own")
    if alpha != 255 or "transparency" in upright.info:
        raise SourceError(f"{name} is transparent or names a transparent colour", TRANSPARENT)
    return upright.convert(upright.mode.removesuffix("A")) if upright.mode in ("RGBA", "LA", "PA") else upright


def _describe(image: Image.Image) -> str:
    return f"{image.width}×{image.height} {image.mode}"
