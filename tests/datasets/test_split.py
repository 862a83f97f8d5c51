import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pag.datasets.split import stratified
from pag.foundation.config.section import ConfigError
from pag.images.balance import balanced

NAMES = [f"class {i}" for i in range(10)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_balanced_is_as_even_as_possible(labels, limit, seed):
    chosen = balanced(labels, limit, seed, "attacked")
    assert len(chosen) == min(limit, len(labels))
    assert list(chosen) == sorted(set(chosen.tolist()))
    available = np.bincount(labels, minlength=5)
    counts = np.bincount(np.array(labels)[chosen], minlength=5)
    for label in range(5):  # a class with fewer images than another has no more to give, or is one behind
        assert counts[label] == available[label] or counts[label] >= counts.max() - 1
    assert set(balanced(labels, limit // 2 or 1, seed, "attacked")) <= set(chosen)


def test_no_limit_keeps_all():
    assert balanced([1, 0, 1], None, 0, "attacked").tolist() == [0, 1, 2]


def test_every_image_is_drawn_as_often():
    labels = np.repeat([0, 1], [6, 12])
    times = np.zeros(18)
    for seed in range(600):
        times[balanced(labels, 6, seed, "attacked")] += 1
    # three of each class: of 6 images every one in half of the draws, of 12 every one in a quarter; 5 deviations apart
    assert np.abs(times[:6] - 300).max() < 62 and np.abs(times[6:] - 150).max() < 54
    assert not np.array_equal(balanced(labels, 6, 0, "attacked"), balanced(labels, 6, 0, "train"))


def test_sequences_are_not_drawn_from_their_beginning():
    tracks = np.tile(np.repeat(np.arange(15), 4), 2)  # two classes of 15 tracks of 4 frames each
    labels = np.repeat([0, 1], 60)
    seen = [
        [len(set(tracks[chosen[labels[chosen] == y]])) for y in (0, 1)] for chosen in map(_eight(labels), range(50))
    ]
    assert np.mean(seen) > 3


def _eight(labels):
    return lambda seed: balanced(labels, 8, seed, "attacked")


def test_stratified_keeps_proportions():
    labels = np.repeat(np.arange(10), 10 * np.arange(1, 11))
    kept, held = stratified(labels, 0.1, 0, "validation", NAMES)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    assert np.bincount(labels[held]).tolist() == list(range(1, 11))


def test_stratified_follows_seed_and_purpose():
    labels = np.arange(200) % 10
    held = [
        stratified(labels, 0.2, seed, purpose, NAMES)[1].tolist()
        for seed, purpose in [(0, "test"), (0, "test"), (1, "test"), (0, "validation")]
    ]
    assert held[0] == held[1]
    assert held[0] != held[2] and held[0] != held[3]


@pytest.mark.parametrize(
    ("counts", "fraction"),
    [([5] * 9 + [1], 0.5), ([5] * 10, 0.1), ([5] * 10, 0.9), ([100] * 9 + [2], 0.9)],
    ids=["single image", "fewer held out than classes", "fewer kept than classes", "class would vanish"],
)
def test_impossible_split_is_one_line(counts, fraction):
    with pytest.raises(ConfigError, match=rf"data.validation_fraction = {fraction} cannot be held out of") as caught:
        stratified(np.repeat(np.arange(10), counts), fraction, 0, "validation", NAMES)
    assert "\n" not in str(caught.value)
