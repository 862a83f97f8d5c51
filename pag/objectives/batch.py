"""What every objective is given and what it returns."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One minibatch on the training device, augmented.

    images: (B, C, H, W) float in [0, 1]; labels: (B,) int64.
    target_classes: (B, k) int64 and class_gradients: (B, k, C, H, W), of alignment runs; only the directions count.
    seed: owns the randomness inside the objective (the random start of PGD).
    """

    images: Tensor
    labels: Tensor
    seed: int
    target_classes: Tensor | None = None
    class_gradients: Tensor | None = None


class Objective(Protocol):
    """A training objective: the named terms, whose sum is the loss."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]: ...
