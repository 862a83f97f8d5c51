import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pag.datasets import LOADERS
from pag.datasets.preparation import prepare
from pag.datasets.source import Source
from pag.foundation.config.conf import DataConfig
from pag.foundation.config.section import ConfigError
from pag.images.dataset import Split

DIGITS = DataConfig(loader="digits", test_fraction=0.2)


@pytest.fixture
def source(monkeypatch):
    """Make the loader `fake` give whatever the test asks for."""

    def install(counts: list[int], test: int | None = None) -> None:
        def part(labels: np.ndarray) -> Split:
            return Split(np.zeros((len(labels), 1, 4, 4), dtype=np.uint8), labels.astype(np.int64))

        names = tuple(f"class {i}" for i in range(len(counts)))
        train, held = part(np.repeat(np.arange(len(counts)), counts)), part(np.arange(test or 1) % len(counts))
        module = type(sys)("fake_loader")
        module.read = lambda config: Source(train, held if test else None, names)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fake_loader", module)
        monkeypatch.setitem(LOADERS, "fake", "fake_loader")

    return install


def test_digits_are_the_whole_source():
    dataset = prepare("digits", DIGITS, seed=0)
    raw = load_digits()
    assert dataset.levels == 16
    assert dataset.image_shape == (1, 8, 8)
    assert [len(split) for _, split in dataset.splits()] == [1293, 144, 360]
    images = np.concatenate([split.images for _, split in dataset.splits()])
    assert sorted(image.tobytes() for image in images) == sorted(
        image.tobytes() for image in raw.images.astype(np.uint8)
    )
    assert images.max() == 16
    row = dataset.test.images[0, 0]
    assert raw.target[(raw.images == row).all((1, 2))].tolist() == [dataset.test.labels[0]]
    for _, split in dataset.splits():
        assert np.bincount(split.labels).min() >= 0.09 * len(split)


def test_same_seed_same_hash():
    hashes = [prepare("digits", DIGITS, seed).content_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_limits_are_class_balanced():
    dataset = prepare("digits", DIGITS.model_copy(update={"train_limit": 200, "test_limit": 30}), seed=0)
    everything = np.concatenate([dataset.train.labels, dataset.validation.labels])
    assert np.bincount(everything).tolist() == [20] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [2] * 10
    assert np.bincount(dataset.test.labels).tolist() == [3] * 10


def test_parts_share_no_image():
    dataset = prepare("digits", DIGITS, seed=0)
    seen = [{image.tobytes() for image in split.images} for _, split in dataset.splits()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


BAD = {
    "unknown loader": ([5, 5], None, {"loader": "difits"}, "unknown loader 'difits', did you mean 'digits'?"),
    "one class": ([5], 2, {}, "found 1 class, expected at least 2"),
    "empty class": ([5, 0, 5], 2, {}, "class 'class 1' has no training image"),
    "no test part": ([5, 5], None, {}, "has no official test part, set a fraction"),
    "two test parts": ([5, 5], 2, {"test_fraction": 0.2}, "has an official test part, set null"),
    "resizing": ([5, 5], 2, {"image_size": 9}, "does not resize, its images have 4 pixels a side"),
    "class without test images": ([5, 5, 5], 2, {}, "class 'class 2' has no test image, expected at least 1"),
    "test limit": (
        [5, 5, 5],
        6,
        {"test_limit": 2},
        "data.test_limit = 2 leaves 'class 2' no test image, set at least 3",
    ),
    "test limit that is not at fault": (
        [5, 5, 5],
        2,
        {"test_limit": 3},
        "class 'class 2' has no test image, expected at least 1",
    ),
    "limit": (
        [5, 5],
        2,
        {"train_limit": 1},
        "cannot be held out of 1 images with each of the 2 classes on both sides ('class 1' has 0)",
    ),
}


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((12, 12, 1), [0, 1], "12 channels of 12×1 pixels, expected images (N, C, H, W) with 1 or 3 channels"),
        ((1, 8, 12), [0, 1], "1 channels of 8×12 pixels"),
        ((1, 8, 8), [0, 2], "gives the label 2, expected 0 to 1 for its 2 class names"),
        ((1, 8, 8), [-1, 0], "gives the label -1, expected 0 to 1"),
    ],
)
def test_a_loader_that_breaks_the_rules_is_told_which(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], labels: list[int], message: str
) -> None:
    images = np.zeros((len(labels), *shape), dtype=np.uint8)
    module = type(sys)("fake_loader")
    module.read = lambda config: Source(Split(images, np.array(labels)), None, ("a", "b"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_loader", module)
    monkeypatch.setitem(LOADERS, "fake", "fake_loader")
    with pytest.raises(ConfigError) as error:
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, source):
    counts, test, changes, message = BAD[case]
    source(counts, test)
    config = DataConfig(**{"loader": "fake", "validation_fraction": 0.2} | changes)
    with pytest.raises(ConfigError) as caught:
        prepare("fake", config, seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
