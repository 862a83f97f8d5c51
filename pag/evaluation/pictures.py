"""What a classifier's gradients look like: test images moved far towards every class, and the gradients themselves."""

import numpy as np
import torch
from torch import Tensor, nn

from pag.evaluation.alignment import gradients_by_class
from pag.threat.pgd import Model, pgd
from pag.threat.threat_model import ThreatModel

MAX_CLASSES_SHOWN = 10


def pictures(model: nn.Module, images: Tensor, eps: float, steps: int, num_classes: int) -> dict[str, np.ndarray]:
    """Arrays of a grid with one row an image and one column a target class, of the first MAX_CLASSES_SHOWN classes.

    images: (B, C, H, W) in [0, 1], on the model's device. Returns `images`; `adversarial` and `gradients`, float32
    (B, K, C, H, W), by image and target class; and the L2 radius `eps`.
    """
    shown = min(num_classes, MAX_CLASSES_SHOWN)
    moved = large_eps_grid(model, images, eps, steps, shown)
    gradients = torch.stack(list(gradients_by_class(model, images, shown)), dim=1)
    return {
        "images": images.cpu().numpy(),
        "adversarial": moved.cpu().numpy(),
        "gradients": gradients.cpu().numpy(),
        "eps": np.array(eps),
    }


def large_eps_grid(model: Model, images: Tensor, eps: float, steps: int, num_classes: int) -> Tensor:
    """Every image moved far towards every class by targeted L2 PGD: (B, num_classes, C, H, W) in [0, 1].

    images: (B, C, H, W) in [0, 1]; eps: L2 radius. It starts at the image, so that the picture shows the gradients and
    no noise; the step size 2.5 · eps / steps lets the path reach the sphere and bend along it.
    """
    count = len(images)
    sources = images.repeat_interleave(num_classes, dim=0)
    targets = torch.arange(num_classes, device=images.device).repeat(count)
    moved = pgd(model, sources, targets, ThreatModel("L2", eps), steps, 2.5 * eps / steps, targeted=True)
    return moved.unflatten(0, (count, num_classes))
