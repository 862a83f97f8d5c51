"""Targeted PGD far outside any threat model: what a network with perceptually aligned gradients turns an image into."""

import torch
from torch import Tensor

from pag.attacks.pgd import Model, pgd
from pag.attacks.threat_model import ThreatModel


def large_eps_grid(model: Model, images: Tensor, eps: float, steps: int, num_classes: int) -> Tensor:
    """Every image moved towards every class by targeted L2 PGD: (B, num_classes, C, H, W) in [0, 1].

    images: (B, C, H, W) in [0, 1]; eps: L2 radius. It starts at the image, so that the picture shows the gradients and
    no noise; the step size 2.5 · eps / steps lets the path reach the sphere and bend along it.
    """
    count = len(images)
    sources = images.repeat_interleave(num_classes, dim=0)
    targets = torch.arange(num_classes, device=images.device).repeat(count)
    moved = pgd(model, sources, targets, ThreatModel("L2", eps), steps, 2.5 * eps / steps, targeted=True)
    return moved.unflatten(0, (count, num_classes))
