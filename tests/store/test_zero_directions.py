"""A gradient of zeros has no direction: the store counts it, and the alignment term leaves it out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pag.gradients.distillation.store_writer import StoreWriter
from pag.objectives.alignment.objective import Alignment
from pag.store.reader import GradientStore
from pag.training.batch import Batch

SHAPE = (5, 3, 1, 4, 4)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_they_are_counted(bits: int, batch: int, tmp_path: Path) -> None:
    gradients = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    gradients[0, 1] = gradients[3, 0] = gradients[3, 2] = 0
    with StoreWriter(tmp_path / "store", SHAPE, {}, bits) as writer:
        for first in range(0, SHAPE[0], batch):
            writer.append(gradients[first : first + batch])
    assert GradientStore.open(tmp_path / "store").attributes["zero_directions"] == 3


def test_they_add_nothing_to_the_loss() -> None:
    """The mean is still over all images and classes, so that λ keeps its meaning."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.SiLU(), nn.Linear(8, 3))
    images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    targets = torch.tensor([[0, 1], [1, 2], [0, 2], [1, 0]])
    directions = torch.randint(-127, 128, (4, 2, 1, 4, 4), dtype=torch.int8)

    def term(rows: slice, given: torch.Tensor) -> torch.Tensor:
        batch = Batch(images[rows], labels[rows], 0, targets[rows], given[rows])
        return Alignment(0.5)(model, batch)["alignment"]

    silent = directions.clone()
    silent[2:] = 0
    torch.testing.assert_close(term(slice(4), silent), term(slice(2), directions) / 2)
    assert term(slice(4), torch.zeros_like(directions)).item() == 0
