"""Training on noisy images: what smoothness alone gives."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.foundation.processes import drawn
from pag.training.batch import Batch


@dataclass(frozen=True)
class GaussianNoise:
    """CE(f(x + σ·n), y) with n ~ N(0, 1) per pixel, drawn anew for every batch.

    sigma: σ in pixel units of [0, 1]. The noisy image is not clamped, as in randomised smoothing (Cohen et al., 2019,
        arXiv 1902.02918): near black and white the noise would otherwise be smaller, and have a mean.
    """

    sigma: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        device = batch.images.device
        generator = torch.Generator(device).manual_seed(batch.seed)
        draw = partial(torch.randn, generator=generator, device=device)
        noise = drawn(draw, batch.images.shape, batch.part)
        return {"cross_entropy": F.cross_entropy(model(batch.images + self.sigma * noise), batch.labels)}
