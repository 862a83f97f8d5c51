import math

import pytest
import torch

from pag.threat.threat_model import ThreatModel

SHAPES = [(64, 2), (16, 3, 4, 4)]
NORMS = ["L2", "Linf"]


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("L2", 0.0, "eps = 0.0 for L2"),
        ("L2", -1.0, "eps = -1.0 for L2"),
        ("Linf", 2.0, "and at most 1: no two images are farther apart"),
        ("l2", 0.5, "unknown norm 'l2', did you mean 'L2'?"),
    ],
)
def test_a_meaningless_ball_is_refused_in_one_line(norm, eps, message):
    with pytest.raises(ValueError, match=r"eps|norm") as error:
        ThreatModel(norm, eps)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_is_the_nearest_point_of_the_ball(norm, shape):
    threat_model = ThreatModel(norm, 0.5)
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    projected = threat_model.project(delta)
    assert (threat_model.distance(projected) <= 0.5 + 1e-12).all()
    # Nearest: delta - Π(delta) makes no acute angle with any direction from Π(delta) into the ball.
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = threat_model.random_start(shape, generator).double()
        assert (((delta - projected) * (other - projected)).flatten(1).sum(1) <= 1e-9).all()
    inside = projected * 0.9
    torch.testing.assert_close(threat_model.project(inside), inside)
    assert torch.equal(threat_model.project(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_random_start_lies_inside_the_ball(norm, shape):
    threat_model = ThreatModel(norm, 0.3)
    delta = threat_model.random_start(shape, torch.Generator().manual_seed(0))
    assert delta.shape == torch.Size(shape)
    assert (threat_model.distance(delta) <= 0.3 * (1 + 1e-6)).all()
    assert torch.equal(delta, threat_model.random_start(shape, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("norm", "dimension"), [("L2", 2), ("L2", 12), ("Linf", 2)])
def test_random_start_is_uniform_in_the_ball(norm, dimension):
    # Uniform in a ball of d dimensions: P(norm ≤ r·eps) = r^d for either norm, and no direction is preferred.
    threat_model = ThreatModel(norm, 2.0 if norm == "L2" else 0.5)
    delta = threat_model.random_start((20_000, dimension), torch.Generator().manual_seed(0))
    radius = threat_model.distance(delta) / threat_model.eps
    for quantile in (0.1, 0.5, 0.9):
        share = (radius <= quantile ** (1 / dimension)).double().mean().item()
        assert share == pytest.approx(quantile, abs=4 * math.sqrt(quantile * (1 - quantile) / 20_000))
    assert (delta.mean(0).abs() < 0.03 * threat_model.eps).all()
    covariance = torch.cov(delta.T)
    assert (covariance - covariance[0, 0] * torch.eye(dimension)).abs().max() < 0.03 * threat_model.eps**2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_step_is_the_steepest_direction_of_unit_norm(norm, shape):
    threat_model = ThreatModel(norm, 1.0)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    step = threat_model.step(gradient)
    torch.testing.assert_close(threat_model.distance(step), torch.ones(shape[0]))
    # Its gain is the dual norm of the gradient, which no perturbation of unit norm can exceed.
    dual = torch.linalg.vector_norm(gradient.flatten(1), ord=2 if norm == "L2" else 1, dim=1)
    torch.testing.assert_close((gradient * step).flatten(1).sum(1), dual)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-37])
def test_step_survives_gradients_whose_squares_underflow(norm, scale):
    step = ThreatModel(norm, 1.0).step(torch.full((1, 4), scale))
    torch.testing.assert_close(step, torch.full((1, 4), 0.5 if norm == "L2" else 1.0))


@pytest.mark.parametrize("norm", NORMS)
def test_step_of_a_zero_gradient_is_zero(norm):
    assert torch.equal(ThreatModel(norm, 1.0).step(torch.zeros(2, 3)), torch.zeros(2, 3))
