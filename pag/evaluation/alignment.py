"""How perceptually aligned a classifier's gradients are, as one number; and the gradients themselves, to look at."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pag.classifiers.input_gradients import class_scores, cosine
from pag.foundation.config.section import GradientOf


def gradient_alignment(
    model: nn.Module, images: Tensor, class_gradients: Tensor, gradient_of: GradientOf = "log_softmax"
) -> Tensor:
    """Mean cosine over all classes between the input gradients of `model`, in eval mode, and given directions.

    images: (B, C, H, W) in [0, 1]; class_gradients: (B, K, C, H, W) of any scale, of which those that are zero
    everywhere are left out. Returns (B,) in [−1, 1]; NaN where all of an image's are.
    """
    directions = class_gradients.unbind(1)
    gradients = gradients_by_class(model, images, len(directions), gradient_of)
    cosines = [cosine(v[:, None], u[:, None]) for v, u in zip(gradients, directions, strict=True)]
    directed = class_gradients.flatten(2).ne(0).any(2)
    return torch.cat(cosines, dim=1).sum(1) / directed.sum(1)  # the cosine with a zero direction is 0


@torch.enable_grad()  # wherever it is called
def gradients_by_class(
    model: nn.Module, images: Tensor, num_classes: int, gradient_of: GradientOf = "log_softmax"
) -> Iterator[Tensor]:
    """∇_x of the score of each of the first `num_classes` classes, (B, C, H, W) each, of any scale, in eval mode.

    One forward pass, and one class at a time: the memory does not grow with the number of classes. What torch.compile
    compiled runs as it was written: its backward pass gives back what a second one would need.
    """
    model.eval()
    images = images.detach().requires_grad_()
    target_classes = torch.arange(num_classes, device=images.device).expand(len(images), -1)
    with torch.compiler.set_stance("force_eager"):
        logits = model(images)
    for score in class_scores(logits, target_classes, gradient_of).unbind(1):
        yield torch.autograd.grad(score.sum(), images, retain_graph=True)[0]
