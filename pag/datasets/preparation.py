"""From a loader's raw images to a data set: checks, limits, splits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import import_module

import numpy as np

from pag.datasets.loaders import LOADERS
from pag.datasets.source import Source
from pag.datasets.split import stratified
from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import ConfigError, nearest
from pag.foundation.printable import is_control, printable
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset, Split

ALLOWED_OVERLAP = 0.01  # of a part's images: official data sets have a few copies
DARK = 0.25  # of white: images that nowhere reach it have another range than their loader says


def prepare(name: str, config: DataConfig, seed: int, say: Callable[[str], None] = print) -> ImageDataset:
    """Read the raw images, cut a test part where there is none, limit, hold out the validation part.

    `train_limit` counts the images before a validation part is cut from them. The seed decides the splits and
    the draw within the limits. What the user should know of images that can be used goes to `say`, line by line. Raises
    ConfigError, one line, for a configuration or a source that cannot be used.
    """
    source = read(config, seed)
    _check_parts(source)
    _check_range(source, config)
    train, test = _test_part(source, config, seed)
    train = train.select(balanced(train.labels, config.train_limit, seed, "train"))
    test = test.select(balanced(test.labels, config.test_limit, seed, "test"))
    _check_classes(test, "test", source.class_names, config.test_limit)
    validation, kept = _validation_part(train, source, config, seed)
    pairs = [("test", test, "training", train), ("validation", validation, "training", kept)]
    if source.validation is not None:  # else its images are among those of `train`
        pairs.append(("test", test, "validation", validation))
    for line in (*source.notes, *_check_overlap((kept, validation, test), pairs, config)):
        say(f"{name}: {printable(line)}")
    kept, validation, test = (replace(part, levels=source.levels) for part in (kept, validation, test))
    return ImageDataset.create(name, source.class_names, train=kept, validation=validation, test=test)


def read(config: DataConfig, seed: int) -> Source:
    """The source that `config` names, checked as far as all loaders have in common."""
    if config.loader not in LOADERS:
        raise ConfigError(f"data.loader: unknown loader '{config.loader}'{nearest(config.loader, list(LOADERS))}")
    source: Source = import_module(LOADERS[config.loader]).read(config, seed)
    if len(source.class_names) < 2:
        raise ConfigError(f"loader '{config.loader}' found {len(source.class_names)} class, expected at least 2")
    for split in source.parts().values():
        size = split.images.shape[-1]
        if config.image_size not in (None, size):
            raise ConfigError(
                f"data.image_size = {config.image_size}: loader '{config.loader}' does not resize, "
                f"its images have {size} pixels a side; set null"
            )
    return source


def _test_part(source: Source, config: DataConfig, seed: int) -> tuple[Split, Split]:
    if source.test is not None:
        if config.test_fraction is not None:
            raise ConfigError(
                f"data.test_fraction = {config.test_fraction}: loader '{config.loader}' has an official test part, "
                "set null"
            )
        return source.train, source.test
    if config.test_fraction is None:
        raise ConfigError(f"data.test_fraction: loader '{config.loader}' has no official test part, set a fraction")
    kept, held_out = stratified(source.train.labels, config.test_fraction, seed, "test", source.class_names)
    return source.train.select(kept), source.train.select(held_out)


def _validation_part(train: Split, source: Source, config: DataConfig, seed: int) -> tuple[Split, Split]:
    """(validation, what is left for training): the source's own, or cut from the training images."""
    if source.validation is not None:
        _check_classes(source.validation, "validation", source.class_names, None)
        return source.validation, train
    kept, held_out = stratified(train.labels, config.validation_fraction, seed, "validation", source.class_names)
    return train.select(held_out), train.select(kept)


def _check_classes(split: Split, part: str, class_names: Sequence[str], limit: int | None) -> None:
    """Pictures and class-balanced parts need an image of every class."""
    counts = np.bincount(split.labels, minlength=len(class_names))
    if counts.min() == 0:
        name = class_names[int(counts.argmin())]
        if limit is not None and limit < len(class_names):
            raise ConfigError(
                f"data.{part}_limit = {limit} leaves '{name}' no {part} image, set at least {len(class_names)}"
            )
        raise ConfigError(f"class '{name}' has no {part} image, expected at least 1")


