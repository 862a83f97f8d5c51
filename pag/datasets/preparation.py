"""From a loader's raw images to a data set: checks, limits, splits."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

import numpy as np

from pag.datasets import LOADERS
from pag.datasets.source import Source
from pag.datasets.split import stratified
from pag.foundation.config.conf import DataConfig
from pag.foundation.config.section import ConfigError, nearest
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset, Split


def prepare(name: str, config: DataConfig, seed: int) -> ImageDataset:
    """Read the raw images, cut a test part where there is none, limit, hold out the validation part.

    `train_limit` counts the images before the validation part is taken from them. The seed decides the splits only.
    Raises ConfigError, one line, for a configuration or a source that cannot be used.
    """
    source = read(config)
    _check_parts(source)
    train, test = (replace(part, levels=source.levels) for part in _test_part(source, config, seed))
    train = train.select(balanced(train.labels, config.train_limit))
    test = test.select(balanced(test.labels, config.test_limit))
    _check_test_classes(test, source.class_names, config.test_limit)
    kept, held_out = stratified(train.labels, config.validation_fraction, seed, "validation", source.class_names)
    validation, train = train.select(held_out), train.select(kept)
    return ImageDataset.create(name, source.class_names, train=train, validation=validation, test=test)


def read(config: DataConfig) -> Source:
    """The source that `config` names, checked as far as all loaders have in common."""
    if config.loader not in LOADERS:
        raise ConfigError(f"data.loader: unknown loader '{config.loader}'{nearest(config.loader, list(LOADERS))}")
    source: Source = import_module(LOADERS[config.loader]).read(config)
    if len(source.class_names) < 2:
        raise ConfigError(f"loader '{config.loader}' found {len(source.class_names)} class, expected at least 2")
    for split in (source.train, *([source.test] if source.test else [])):
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


def _check_test_classes(test: Split, class_names: Sequence[str], limit: int | None) -> None:
    """Pictures and class-balanced parts need an image of every class."""
    counts = np.bincount(test.labels, minlength=len(class_names))
    if counts.min() == 0:
        name = class_names[int(counts.argmin())]
        if limit is not None and limit < len(class_names):
            raise ConfigError(
                f"data.test_limit = {limit} leaves '{name}' no test image, set at least {len(class_names)}"
            )
        raise ConfigError(f"class '{name}' has no test image, expected at least 1")


def _check_parts(source: Source) -> None:
    """What every loader must keep to: ConfigError names the rule that one of them breaks."""
    for split in (source.train, *([source.test] if source.test else [])):
        channels, height, width = split.images.shape[1:]
        if channels not in (1, 3) or height != width:
            raise ConfigError(
                f"the loader gives {channels} channels of {height}×{width} pixels, expected images (N, C, H, W) with "
                "1 or 3 channels and as many rows as columns"
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
    if source.test is not None:
        shapes = source.train.images.shape[1:], source.test.images.shape[1:]
        assert shapes[0] == shapes[1], shapes
