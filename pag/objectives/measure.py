"""How perceptually aligned a classifier's gradients are, as one number."""

import torch
from torch import Tensor, nn

from pag.config.section import GradientOf
from pag.objectives.cosine import cosine, input_gradients


def gradient_alignment(
    model: nn.Module, images: Tensor, class_gradients: Tensor, gradient_of: GradientOf = "log_softmax"
) -> Tensor:
    """Mean cosine over all classes between the input gradients of `model`, in eval mode, and given directions.

    images: (B, C, H, W) in [0, 1]; class_gradients: (B, K, C, H, W) of any scale. Returns (B,) in [−1, 1].
    """
    model.eval()
    images = images.detach().requires_grad_()
    target_classes = torch.arange(class_gradients.shape[1], device=images.device).expand(len(images), -1)
    v = input_gradients(model(images), images, target_classes, gradient_of)
    return cosine(v, class_gradients).mean(1).detach()
