"""The hybrid loss against torch's own distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pag.diffusion.losses import NoisyBatch, diffusion_loss, variational_bound
from pag.diffusion.model.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.cosine(50)


def batch_of(t: list[int]) -> NoisyBatch:
    generator = torch.Generator().manual_seed(0)
    shape = (len(t), 1, 4, 4)
    x0 = torch.randint(17, shape, generator=generator).double() / 8 - 1
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    steps = torch.tensor(t)
    return NoisyBatch(x0, steps, noise, SCHEDULE.add_noise(x0, steps, noise))


def test_simple_loss_is_the_squared_error_of_the_noise() -> None:
    batch = batch_of([0, 20])
    output = torch.zeros_like(batch.noise)
    assert float(diffusion_loss(output, batch, SCHEDULE, 16)) == pytest.approx(float(batch.noise.square().mean()))


@pytest.mark.parametrize("t", [1, 20, 49])
def test_bound_is_the_divergence_of_the_two_reverse_steps(t: int) -> None:
    """Both Gaussians built from Ho et al. 2020, equations 6-7, and Nichol and Dhariwal 2021, equation 15."""
    batch = batch_of([t])
    eps_pred, interpolation = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    a, previous = float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[t - 1])
    beta = 1 - a / previous
    posterior_variance = (1 - previous) / (1 - a) * beta

    def reverse_mean(x0: torch.Tensor) -> torch.Tensor:
        return math.sqrt(previous) * beta / (1 - a) * x0 + math.sqrt(1 - beta) * (1 - previous) / (1 - a) * batch.x_t

    v = (interpolation + 1) / 2
    variance = torch.exp(v * math.log(beta) + (1 - v) * math.log(posterior_variance))
    x0_pred = (batch.x_t - math.sqrt(1 - a) * eps_pred) / math.sqrt(a)
    truth = Normal(reverse_mean(batch.x0), math.sqrt(posterior_variance))
    expected = kl_divergence(truth, Normal(reverse_mean(x0_pred), variance.sqrt())).mean() / math.log(2)

    bound = variational_bound(eps_pred, interpolation, batch, SCHEDULE, 16)
    assert float(bound) == pytest.approx(float(expected), rel=1e-6)


def test_last_step_gives_each_pixel_value_its_probability() -> None:
    """Over all 17 values of a pixel the probabilities 2^(−L_0) add up to 1."""
    values = torch.arange(17, dtype=torch.float64).reshape(17, 1, 1, 1) / 8 - 1
    x_t = torch.full_like(values, 0.3)  # the same observation, whatever the pixel was
    batch = NoisyBatch(values, torch.zeros(17, dtype=torch.long), torch.zeros_like(values), x_t)
    bits = variational_bound(torch.full_like(values, 0.5), torch.ones_like(values), batch, SCHEDULE, 16)
    assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=1e-9)


def test_true_noise_and_posterior_variance_reach_zero() -> None:
    batch = batch_of([10, 30])
    bound = variational_bound(batch.noise, torch.full_like(batch.noise, -1), batch, SCHEDULE, 16)
    torch.testing.assert_close(bound, torch.zeros_like(bound), atol=1e-9, rtol=0)


def test_hybrid_loss_adds_the_weighted_bound_and_leaves_the_noise_prediction_alone() -> None:
    batch = batch_of([0, 5, 40])
    output = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    eps_pred, interpolation = output.chunk(2, dim=1)
    simple = diffusion_loss(eps_pred, batch, SCHEDULE, 16)
    hybrid = diffusion_loss(output, batch, SCHEDULE, 16)

    bound = variational_bound(eps_pred, interpolation, batch, SCHEDULE, 16).mean()
    assert (hybrid - simple).item() == pytest.approx(0.001 * 50 * bound.item())
    (of_simple,) = torch.autograd.grad(simple, output)
    (of_hybrid,) = torch.autograd.grad(hybrid, output)
    torch.testing.assert_close(of_hybrid[:, :1], of_simple[:, :1])
    assert of_hybrid[:, 1:].abs().min() > 0
