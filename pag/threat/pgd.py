"""Projected gradient descent (Madry et al., 2018) in one loop for both norms, for training and for pictures."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pag.foundation.processes import Part, drawn
from pag.threat.threat_model import ThreatModel

Model = Callable[[Tensor], Tensor]  # images (B, C, H, W) or points (B, 2) → logits (B, num_classes)
PgdLoss = Literal["ce", "kl"]


def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
    targeted: bool = False,
    loss: PgdLoss = "ce",
    bounds: tuple[float, float] | None = (0.0, 1.0),
    part: Part | None = None,
) -> Tensor:
    """Adversarial examples x + delta, ‖delta‖ ≤ eps, after `steps` of delta ← Π(delta + step_size · step(∇ loss)).

    The last iterate is returned, detached: training wants the current adversary, and the best of all iterates would
    cost a further forward pass. The model runs in the mode that the caller has set (in train mode its BatchNorm sees
    the attack's batches); its parameters get no gradient. A step is one forward pass and one input gradient.

    images: (B, ...) inside `bounds`. labels: (B,) true classes, or with `targeted` the classes to move towards.
    generator: draws the start uniformly in the ball; None starts at the image itself.
    loss: "ce" ascends CE(f(x_adv), labels); "kl" ascends KL(f(x) ‖ f(x_adv)), as TRADES does, and ignores the labels.
    bounds: the valid range of a pixel; None for unbounded inputs.
    part: which rows of the batch that the start is drawn for `images` are; None: all.
    """
    if steps < 1 or step_size <= 0:
        raise ValueError(f"PGD with steps = {steps}, step_size = {step_size}: expected steps >= 1 and step_size > 0")
    if loss == "kl" and (generator is None or targeted):
        raise ValueError("the KL loss is flat at the image itself and has no target: give a generator, untargeted")
    objective = _kl_to_clean(model, images) if loss == "kl" else _cross_entropy(labels, targeted)

    delta = torch.zeros_like(images)
    if generator is not None:
        start = drawn(partial(threat_model.random_start, generator=generator), images.shape, part)
        delta = start.to(images)
    x_adv = _inside(images + delta, bounds)
    for _ in range(steps):
        x_adv.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(model(x_adv)), x_adv)
        delta = x_adv.detach() - images + step_size * threat_model.step(gradient)
        # Clamping a pixel moves it towards the image, which lies inside the bounds: it never leaves the ball.
        x_adv = _inside(images + threat_model.project(delta), bounds)
    return x_adv


def _inside(images: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return images if bounds is None else images.clamp(*bounds)


def _cross_entropy(labels: Tensor, targeted: bool) -> Callable[[Tensor], Tensor]:
    sign = -1 if targeted else 1
    # Summed, so that an image's gradient does not depend on the batch it is in.
    return lambda logits: sign * F.cross_entropy(logits, labels, reduction="sum")


def _kl_to_clean(model: Model, images: Tensor) -> Callable[[Tensor], Tensor]:
    with torch.no_grad():
        clean = F.log_softmax(model(images), dim=1)
    return lambda logits: F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="sum", log_target=True)
