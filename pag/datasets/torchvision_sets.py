"""CIFAR-10, CIFAR-100 and STL-10 through torchvision: an existing root is used offline, a missing one downloaded."""

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from pag.datasets.source import Source, SourceError, raw_root
from pag.foundation.config.data import DataConfig
from pag.images.dataset import Split

SETS: dict[str, type[CIFAR10] | type[STL10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100, "stl10": STL10}


def read(config: DataConfig, seed: int) -> Source:
    """The official training and test parts (of STL-10 the labelled ones), RGB, classes in the official order.

    Raises SourceError that says what to put where when files are missing or differ from torchvision's checksums.
    """
    train, class_names = _part(config, "train")
    test, _ = _part(config, "test")
    return Source(train, test, class_names)


def _part(config: DataConfig, part: str) -> tuple[Split, tuple[str, ...]]:
    kind, root = SETS[config.loader], raw_root(config)
    try:
        if issubclass(kind, STL10):
            data = kind(root, split=part, download=config.download)
            images, labels = data.data, data.labels
        else:
            data = kind(root, train=part == "train", download=config.download)
            images, labels = data.data.transpose(0, 3, 1, 2), data.targets
        class_names = tuple(data.classes)
    except (OSError, RuntimeError, AttributeError) as error:  # the last: STL-10 without its class_names.txt
        raise SourceError(
            f"{root / kind.base_folder} is not the complete {kind.__name__} ({' '.join(str(error).split())}): "
            f"unpack {kind.url} in {root}, or set data.download to true"
        ) from None
    return Split(np.ascontiguousarray(images), np.array(labels, dtype=np.int64)), class_names
