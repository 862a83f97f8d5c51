"""The alignment measure on classifiers whose gradients are known."""

import pytest
import torch
from torch import nn

from pag.classifiers import build
from pag.classifiers.input_gradients import cosine, input_gradients
from pag.evaluation.alignment import gradient_alignment, gradients_by_class
from pag.foundation.config.section import GradientOf


def linear(weights: torch.Tensor) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights.shape[1], len(weights), bias=False))
    model[1].weight.data = weights
    return model


def test_a_linear_classifier_is_aligned_with_its_own_weights() -> None:
    weights = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 3.0, 1.0], [2.0, 0.0, 1.0, 1.0]])
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    directions = weights.view(1, 3, 1, 2, 2).expand(5, -1, -1, -1, -1)
    assert torch.allclose(gradient_alignment(linear(weights), images, directions, "logit"), torch.ones(5))
    assert torch.allclose(gradient_alignment(linear(weights), images, -3 * directions, "logit"), -torch.ones(5))


def test_two_classes_pull_in_opposite_directions() -> None:
    """∇ log p_0 = p_1 (w_0 − w_1) and ∇ log p_1 = −p_0 (w_0 − w_1): against w_0 − w_1 the cosines cancel."""
    weights = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    images = torch.rand(4, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    direction = (weights[0] - weights[1]).view(1, 1, 1, 1, 2).expand(4, 2, -1, -1, -1)
    assert torch.allclose(gradient_alignment(linear(weights), images, direction), torch.zeros(4), atol=1e-6)


@pytest.mark.parametrize("gradient_of", ["log_softmax", "logit"])
def test_class_by_class_gives_what_the_objective_differentiates(gradient_of: GradientOf) -> None:
    """The same gradients as all classes at once, but no graph: what an earlier class needed is freed."""
    model = build("cnn", 10, (1, 8, 8), seed=0).eval()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    classes = torch.arange(10).expand(3, -1)
    expected = input_gradients(model(images), images, classes, gradient_of).detach()
    found = list(gradients_by_class(model, images, 10, gradient_of))
    assert not any(v.requires_grad for v in found)
    assert torch.allclose(torch.stack(found, dim=1), expected, rtol=1e-4, atol=1e-7)
    directions = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    alignment = gradient_alignment(model, images, directions, gradient_of)
    assert torch.allclose(alignment, cosine(expected, directions).mean(1), atol=1e-5)


def test_the_measurement_leaves_no_gradient_behind() -> None:
    model = linear(torch.eye(2))
    gradient_alignment(model.train(), torch.rand(2, 1, 1, 2), torch.ones(2, 2, 1, 1, 2))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
