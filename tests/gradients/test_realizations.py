"""OI, CM and NN against plain loops."""

import numpy as np
import pytest
import torch

from pag.gradients.realizations import class_mean, nearest_neighbour, one_image
from pag.images.dataset import Split

LEVELS, K = 255, 3


def make_split(per_class: int = 12, shape: tuple[int, ...] = (2, 3, 3), levels: int = LEVELS) -> Split:
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(K), per_class))
    return Split(rng.integers(0, levels + 1, (len(labels), *shape), dtype=np.uint8), labels.astype(np.int64), levels)


def all_gradients(gradients, split: Split, batch: int = 64) -> torch.Tensor:
    indices = torch.arange(len(split))
    images = split.unit()
    return torch.cat([gradients(images[part], part) for part in indices.split(batch)])


def brute_force_target(split: Split, image: np.ndarray, exclude: int | None, pool: np.ndarray) -> int:
    """The nearest image in whole numbers, the first of equal ones."""
    best, best_distance = -1, None
    for candidate in pool:
        difference = image.astype(int) - split.images[candidate].astype(int)
        distance = int((difference * difference).sum())
        if candidate != exclude and (best_distance is None or distance < best_distance):
            best, best_distance = int(candidate), distance
    return best


def test_one_image_points_to_one_training_image_per_class() -> None:
    split = make_split()
    gradients = all_gradients(one_image(split, K, seed=4), split)
    images = split.unit()
    targets = gradients + images[:, None]
    for label in range(K):
        torch.testing.assert_close(targets[:, label], targets[:1, label].expand_as(images))
        distances = (images[split.labels == label] - targets[0, label]).abs().amax(dim=(1, 2, 3))
        assert distances.min() < 1e-6
    other = one_image(split, K, seed=5)
    assert not torch.equal(other.targets, one_image(split, K, seed=4).targets)
    torch.testing.assert_close(other.targets, one_image(split, K, seed=5).targets, rtol=0, atol=0)


def test_class_mean_points_to_the_mean() -> None:
    split = make_split()
    gradients = all_gradients(class_mean(split, K), split)
    for index in (0, 17):
        for label in range(K):
            members = [i for i in range(len(split)) if split.labels[i] == label]
            mean = sum(split.images[i].astype(float) for i in members) / len(members) / LEVELS
            np.testing.assert_allclose(gradients[index, label], mean - split.images[index] / LEVELS, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 16, 255], ids=lambda levels: f"levels-{levels}")  # few levels: many ties
def test_nearest_neighbour_against_brute_force(levels: int) -> None:
    split = make_split(shape=(1, 2, 2), levels=levels)
    gradients = all_gradients(nearest_neighbour(split, K, seed=0), split)
    images = split.unit()
    for index in range(len(split)):
        for label in range(K):
            pool = np.flatnonzero(split.labels == label)
            nearest = brute_force_target(split, split.images[index], index, pool)
            assert torch.equal(gradients[index, label], images[nearest] - images[index]), (index, label)


def test_nearest_neighbour_is_exact_where_float32_is_not() -> None:
    """Two candidates whose squared distances, near 10⁸, differ by 1; float32 takes them for equal."""
    images = np.zeros((5, 3, 32, 32), np.uint8)
    images[1:3] = 180
    images[1:3, 0, 0, 0] = 1, 0
    further, nearer = (int((image.astype(np.int64) ** 2).sum()) for image in images[1:3])
    assert further == nearer + 1 and np.float32(further) == np.float32(nearer)
    split = Split(images, np.array([0, 1, 1, 0, 0]))
    gradients = nearest_neighbour(split, 2, seed=0)(split.unit(slice(1)), torch.tensor([0]))
    assert torch.equal(gradients[0, 1], split.unit(slice(2, 3))[0])


def test_an_image_is_not_its_own_neighbour_but_its_double_is() -> None:
    split = make_split()
    nearest = nearest_neighbour(split, K, seed=0)
    own = all_gradients(nearest, split)[torch.arange(len(split)), torch.from_numpy(split.labels)]
    assert (own.flatten(1).abs().amax(dim=1) > 0).all()
    held_out = nearest(split.unit(), None)[torch.arange(len(split)), torch.from_numpy(split.labels)]
    assert not held_out.any()
    doubled = Split(np.concatenate([split.images] * 2), np.concatenate([split.labels] * 2))
    gradients = all_gradients(nearest_neighbour(doubled, K, seed=0), doubled)
    assert not gradients[torch.arange(len(doubled)), torch.from_numpy(doubled.labels)].any()


def test_limited_candidates_are_drawn_by_seed() -> None:
    split = make_split(per_class=40)
    pools = nearest_neighbour(split, K, seed=0, candidates=7).pools
    assert all(len(set(pool)) == 7 and (split.labels[pool] == label).all() for label, pool in enumerate(pools))
    again = nearest_neighbour(split, K, seed=0, candidates=7)
    other = nearest_neighbour(split, K, seed=1, candidates=7)
    assert all((a == b).all() for a, b in zip(again.pools, pools, strict=True))
    assert any((a != b).any() for a, b in zip(other.pools, pools, strict=True))
    gradients = all_gradients(again, split)
    for index in (0, 50):
        nearest = brute_force_target(split, split.images[index], index, pools[1])
        np.testing.assert_allclose(
            gradients[index, 1] * LEVELS, split.images[nearest].astype(float) - split.images[index], atol=1e-3
        )


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.usefixtures("two_threads")
def test_the_batch_does_not_matter(batch: int) -> None:
    split = make_split(shape=(3, 16, 16))
    for gradients in (
        one_image(split, K, seed=0),
        class_mean(split, K),
        nearest_neighbour(split, K, seed=0),
    ):
        assert torch.equal(all_gradients(gradients, split, batch=batch), all_gradients(gradients, split, batch=36))


def test_points_serve_as_images() -> None:
    points = np.array([[0, 0], [1, 0], [5, 5], [5, 6.5]], np.float32)
    split = Split(points, np.array([0, 0, 1, 1]), levels=1)
    gradients = nearest_neighbour(split, 2, seed=0)(torch.from_numpy(points), torch.arange(4))
    expected = [[[1, 0], [5, 5]], [[-1, 0], [4, 5]], [[-4, -5], [0, 1.5]], [[-4, -6.5], [0, -1.5]]]
    torch.testing.assert_close(gradients, torch.tensor(expected))


@pytest.mark.parametrize(
    ("make", "counts", "message"),
    [
        (lambda s: one_image(s, K, 0), (2, 0, 2), "class 1 has 0 training images, expected at least 1"),
        (lambda s: class_mean(s, K), (2, 2, 0), "class 2 has 0 training images, expected at least 1"),
        (lambda s: nearest_neighbour(s, K, 0), (2, 1, 2), "class 1 has 1 training images, expected at least 2"),
        (lambda s: nearest_neighbour(s, K, 0, candidates=1), (2, 2, 2), "nn_candidates = 1: expected at least"),
    ],
    ids=["oi", "cm", "nn", "candidates"],
)
def test_too_few_images_of_a_class(make, counts, message) -> None:
    labels = np.repeat(np.arange(K), counts).astype(np.int64)
    with pytest.raises(ValueError, match=message) as error:
        make(Split(np.zeros((len(labels), 1, 2, 2), np.uint8), labels))
    assert "\n" not in str(error.value)
