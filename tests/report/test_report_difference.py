"""The interval of a difference: against published formulas, exact tests, a bootstrap and simulated experiments."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from pag.report.difference import Difference, Measurement, difference


def pair(both: int, ours: int, other: int, neither: int) -> tuple[Measurement, Measurement]:
    """Two classifiers on one set of images, of which so many only one of them got right."""
    columns = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, ours, other, neither], axis=0).astype(float)
    return tuple(measurement(column[None]) for column in columns.T)


def measurement(correct: np.ndarray, images: str | None = "test") -> Measurement:
    """correct: (seeds, N)"""
    accuracy = correct.mean()
    error = math.sqrt(accuracy * (1 - accuracy) / correct.shape[1])
    return Measurement(tuple(correct.mean(axis=1)), error, images, correct)


def decided(found: Difference) -> bool:
    low, high = found.interval
    return low > 0 or high < 0


def test_the_interval_of_one_threat_model_is_that_of_bonett_and_price():
    found = difference(*pair(100, 25, 10, 65))
    ours, other, n = 26 / 202, 11 / 202, 202
    reach = 1.959964 * math.sqrt((ours + other - (ours - other) ** 2) / n)
    assert found.value == pytest.approx(15 / 200)
    assert found.interval == pytest.approx((ours - other - reach, ours - other + reach))


def test_p_is_near_mcnemars_exact_one_written_out():
    """25 against 10 of 35 disagreements: twice the tail of a fair coin, 0.0167."""
    exact = 2 * sum(math.comb(35, k) for k in range(11)) / 2**35
    assert exact == pytest.approx(0.0167, abs=1e-4)
    assert difference(*pair(100, 25, 10, 65)).p(0.0) == pytest.approx(exact, abs=0.006)


@pytest.mark.parametrize("disagreements", [8, 20, 40, 80])
def test_it_decides_where_mcnemars_exact_test_does(disagreements):
    """And where that one's p is above 0.07 it leaves the matter open; between, the two may differ."""
    for ours in range(disagreements + 1):
        found = difference(*pair(100, ours, disagreements - ours, 100))
        exact = binomtest(ours, disagreements).pvalue
        if exact < 0.04:
            assert decided(found)
        if exact > 0.1:
            assert not decided(found)


def test_pairing_decides_where_two_separate_errors_do_not():
    ours, other = pair(100, 20, 4, 76)
    paired = difference(ours, other)
    apart = difference(ours, measurement(other.correct, "other images"))
    assert (paired.value, apart.value) == (pytest.approx(0.08), pytest.approx(0.08))
    assert decided(paired) and not decided(apart)
    assert (paired.paired, apart.paired) == (True, False)
    assert binomtest(20, 24).pvalue < 0.01


def test_the_interval_leaves_a_margin_out_where_p_says_so():
    found = difference(*pair(100, 60, 10, 30))
    low, high = found.interval
    assert low < 0.2 < found.value < high
    assert found.p(low) == pytest.approx(0.05) == found.p(high)
    assert found.p(0.2) > 0.05 > found.p(0.0)


def test_classifiers_that_never_disagree_have_an_interval_all_the_same():
    low, high = difference(*pair(150, 0, 0, 50)).interval
    assert low == -high
    assert 0.01 < high < 0.02  # by one image of 200 either way, and an error of as much


def test_a_mean_over_threat_models_agrees_with_a_paired_bootstrap():
    random = np.random.default_rng(0)
    hardness = random.uniform(size=400)
    ours, other = (
        np.mean([hardness < level + random.normal(0, 0.1, 400) for level in levels], axis=0)
        for levels in ((0.8, 0.4, 0.75, 0.3), (0.75, 0.3, 0.7, 0.25))
    )
    found = difference(measurement(ours[None]), measurement(other[None]))
    drawn = random.integers(400, size=(4000, 400))
    bootstrap = np.quantile((ours - other)[drawn].mean(axis=1), [0.025, 0.975])
    assert found.interval == pytest.approx(bootstrap, abs=0.006)
    unpaired = math.hypot(measurement(ours[None]).error, measurement(other[None]).error)
    assert found.error < unpaired / 2


def with_seeds(*accuracies: float) -> Measurement:
    """Of so many images that only the seeds matter."""
    return Measurement(accuracies, 1e-9)


def test_with_seeds_alone_it_is_students_t():
    found = difference(with_seeds(0.80, 0.84), with_seeds(0.70, 0.72))
    pooled = (2 * 0.02**2 + 2 * 0.01**2) / 2
    assert found.value == pytest.approx(0.11)
    assert found.freedom == pytest.approx(2)
    assert found.interval[0] == pytest.approx(0.11 - 4.302653 * math.sqrt(pooled))


def test_one_seed_against_several_compares_the_main_runs():
    found = difference(with_seeds(0.80, 0.10, 0.10), with_seeds(0.70))
    assert found.value == pytest.approx(0.10)
    assert found.freedom == math.inf


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("seeds", [2, 3])
def test_the_interval_covers_the_truth_over_seeds_and_images(seeds, spread):
    """Two equal methods: networks of a random accuracy, images of a random hardness, 600 experiments."""
    random = np.random.default_rng(seeds)
    covered = 0
    for _ in range(600):
        hardness = random.normal(size=200)
        runs = [
            measurement(hardness + random.normal(0, 0.5, (seeds, 200)) < random.normal(0, 2.5 * spread, (seeds, 1)))
            for _ in range(2)
        ]
        covered += not decided(difference(*runs))
    assert covered / 600 > 0.94
