"""Between images in [0, 1] and what the diffusion model sees: [−1, 1], at the side its U-Net works at."""

import torch.nn.functional as F
from torch import Tensor


def to_signed(images: Tensor, side: int | None = None) -> Tensor:
    """Images (B, C, H, W) in [0, 1] → [−1, 1], resized to (B, C, side, side) unless that is their size already."""
    if side is not None and images.shape[-2:] != (side, side):
        images = resize(images, (side, side)).clamp(0, 1)  # bicubic interpolation overshoots at edges
    return images * 2 - 1


def to_unit(images: Tensor) -> Tensor:
    """[−1, 1] → [0, 1], clipped; for pictures only, never on the way to a gradient."""
    return ((images + 1) / 2).clamp(0, 1)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, low-passed where it shrinks."""
    return F.interpolate(images, size, mode="bicubic", antialias=True)
