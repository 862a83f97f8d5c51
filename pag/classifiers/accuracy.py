"""How often a classifier is right."""

import torch
from torch import nn

from pag.images.dataset import Split


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, device: torch.device, batch_size: int = 512) -> float:
    """Clean accuracy in [0, 1] on a split, in eval mode."""
    model.eval()
    correct = 0
    for start in range(0, len(split.labels), batch_size):
        rows = slice(start, start + batch_size)
        predictions = model(split.unit(rows).to(device)).argmax(1).cpu().numpy()
        correct += int((predictions == split.labels[rows]).sum())
    return correct / len(split.labels)
