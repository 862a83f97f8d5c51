"""The noise schedule, and every conversion between timesteps, noise levels, noise predictions and scores.

Forward process (Ho, Jain and Abbeel 2020): x_t = √ᾱ_t · x0 + √(1−ᾱ_t) · noise, t = 0..T−1, x0 in [−1, 1].
A noise level is named by ᾱ ("alpha_bar"): "the middle timestep" is a different level in every schedule.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pag.foundation.config.diffusion import DiffusionConfig


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """ᾱ_t for t = 0..T−1 (float64, falling); everything else about the forward process follows from it."""

    alpha_bar: Tensor

    @classmethod
    def cosine(cls, timesteps: int) -> "NoiseSchedule":
        """Nichol and Dhariwal 2021: ᾱ(u) = cos²(π/2 · (u + .008) / 1.008) at u = t/T, every β at most .999."""
        u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        curve = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return cls.from_betas((1 - curve[1:] / curve[:-1]).clamp(max=0.999))

    @classmethod
    def linear(cls, timesteps: int) -> "NoiseSchedule":
        """Ho et al. 2020: β from 1e-4 to .02 over 1000 steps; other lengths scale β so that the end stays as noisy."""
        scale = 1000 / timesteps
        if 0.02 * scale >= 1:
            raise ValueError(f"timesteps = {timesteps} is too few for the linear schedule: use at least 21, or cosine")
        return cls.from_betas(torch.linspace(1e-4 * scale, 0.02 * scale, timesteps, dtype=torch.float64))

    @classmethod
    def from_betas(cls, betas: Tensor) -> "NoiseSchedule":
        return cls(torch.cumprod(1 - betas, dim=0))

    @classmethod
    def from_config(cls, config: DiffusionConfig) -> "NoiseSchedule":
        return {"cosine": cls.cosine, "linear": cls.linear}[config.schedule](config.timesteps)

    @property
    def timesteps(self) -> int:
        return len(self.alpha_bar)

    def nearest_t(self, alpha_bar: float) -> int:
        """The timestep whose ᾱ is closest to `alpha_bar`."""
        return int((self.alpha_bar - alpha_bar).abs().argmin())

    def check_t(self, t: int) -> int:
        """`t`, or a ValueError when the schedule has no such timestep."""
        if not 0 <= t < self.timesteps:
            raise ValueError(f"t = {t} lies outside the schedule: expected 0..{self.timesteps - 1}; change distill.t")
        return t

    def add_noise(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """x_t for images `x0` (B, C, H, W) and timesteps `t`, one per image or one for all."""
        signal = at(self.alpha_bar.sqrt(), t, x0)
        return signal * x0 + at((1 - self.alpha_bar).sqrt(), t, x0) * noise

    def x0_from_eps(self, x_t: Tensor, eps_pred: Tensor, t: Tensor | int) -> Tensor:
        """The clean image that `eps_pred` implies, not clipped: inverse of `add_noise`."""
        noise = at((1 - self.alpha_bar).sqrt(), t, x_t) * eps_pred
        return (x_t - noise) / at(self.alpha_bar.sqrt(), t, x_t)

    def score_from_eps(self, eps_pred: Tensor, t: Tensor | int) -> Tensor:
        """∇_{x_t} log p(x_t) = −eps_pred / √(1−ᾱ_t); the leading dimension of `eps_pred` is the batch."""
        return -eps_pred / at((1 - self.alpha_bar).sqrt(), t, eps_pred)


def at(table: Tensor, t: Tensor | int, like: Tensor) -> Tensor:
    """`table[t]` with the dtype and device of `like`, shaped to multiply it: (B, 1, …), or (1, …) for one t."""
    values = table[torch.as_tensor(t, device="cpu").reshape(-1)]
    return values.to(like.device, like.dtype, non_blocking=True).reshape(-1, *[1] * (like.ndim - 1))


def timesteps_of(config: DiffusionConfig) -> Tensor:
    """The timesteps that training visits under `noise_levels`, rising, int64. ValueError if a band holds none."""
    schedule = NoiseSchedule.from_config(config)
    if config.noise_levels == "all":
        return torch.arange(schedule.timesteps)
    if config.noise_levels == "single":
        return torch.tensor([schedule.nearest_t(config.alpha_bar)])
    low, high = config.band
    inside = torch.nonzero((schedule.alpha_bar >= low) & (schedule.alpha_bar <= high)).flatten()
    if len(inside) == 0:
        raise ValueError(f"diffusion.band = [{low}, {high}] holds no timestep of the schedule: widen it")
    return inside


def gradient_t(config: DiffusionConfig, t: int | None = None) -> int:
    """The noise level of the gradients: `t`, or the one nearest to `config.alpha_bar`.

    Raises ValueError when it lies outside the schedule or was not among the levels that the network is trained on.
    """
    schedule = NoiseSchedule.from_config(config)
    t = schedule.nearest_t(config.alpha_bar) if t is None else schedule.check_t(t)
    trained = timesteps_of(config)
    if t not in trained:
        span = f"{trained[0]}" if len(trained) == 1 else f"{trained[0]}..{trained[-1]}"
        raise ValueError(
            f"t = {t} (alpha_bar {schedule.alpha_bar[t]:.3f}) is not trained: diffusion.noise_levels = "
            f"'{config.noise_levels}' covers t = {span}; choose a t in there or train other levels"
        )
    return t
