"""Training on noisy images: what smoothness alone gives."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.training.batch import Batch


@dataclass(frozen=True)
class GaussianNoise:
    """CE(f(x + σ·n), y) with n ~ N(0, 1) per pixel, drawn anew for every batch.

    sigma: σ in pixel units of [0, 1]. The noisy image is not clamped, as in randomised smoothing (Cohen et al., 2019,
        arXiv 1902.02918): near black and white the noise would otherwise be smaller, and have a mean.
    """

    sigma: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        generator = torch.Generator(batch.images.device).manual_seed(batch.seed)
        noise = torch.randn(batch.images.shape, generator=generator, device=batch.images.device)
        return {"cross_entropy": F.cross_entropy(model(batch.images + self.sigma * noise), batch.labels)}
