"""How often a classifier is right."""

import numpy as np
import torch
from torch import nn

from pag.images.dataset import Split


def accuracy(model: nn.Module, split: Split, device: torch.device, batch_size: int = 512) -> float:
    """Clean accuracy in [0, 1] on a split, in eval mode."""
    return float(correct(model, split, device, batch_size).mean())


@torch.no_grad()
def correct(model: nn.Module, split: Split, device: torch.device, batch_size: int = 512) -> np.ndarray:
    """Which images (N,) of a split are classified correctly, in eval mode."""
    model.eval()
    parts = []
    for start in range(0, len(split), batch_size):
        rows = slice(start, start + batch_size)
        parts.append(model(split.unit(rows).to(device)).argmax(1).cpu().numpy() == split.labels[rows])
    return np.concatenate(parts)
