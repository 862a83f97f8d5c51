"""Batches against a store whose directions name the image, class and pixel they belong to."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pag.foundation.config.training import ClassifierConfig
from pag.images.dataset import Split
from pag.training.batch import Batch
from pag.training.batches import Batches

COUNT, CLASSES, SIDE = 50, 5, 6


class KnownStore:
    """The direction of image n towards class y is the image itself plus 10·y, so it must move as the image does."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.shape = (COUNT, CLASSES, 1, SIDE, SIDE)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return (self.images[rows, None] + 10 * target_classes[:, :, None, None, None]).astype(np.int8)


class BrokenStore(KnownStore):
    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        raise OSError("shard 3 is gone")


def known_split() -> Split:
    """Pixel values 1..36 in every image, rolled by its number: never 0, so that padding can be told from image."""
    pixels = np.arange(1, SIDE * SIDE + 1, dtype=np.uint8)
    images = np.stack([np.roll(pixels, n).reshape(1, SIDE, SIDE) for n in range(COUNT)])
    return Split(images, np.arange(COUNT, dtype=np.int64) % CLASSES, levels=1)


def batches(k: int | str = 1, store: type[KnownStore] | None = KnownStore, **changes: object) -> Batches:
    split = known_split()
    config = ClassifierConfig(**{"batch_size": 8, "crop_padding": 2, "flip": True, **changes})
    return Batches(split, config, 7, torch.device("cpu"), store(split.images) if store else None, k)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def same(a: Batch, b: Batch) -> bool:
    fields = ("images", "labels", "target_classes", "class_gradients")
    return a.seed == b.seed and all(torch.equal(getattr(a, name), getattr(b, name)) for name in fields)


def test_an_epoch_is_independent_of_the_ones_before() -> None:
    after_others = batches()
    for epoch in (0, 1):
        list(after_others.epoch(epoch))
    fresh = list(batches().epoch(2))
    assert all(same(a, b) for a, b in zip(after_others.epoch(2), fresh, strict=True))
    assert not same(fresh[0], next(iter(batches().epoch(1))))


def test_an_epoch_visits_distinct_images_and_drops_the_incomplete_batch() -> None:
    plain = batches(store=None, crop_padding=0, flip=False)
    epoch = list(plain.epoch(0))
    assert len(epoch) == len(plain) == COUNT // 8
    first_pixels = torch.cat([batch.images.flatten(1) for batch in epoch])
    assert len({tuple(image) for image in first_pixels.tolist()}) == min(48, SIDE * SIDE)  # rolled by n modulo 36
    assert all(len(batch.labels) == 8 and batch.target_classes is None for batch in epoch)


@pytest.mark.parametrize("k", [1, 2, 4, "all"])
def test_target_classes_are_distinct_and_uniform(k: int | str) -> None:
    source, counts = batches(k), torch.zeros(CLASSES)
    per_image = CLASSES if k == "all" else int(k)
    for epoch in range(40):
        for batch in source.epoch(epoch):
            assert batch.target_classes.shape == (8, per_image)
            assert all(len(set(classes)) == per_image for classes in batch.target_classes.tolist())
            counts += torch.bincount(batch.target_classes.flatten(), minlength=CLASSES)
    share = counts / counts.sum()
    assert torch.allclose(share, torch.full((CLASSES,), 1 / CLASSES), atol=0.03)


@pytest.mark.parametrize("k", [1, 3])
def test_gradients_are_cropped_and_flipped_with_their_image(k: int) -> None:
    moved = 0
    for batch in batches(k).epoch(0):
        inside = batch.images[:, None] > 0
        expected = torch.where(inside, batch.images[:, None] + 10 * batch.target_classes[:, :, None, None, None], 0)
        assert torch.equal(batch.class_gradients, expected.to(torch.int8))
        moved += int((~inside).flatten(1).any(1).sum())
    assert moved > 30  # of 48: crops by up to 2 pixels leave few images in place


def test_each_sample_has_its_own_crop() -> None:
    (batch, *_) = batches(store=None, flip=False).epoch(0)
    assert len({tuple((image[0] == 0).all(0).tolist()) for image in batch.images}) > 1


def test_an_error_while_reading_reaches_the_training_loop() -> None:
    with pytest.raises(OSError, match="shard 3 is gone"):
        list(batches(store=BrokenStore).epoch(0))


@pytest.mark.parametrize("consumed", [0, 1, 3])
def test_a_consumer_that_stops_early_leaves_no_thread(consumed: int) -> None:
    epoch: Iterator[Batch] = batches().epoch(0)
    for _ in range(consumed):
        next(epoch)
    before = threading.active_count()
    epoch.close()
    assert threading.active_count() == before - (consumed > 0)  # the reader starts with the first batch


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(batch.labels) for batch in batches(batch_size=64).epoch(0)] == [COUNT]
