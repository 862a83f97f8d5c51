"""The training objective: ε-MSE, and for learned sigma the hybrid loss of Nichol and Dhariwal 2021 (section 3.1).

L_hybrid = L_simple + λ L_vlb with λ = .001. L_vlb is a sum of one term per timestep, so that its estimate from one
random t is T · L_t; L_t is the mean over pixels, in bits.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pag.diffusion.model.schedule import NoiseSchedule, at
from pag.diffusion.model.unet import eps_half

VLB_WEIGHT = 0.001


@dataclass(frozen=True)
class NoisyBatch:
    """Images x0, noise and x_t (B, C, H, W) with their noise levels t (B,)."""

    x0: Tensor
    t: Tensor
    noise: Tensor
    x_t: Tensor


def diffusion_loss(output: Tensor, batch: NoisyBatch, schedule: NoiseSchedule, pixel_levels: int) -> Tensor:
    """Mean loss of a batch, for a network output with C channels (L_simple) or 2C channels (L_hybrid).

    pixel_levels is the number of steps between black and white (255 for 8-bit images).
    """
    channels = batch.x0.shape[1]
    eps_pred = eps_half(output, channels)
    simple = F.mse_loss(eps_pred, batch.noise)
    if output.shape[1] == channels:
        return simple
    # The bound trains sigma only: through eps_pred its gradient is too noisy, hence the detach.
    bound = variational_bound(eps_pred.detach(), output[:, channels:], batch, schedule, pixel_levels)
    return simple + VLB_WEIGHT * schedule.timesteps * bound.mean()


def variational_bound(
    eps_pred: Tensor, interpolation: Tensor, batch: NoisyBatch, schedule: NoiseSchedule, pixel_levels: int
) -> Tensor:
    """L_t per image (B,), in bits per pixel.

    t > 0: KL(q(x_{t−1} | x_t, x0) ‖ p(x_{t−1} | x_t)). The two means differ by β_t / √(α_t (1−ᾱ_t)) · (noise −
    eps_pred), the form that stays finite where ᾱ_t is nearly 0.
    t = 0: −log p(x0 | x_1), the Gaussian integrated over the pixel value's bin.
    """
    log_beta, log_posterior, shift = (at(table, batch.t, batch.x_t) for table in _tables(schedule))
    mixed = (interpolation + 1) / 2  # 0: the posterior's variance, 1: beta
    log_variance = mixed * log_beta + (1 - mixed) * log_posterior

    log_ratio = log_variance - log_posterior
    squared_shift = (shift * (batch.noise - eps_pred)).square()
    kl = 0.5 * (log_ratio - 1 + torch.exp(-log_ratio) + squared_shift * torch.exp(-log_variance))
    x0_pred = schedule.x0_from_eps(batch.x_t, eps_pred, batch.t)
    decoder = -_log_bin_probability(batch.x0, x0_pred, log_variance, pixel_levels)
    is_first = (batch.t == 0).to(kl.device).reshape(-1, 1, 1, 1)
    return torch.where(is_first, decoder, kl).flatten(1).mean(1) / math.log(2)


def _tables(schedule: NoiseSchedule) -> tuple[Tensor, Tensor, Tensor]:
    """Per t: log β_t, the log-variance of q(x_{t−1} | x_t, x0), and β_t / √(α_t (1−ᾱ_t))."""
    previous = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar[:-1]])
    beta = 1 - schedule.alpha_bar / previous
    posterior = beta * (1 - previous) / (1 - schedule.alpha_bar)
    posterior[0] = posterior[1]  # zero at t = 0, where only its logarithm is needed
    return beta.log(), posterior.log(), beta / ((1 - beta) * (1 - schedule.alpha_bar)).sqrt()


def _log_bin_probability(x0: Tensor, mean: Tensor, log_variance: Tensor, pixel_levels: int) -> Tensor:
    """log of N(mean, variance) integrated over the bin of each pixel of x0; the outer bins reach to infinity."""
    half_width = 1 / pixel_levels  # values are 2/pixel_levels apart in [−1, 1]
    inverse_sigma = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr((x0 - mean + half_width) * inverse_sigma)
    lower = torch.special.ndtr((x0 - mean - half_width) * inverse_sigma)
    upper = torch.where(x0 > 1 - half_width, torch.ones_like(upper), upper)
    lower = torch.where(x0 < -1 + half_width, torch.zeros_like(lower), lower)
    return (upper - lower).clamp(min=1e-12).log()
