"""Result files of an experiment that was never run: digits pictures, and accuracies that a test may change."""

from pathlib import Path

import numpy as np
import pytest
from experiments import Experiment, write_arrays, write_toy_arrays


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(N, 1, 8, 8) in [0, 1] and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images[:400, None] / 16, data.target[:400]


@pytest.fixture
def metrics(tmp_path: Path) -> Experiment:
    """A results folder with metrics only."""
    experiment = Experiment(tmp_path / "results")
    experiment.write_all()
    return experiment


@pytest.fixture
def experiment(metrics: Experiment, digits: tuple[np.ndarray, np.ndarray]) -> Experiment:
    """A complete results folder."""
    write_arrays(metrics.folder, "digits", *digits, [str(k) for k in range(10)])
    write_toy_arrays(metrics.folder)
    return metrics
