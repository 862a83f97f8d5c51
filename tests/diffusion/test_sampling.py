"""Sampling with the exact noise prediction of Gaussian data returns that data."""

import pytest
import torch
from torch import Tensor, nn

from pag.diffusion.model.schedule import NoiseSchedule, at
from pag.diffusion.sampling import denoise_once, sample

SCHEDULE = NoiseSchedule.cosine(1000)
MEANS = torch.tensor([-0.4, 0.3])
SPREAD = 0.1


class GaussianData(nn.Module):
    """Pixels of class y are N(MEANS[y], spread²): E[noise | x_t] = √(1−ᾱ) (x_t − √ᾱ mean) / (ᾱ spread² + 1 − ᾱ)."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        a = at(SCHEDULE.alpha_bar, t, x_t)
        mean = MEANS[class_labels].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x_t - a.sqrt() * mean) / (a * self.spread**2 + 1 - a)


def test_samples_have_the_distribution_of_their_class() -> None:
    labels = torch.arange(2).repeat_interleave(100)
    images = sample(GaussianData(SPREAD), SCHEDULE, labels, (1, 4, 4), steps=200, seed=0)
    assert images.shape == (200, 1, 4, 4)
    for label in range(2):
        pixels = images[labels == label] * 2 - 1
        assert float(pixels.mean()) == pytest.approx(float(MEANS[label]), abs=0.02)
        assert float(pixels.std()) == pytest.approx(SPREAD, rel=0.1)


def test_same_seed_same_samples() -> None:
    labels = torch.tensor([0, 1])
    first, again, other = (
        sample(GaussianData(SPREAD), SCHEDULE, labels, (1, 4, 4), steps=5, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_step_denoising_finds_data_without_spread() -> None:
    labels = torch.tensor([0, 1, 1])
    images = ((MEANS[labels] + 1) / 2).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    noisy, denoised = denoise_once(GaussianData(0.0), SCHEDULE, images, labels, 500, seed=0)
    torch.testing.assert_close(denoised, images, atol=1e-4, rtol=0)
    assert (noisy - images).abs().mean() > 0.1
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_refusals() -> None:
    model, labels = GaussianData(0.0), torch.tensor([0])
    with pytest.raises(ValueError, match=r"steps = 1001: expected 1\.\.1000"):
        sample(model, SCHEDULE, labels, (1, 4, 4), steps=1001, seed=0)
    with pytest.raises(ValueError, match="t = 1000 lies outside the schedule"):
        denoise_once(model, SCHEDULE, torch.zeros(1, 1, 4, 4), labels, 1000, seed=0)