def _check_parts(source: Source) -> None:
    """What every loader must keep to: ConfigError names the rule that one of them breaks."""
    _check_class_names(source.class_names)
    for split in source.parts().values():
        if split.images.ndim != 4:
            raise ConfigError(
                f"the loader gives {split.images.dtype} {split.images.shape}, expected uint8 (N, C, H, W)"
            )
        channels, height, width = split.images.shape[1:]
        if channels not in (1, 3) or height != width:
            raise ConfigError(
                f"the loader gives {channels} channels of {height}×{width} pixels, expected images (N, C, H, W) with "
                "1 or 3 channels and as many rows as columns"
            )
        if split.images.shape[1:] != source.train.images.shape[1:]:
            raise ConfigError(
                f"the loader gives images of {source.train.images.shape[1:]} and {split.images.shape[1:]}, expected "
                "one shape (C, H, W) for all parts"
            )
        outside = split.labels[(split.labels < 0) | (split.labels >= len(source.class_names))]
        if len(outside):
            raise ConfigError(
                f"the loader gives the label {outside[0]}, expected 0 to {len(source.class_names) - 1} for its "
                f"{len(source.class_names)} class names"
            )
    counts = np.bincount(source.train.labels, minlength=len(source.class_names))
    if counts.min() == 0:
        raise ConfigError(
            f"class '{source.class_names[int(counts.argmin())]}' has no training image, expected at least 2"
        )


def _check_class_names(names: Sequence[str]) -> None:
    """They are drawn into figures and written into tables and file formats, long after this."""
    for name in names:
        if not isinstance(name, str) or any(map(is_control, name)):
            raise ConfigError(
                f"the class name {printable(repr(name))} has characters that cannot be written, or bytes that are no "
                "UTF-8: rename the class"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"the loader names two classes '{max(names, key=names.count)}', expected a name for each")


def _check_range(source: Source, config: DataConfig) -> None:
    """Refuse a loader's `levels` that do not fit its images: they would be far too dark, or brighter than white."""
    largest = max(int(split.images.max(initial=0)) for split in source.parts().values())
    fact = f"the largest raw value of the images is {largest}, but white is {source.levels}"
    if not max(largest, 1) <= source.levels <= 255:
        raise ConfigError(f"{fact}: the loader needs levels={max(largest, 1)} or above, up to 255")
    if largest < DARK * source.levels and not config.allow_dark:
        raise ConfigError(
            f"{fact}: scale the images to 0..{source.levels}, give levels={max(largest, 1)} in your own loader, or "
            "set data.allow_dark to true if they are as dark as that (stages.new: --allow-dark)"
        )


def _check_overlap(
    splits: Sequence[Split], pairs: Sequence[tuple[str, Split, str, Split]], config: DataConfig
) -> list[str]:
    """A line for images in `splits` that have two labels, and for each of `pairs` whose first has images of the second.

    Images are compared by their pixels. ConfigError where more than ALLOWED_OVERLAP are, unless the config allows it.
    """
    labels: dict[bytes, set[int]] = {}
    for split in splits:
        for image, label in zip(_hashes(split), split.labels.tolist(), strict=True):
            labels.setdefault(image, set()).add(label)
    ambiguous = sum(len(found) > 1 for found in labels.values())
    found = [(ambiguous, len(labels), "different", "has two labels" if ambiguous == 1 else "have two labels")]
    for part, split, other, others in pairs:
        known = set(_hashes(others))
        shared = sum(image in known for image in _hashes(split))
        found.append((shared, len(split), part, f"is a {other} image" if shared == 1 else f"are {other} images"))
    lines = [f"{n} of {total} {part} images ({100 * n / total:.2g} %) {fault}" for n, total, part, fault in found if n]
    if any(n > ALLOWED_OVERLAP * total for n, total, _, _ in found) and not config.allow_overlap:
        raise ConfigError(
            f"{'; '.join(lines)}: remove the copies, or set data.allow_overlap to true to keep them "
            "(stages.new: --allow-overlap)"
        )
    return lines


def _hashes(split: Split) -> list[bytes]:
    return [sha256(image.tobytes()).digest() for image in split.images]
