import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pag.datasets.loaders import LOADERS
from pag.datasets.preparation import prepare
from pag.datasets.source import Source
from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import ConfigError
from pag.images.dataset import Split

DIGITS = DataConfig(loader="digits", test_fraction=0.2)


@pytest.fixture
def source(monkeypatch):
    """Make the loader `fake` give whatever the test asks for."""

    rng = np.random.default_rng(0)

    def install(counts: list[int], test: int | None = None) -> None:
        def part(labels: np.ndarray) -> Split:
            return Split(rng.integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8), labels.astype(np.int64))

        names = tuple(f"class {i}" for i in range(len(counts)))
        train, held = part(np.repeat(np.arange(len(counts)), counts)), part(np.arange(test or 1) % len(counts))
        module = type(sys)("fake_loader")
        module.read = lambda config, seed: Source(train, held if test else None, names)  # type: ignore[attr-defined]
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
        "cannot be held out of 1 images with each of the 2 classes on both sides ('class 0' has 0)",
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
    give(monkeypatch, lambda: Source(Split(images, np.array(labels)), None, ("a", "b")))
    with pytest.raises(ConfigError) as error:
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)
    assert message in str(error.value) and "\n" not in str(error.value)


def give(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Source]) -> None:
    """Make the loader `fake` read what `make` returns."""
    module = type(sys)("fake_loader")
    module.read = lambda config, seed: make()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_loader", module)
    monkeypatch.setitem(LOADERS, "fake", "fake_loader")


def random_images(count: int, seed: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (count, 1, 4, 4), dtype=np.uint8)


LABELS = np.arange(20) % 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_of_other_integers_are_converted(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20), LABELS.astype(dtype)), None, ("a", "b")))
    dataset = prepare("fake", DataConfig(loader="fake", test_fraction=0.5, validation_fraction=0.2), seed=0)
    assert {split.labels.dtype for _, split in dataset.splits()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (random_images(20), LABELS / 2, "labels are float64 (20,), expected whole numbers (N,)"),
        (random_images(20), LABELS[:, None], "labels are int64 (20, 1), expected whole numbers (N,)"),
        (random_images(20), LABELS[:19], "20 images have 19 labels, expected one for each"),
        (random_images(20) / 255, LABELS, "images are float64 (20, 1, 4, 4), expected uint8 (N, C, H, W)"),
        (random_images(20)[:, 0], LABELS, "images are uint8 (20, 4, 4), expected uint8 (N, C, H, W)"),
        (random_images(20).tolist(), LABELS, "images are a list, expected a NumPy array: convert them"),
        (np.zeros((20, 2), np.float32), LABELS, "the loader gives float32 (20, 2), expected uint8 (N, C, H, W)"),
    ],
)
def test_arrays_of_another_kind_are_one_line(
    monkeypatch: pytest.MonkeyPatch, images: Any, labels: np.ndarray, message: str
) -> None:
    give(monkeypatch, lambda: Source(Split(images, labels), None, ("a", "b")))
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)


def test_parts_of_two_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Split(random_images(20)[..., :3, :3], LABELS)
    give(monkeypatch, lambda: Source(Split(random_images(20), LABELS), small, ("a", "b")))
    with pytest.raises(ConfigError, match=r"images of \(1, 4, 4\) and \(1, 3, 3\), expected one shape"):
        prepare("fake", DataConfig(loader="fake"), seed=0)


@pytest.mark.parametrize(
    ("high", "levels", "message"),
    [
        (256, 16, "the largest raw value of the images is 255, but white is 16: the loader needs levels=255 or above"),
        (
            2,
            255,
            "the largest raw value of the images is 1, but white is 255: scale the images to 0..255, give ",
        ),
        (1, 0, "largest raw value of the images is 0, but white is 0: the loader needs levels=1 or above"),
        (256, 65535, "white is 65535: the loader needs levels=255 or above, up to 255"),
    ],
)
def test_levels_that_do_not_fit_the_images(
    monkeypatch: pytest.MonkeyPatch, high: int, levels: int, message: str
) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20, high=high), LABELS), None, ("a", "b"), levels))
    with pytest.raises(ConfigError) as error:
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_dark_images_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20, high=60), LABELS), None, ("a", "b")))
    config = DataConfig(loader="fake", test_fraction=0.5, validation_fraction=0.2)
    with pytest.raises(ConfigError, match=r"set data\.allow_dark to true"):
        prepare("fake", config, seed=0)
    prepare("fake", config.model_copy(update={"allow_dark": True}), seed=0)


