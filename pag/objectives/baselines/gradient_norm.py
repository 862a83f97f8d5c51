"""Penalty on the input gradient's size (Rodríguez-Muñoz et al., 2024, arXiv 2409.20139): alignment's control."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.classifiers.compiled import in_one_graph
from pag.classifiers.double_backward import fast_double_backward
from pag.training.batch import Batch


@dataclass(frozen=True)
class GradientNorm:
    """CE(f(x), y) + weight · ‖∇_x CE(f(x), y)‖₁, averaged over images; no direction is asked for.

    weight: in pixel units of [0, 1]. To first order max CE(f(x + δ), y) over ‖δ‖∞ ≤ ε is CE + ε · ‖∇_x CE‖₁: the weight
        is the radius of an L∞ ball.

    In convolution passes 3 + 3 = 6, as alignment with one class per image.
    """

    weight: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        cross_entropy, norm = in_one_graph(_cross_entropy_and_norm, model, batch.images, batch.labels)
        return {"cross_entropy": cross_entropy, "gradient_norm": self.weight * norm}


def _cross_entropy_and_norm(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the batch of CE(f(x), y) and of ‖∇_x CE(f(x), y)‖₁."""
    images = images.detach().requires_grad_()
    with fast_double_backward():
        logits = model(images)
    losses = F.cross_entropy(logits, labels, reduction="none")
    # of the sum: an image's gradient is that of its own loss (but for BatchNorm's statistics)
    (gradients,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
    return losses.mean(), gradients.flatten(1).abs().sum(1).mean()
