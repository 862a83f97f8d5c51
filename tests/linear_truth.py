"""A linear classifier, for which the smallest adversarial perturbation is known exactly."""

import torch
from torch import Tensor, nn


def linear_classifier(num_classes: int, dimension: int, seed: int = 0) -> nn.Sequential:
    layer = nn.Linear(dimension, num_classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return nn.Sequential(nn.Flatten(), layer)


def distance_to_boundary(classifier: nn.Sequential, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """min over classes j of margin_j / ‖w_y - w_j‖ in the dual norm, without pixel bounds; ≤ 0 if misclassified."""
    weight, bias = classifier[1].weight.detach().double(), classifier[1].bias.detach().double()
    logits = images.flatten(1).double() @ weight.T + bias
    margins = logits.gather(1, labels[:, None]) - logits
    gaps = torch.linalg.vector_norm(weight[labels][:, None] - weight[None], ord=2 if norm == "L2" else 1, dim=2)
    distance = margins / gaps
    distance[torch.arange(len(labels)), labels] = torch.inf
    return distance.min(1).values
