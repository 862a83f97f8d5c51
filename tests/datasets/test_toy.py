import numpy as np
import pytest

from pag.datasets.toy import read_toy
from pag.foundation.config.section import ConfigError
from pag.foundation.config.toy import ToyConfig

CENTRES = ((-50.0, -10.0, 30.0), (-30.0, 10.0, 50.0))


def config(**changes) -> ToyConfig:
    values = {"samples_per_mode": 1000, "centres": CENTRES, "test_samples": 600, "hidden": 32, "epochs": 1}
    values |= {"batch_size": 128, "lr": 0.01, "lambda": 1.0, "nn_candidates": 10, "eps": 15.0, "steps": 10}
    return ToyConfig.model_validate(values | {"step_size": 2.0, "seeds": 2} | changes)


def test_points_follow_the_papers_distribution():
    dataset = read_toy(config(), seed=0)
    assert dataset.train.images.shape == (6000, 2)
    assert np.bincount(dataset.train.labels).tolist() == [3000, 3000]
    assert len(dataset.validation) == 0
    assert np.bincount(dataset.test.labels).tolist() == [300, 300]
    for split, per_mode in ((dataset.train, 1000), (dataset.test, 100)):
        x1, x2 = split.images.T
        np.testing.assert_array_equal(x2, 2 * x1)
        for label, centres in enumerate(CENTRES):
            for centre in centres:
                mode = x1[(split.labels == label) & (abs(x1 - centre) < 8)]
                assert len(mode) == per_mode
                assert abs(mode.mean() - centre) < 4 / per_mode**0.5
                assert abs(mode.std() - 1) < 4 / per_mode**0.5


def test_seeds_and_parts_have_their_own_draws():
    first, second, other = read_toy(config(), 0), read_toy(config(), 0), read_toy(config(), 1)
    assert first.content_hash == second.content_hash != other.content_hash
    assert not set(first.train.images[:, 0].tolist()) & set(first.test.images[:, 0].tolist())


def test_class_without_a_mode():
    with pytest.raises(ConfigError, match="centres: both classes need at least one mode"):
        read_toy(config(centres=((1.0,), ())), 0)