@pytest.mark.parametrize("name", ["a\nb", "caf\udce9", "\u2028", "\x7f", 3])
def test_class_names_that_cannot_be_written_are_refused(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20), LABELS), None, ("a", name)))
    with pytest.raises(ConfigError, match="has characters that cannot be written") as error:
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)
    assert str(error.value).isprintable(), "its own message can be"


@pytest.mark.parametrize("name", ["a_b$^$", "x; touch y", "犬 🐕", "👩‍🔬", "--help", "ñ"])
def test_other_class_names_are_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20), LABELS), None, ("a", name)))
    config = DataConfig(loader="fake", test_fraction=0.5, validation_fraction=0.2)
    assert prepare("fake", config, seed=0).class_names == ("a", name)


def test_two_classes_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, lambda: Source(Split(random_images(20), LABELS), None, ("a", "a")))
    with pytest.raises(ConfigError, match="names two classes 'a'"):
        prepare("fake", DataConfig(loader="fake", test_fraction=0.5), seed=0)


def with_copies(in_test: int, in_validation: int, ambiguous: int, test_in_validation: int = 0) -> Source:
    """1,000 training, 200 validation and 100 test images, some of them copies."""
    train, validation, test = random_images(1000), random_images(200, 1), random_images(100, 2)
    test[:in_test] = train[:in_test]
    validation[50 : 50 + in_validation] = train[50 : 50 + in_validation]
    test[10 : 10 + test_in_validation] = validation[10 : 10 + test_in_validation]
    train[500 : 500 + 2 * ambiguous : 2] = train[501 : 501 + 2 * ambiguous : 2]  # labels alternate
    splits = [Split(images, np.arange(len(images)) % 2) for images in (train, validation, test)]
    return Source(splits[0], splits[2], ("a", "b"), validation=splits[1])


@pytest.mark.parametrize(
    ("copies", "lines", "allowed"),
    [
        ((0, 0, 0), [], True),
        ((1, 2, 0), ["1 of 100 test images (1 %) is a training image", "2 of 200 validation images (1 %) are"], True),
        ((2, 0, 0), ["2 of 100 test images (2 %) are training images"], False),
        ((0, 3, 0), ["3 of 200 validation images (1.5 %) are training images"], False),
        ((0, 0, 0, 2), ["2 of 100 test images (2 %) are validation images"], False),
        ((0, 0, 1), ["1 of 1299 different images (0.077 %) has two labels"], True),
        ((0, 0, 100), ["100 of 1200 different images (8.3 %) have two labels"], False),
    ],
)
def test_images_in_two_parts_or_of_two_labels(
    monkeypatch: pytest.MonkeyPatch, copies: tuple[int, ...], lines: list[str], allowed: bool
) -> None:
    give(monkeypatch, lambda: with_copies(*copies))
    said: list[str] = []
    config = DataConfig(loader="fake")
    if not allowed:
        with pytest.raises(ConfigError, match=r"remove the copies, or set data\.allow_overlap to true") as error:
            prepare("fake", config, seed=0)
        assert all(line in str(error.value) for line in lines) and "\n" not in str(error.value)
        config = config.model_copy(update={"allow_overlap": True})
    prepare("fake", config, seed=0, say=said.append)
    assert [line in text for line, text in zip(lines, said, strict=True)] == [True] * len(lines)


def test_copies_are_counted_before_the_validation_part_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_copies(20, 0, 0)
    give(monkeypatch, lambda: replace(source, validation=None))
    with pytest.raises(ConfigError, match=r"^20 of 100 test images \(20 %\) are training images: "):
        prepare("fake", DataConfig(loader="fake", validation_fraction=0.5), seed=0)


def test_validation_part_needs_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Split(random_images(20, seed), LABELS) for seed in range(3)]
    ones = parts[2].select(np.arange(0, 20, 2))
    give(monkeypatch, lambda: Source(parts[0], parts[1], ("a", "b"), validation=ones))
    with pytest.raises(ConfigError, match="class 'b' has no validation image"):
        prepare("fake", DataConfig(loader="fake"), seed=0)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, source):
    counts, test, changes, message = BAD[case]
    source(counts, test)
    config = DataConfig(**{"loader": "fake", "validation_fraction": 0.2} | changes)
    with pytest.raises(ConfigError) as caught:
        prepare("fake", config, seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
