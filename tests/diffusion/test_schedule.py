"""The noise schedule against the published equations."""

import math

import pytest
import torch

from pag.diffusion.model.schedule import NoiseSchedule, gradient_t, timesteps_of
from pag.foundation.config.diffusion import DiffusionConfig


def test_middle_noise_level_of_the_two_published_schedules() -> None:
    assert NoiseSchedule.cosine(4000).nearest_t(0.5) == 1983
    assert NoiseSchedule.linear(1000).nearest_t(0.5) == 258


@pytest.mark.parametrize("t", [0, 1, 500, 1983, 3900])
def test_cosine_follows_its_closed_form(t: int) -> None:
    def f(step: int) -> float:
        return math.cos((step / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(NoiseSchedule.cosine(4000).alpha_bar[t]) == pytest.approx(f(t + 1) / f(0), rel=1e-9)


def test_cosine_never_destroys_everything_in_one_step() -> None:
    alpha_bar = NoiseSchedule.cosine(100).alpha_bar
    assert float(alpha_bar[-1] / alpha_bar[-2]) == pytest.approx(0.001)


@pytest.mark.parametrize("t", [0, 258, 999])
def test_linear_is_the_product_of_its_betas(t: int) -> None:
    expected = math.prod(1 - (1e-4 + (0.02 - 1e-4) * step / 999) for step in range(t + 1))
    assert float(NoiseSchedule.linear(1000).alpha_bar[t]) == pytest.approx(expected, rel=1e-9)


def test_linear_of_another_length_ends_equally_noisy() -> None:
    short, long = (float(NoiseSchedule.linear(steps).alpha_bar[-1].log()) for steps in (500, 4000))
    assert short == pytest.approx(long, rel=0.05)


def test_noising_with_one_level_per_image() -> None:
    schedule = NoiseSchedule.linear(1000)
    x0, noise = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([0, 258, 999])
    x_t = schedule.add_noise(x0, t, noise)
    for image in range(3):
        a = float(schedule.alpha_bar[t[image]])
        torch.testing.assert_close(x_t[image], math.sqrt(a) * x0[image] + math.sqrt(1 - a) * noise[image])
    torch.testing.assert_close(schedule.x0_from_eps(x_t, noise, t), x0)
    torch.testing.assert_close(schedule.add_noise(x0, 258, noise)[1], x_t[1])


def test_score_of_pure_gaussian_noise() -> None:
    """Data at 0: p(x_t) = N(0, 1−ᾱ), whose score is −x/(1−ᾱ); the true noise prediction is x/√(1−ᾱ)."""
    schedule = NoiseSchedule.cosine(1000)
    x_t = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    variance = 1 - float(schedule.alpha_bar[300])
    torch.testing.assert_close(schedule.score_from_eps(x_t / math.sqrt(variance), 300), -x_t / variance)


def test_trained_levels() -> None:
    assert torch.equal(timesteps_of(DiffusionConfig(timesteps=50)), torch.arange(50))
    assert timesteps_of(DiffusionConfig(noise_levels="single")).tolist() == [1983]

    band = timesteps_of(DiffusionConfig(noise_levels="band", band=(0.4, 0.6)))
    alpha_bar = NoiseSchedule.cosine(4000).alpha_bar
    assert alpha_bar[band].max() <= 0.6 < alpha_bar[band[0] - 1]
    assert alpha_bar[band].min() >= 0.4 > alpha_bar[band[-1] + 1]
    assert torch.equal(band, torch.arange(int(band[0]), int(band[-1]) + 1))


def test_level_of_the_gradients() -> None:
    assert gradient_t(DiffusionConfig()) == 1983
    assert gradient_t(DiffusionConfig(), 100) == 100
    assert gradient_t(DiffusionConfig(noise_levels="single"), 1983) == 1983


@pytest.mark.parametrize(
    ("config", "t", "message"),
    [
        (DiffusionConfig(timesteps=100), 100, "t = 100 lies outside the schedule: expected 0..99"),
        (DiffusionConfig(timesteps=100), -1, "t = -1 lies outside"),
        (DiffusionConfig(noise_levels="single"), 5, "t = 5 .* is not trained: .* 'single' covers t = 1983"),
        (DiffusionConfig(noise_levels="band", band=(0.6, 0.7)), None, "'band' covers t = 1456..1724"),
        (DiffusionConfig(noise_levels="band", timesteps=10, band=(0.5, 0.5001)), None, "band .* holds no timestep"),
        (DiffusionConfig(schedule="linear", timesteps=20), None, "timesteps = 20 is too few for the linear schedule"),
    ],
)
def test_refusals(config: DiffusionConfig, t: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_t(config, t)
