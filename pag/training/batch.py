"""What every objective is given and what it returns; and where an alignment run's directions come from."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from pag.foundation.processes import Part


@dataclass(frozen=True)
class Batch:
    """One minibatch on the training device, augmented.

    images: (B, C, H, W) float in [0, 1]; labels: (B,) int64.
    target_classes: (B, k) int64 and class_gradients: (B, k, C, H, W), of alignment runs; only the directions count.
    seed: owns the randomness inside the objective (the random start of PGD, Gaussian noise).
    part: which rows of a larger batch these are, where several processes share it; None: all.
    """

    images: Tensor
    labels: Tensor
    seed: int
    target_classes: Tensor | None = None
    class_gradients: Tensor | None = None
    part: Part | None = None

    @property
    def weight(self) -> float:
        """The share of the whole batch: the sum over processes of weight × own mean is the batch's mean."""
        return 1.0 if self.part is None else self.part.weight


class ClassGradients(Protocol):
    """Directions g(x, y) of every training image and class: a gradient store, or arrays in memory."""

    @property
    def attributes(self) -> dict[str, Any]:
        """What the directions are of."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, K, C, H, W)"""

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        """The directions of images `rows` (B,) towards `target_classes` (B, k), as (B, k, C, H, W)."""


class Objective(Protocol):
    """A training objective: the named terms, whose sum is the loss."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]: ...
