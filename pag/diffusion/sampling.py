"""Pictures of what a diffusion model has learned: samples of each class, or one-step denoising."""

import torch
from torch import Tensor, nn

from pag.diffusion.model.images import to_signed, to_unit
from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.unet import eps_half
from pag.foundation.seeding import generator


@torch.no_grad()
def sample(
    model: nn.Module, schedule: NoiseSchedule, class_labels: Tensor, shape: tuple[int, int, int], steps: int, seed: int
) -> Tensor:
    """One image in [0, 1] per entry of `class_labels` (B,), of `shape` (C, H, W), by DDIM (Song et al. 2021, η = 0).

    Needs a network trained on all noise levels. `steps` timesteps are visited, evenly spaced from T−1 down to 0:
    x0 = clip((x_t − √(1−ᾱ_t) ε̂) / √ᾱ_t), then x_s = √ᾱ_s x0 + √(1−ᾱ_s) ε for the next lower timestep s, with the ε
    that x_t and the clipped x0 imply.
    """
    if not 1 <= steps <= schedule.timesteps:
        raise ValueError(f"steps = {steps}: expected 1..{schedule.timesteps}, the timesteps of the schedule")
    model.eval()
    device = class_labels.device
    visited = torch.linspace(schedule.timesteps - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    x = torch.randn(len(class_labels), *shape, generator=generator(seed, "sample")).to(device)
    for t, lower in zip(visited, [*visited[1:], None], strict=True):
        x0 = schedule.x0_from_eps(x, _eps_pred(model, x, t, class_labels), t).clamp(-1, 1)
        if lower is None:
            break
        alpha_bar = float(schedule.alpha_bar[t])
        eps_pred = (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
        x = schedule.add_noise(x0, lower, eps_pred)
    return to_unit(x0)


@torch.no_grad()
def denoise_once(
    model: nn.Module, schedule: NoiseSchedule, images: Tensor, class_labels: Tensor, t: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Noise `images` (B, C, H, W) in [0, 1] to level `t` and remove it in one step, told `class_labels` (B,).

    Returns the noisy and the denoised images, both in [0, 1] for showing. What a network trained on a single level
    can show; the images have the side that it works at.
    """
    schedule.check_t(t)
    model.eval()
    noise = torch.randn(images.shape, generator=generator(seed, "denoise")).to(images.device)
    x_t = schedule.add_noise(to_signed(images), t, noise)
    return to_unit(x_t), to_unit(schedule.x0_from_eps(x_t, _eps_pred(model, x_t, t, class_labels), t))


def _eps_pred(model: nn.Module, x_t: Tensor, t: int, class_labels: Tensor) -> Tensor:
    return eps_half(model(x_t, torch.full_like(class_labels, t), class_labels), x_t.shape[1])
