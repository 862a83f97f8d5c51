"""Input gradients of a classifier and their cosine with given directions: the two sides of the alignment term."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pag.foundation.config.section import GradientOf


def class_scores(logits: Tensor, target_classes: Tensor, gradient_of: GradientOf) -> Tensor:
    """A scalar per target class whose input gradient has the direction to align: shapes (B, C), (B, k) → (B, k).

    "logit" is z_y itself. "log_softmax" is the log-odds z_y − log Σ_{j≠y} exp z_j, because

        ∇ log p_y = (1 − p_y) · ∇ log(p_y / (1 − p_y)),

    so that both have the same direction, while 1 − p_y rounds to zero in float32 once p_y > 1 − 6e-8 and takes the
    direction of ∇ log p_y with it. The cosine and its derivatives do not see the positive factor.

    Under train-mode BatchNorm an image's score also depends, slightly, on the other images of the batch. The log-odds
    let every image take part in that alike; ∇ Σ log p_y would weight image j by its 1 − p_y.
    """
    chosen = logits.gather(1, target_classes)
    if gradient_of == "logit":
        return chosen
    is_chosen = F.one_hot(target_classes, logits.shape[1]).bool()  # (B, k, C)
    others = logits.unsqueeze(1).masked_fill(is_chosen, -torch.inf)
    return chosen - others.logsumexp(2)


def input_gradients(logits: Tensor, images: Tensor, target_classes: Tensor, gradient_of: GradientOf) -> Tensor:
    """∇_x of the score of each target class, up to a positive factor per class, differentiable again.

    Args:
        logits: (B, C), computed from `images` with autograd on.
        images: (B, …), the leaf that requires grad.
        target_classes: (B, k) class indices.

    Returns:
        (B, k, …) gradients that carry a graph to the parameters. One backward pass serves all samples, since the sum
        over the batch separates (but for BatchNorm's statistics). The k passes share the one forward; they are not
        vectorised, because a batch already fills the device, and the custom double backward is the larger gain.

    Raises ValueError in one line where the logits do not depend on the images.
    """
    rows = []
    for score in class_scores(logits, target_classes, gradient_of).unbind(1):
        (row,) = torch.autograd.grad(score.sum(), images, create_graph=True, allow_unused=True)
        if row is None:
            raise ValueError("the model gives its images no gradient: expected logits without .detach() on the way")
        rows.append(row)
    return torch.stack(rows, dim=1)


def cosine(v: Tensor, u: Tensor) -> Tensor:
    """cos(v, u) over all dimensions behind the second. Shapes (B, k, …) → (B, k), in [−1, 1].

    Both are scaled by their largest entry before a norm is taken: the cosine does not see the scale, and tiny
    gradients keep their direction in float32. A zero vector on either side has cosine 0 and passes no gradient.
    """
    v, u = _unit_range(v.flatten(2)), _unit_range(u.flatten(2).to(v.dtype))
    smallest = torch.finfo(v.dtype).tiny ** 0.5
    norms = (v.square().sum(2).clamp_min(smallest) * u.square().sum(2).clamp_min(smallest)).sqrt()
    return (v * u).sum(2) / norms


def _unit_range(v: Tensor) -> Tensor:
    """v / max|v| along the last dimension; the scale is a constant, since the cosine's derivative along v is zero."""
    largest = v.detach().abs().amax(-1, keepdim=True)
    smallest = torch.finfo(v.dtype).tiny  # below it the reciprocal is infinite
    return v * torch.where(largest > 0, 1 / largest.clamp_min(smallest), 0)
