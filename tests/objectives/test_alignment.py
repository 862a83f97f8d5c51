"""The objective against float64 finite differences and against the paper's recipe written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pag.classifiers.input_gradients import cosine, input_gradients
from pag.objectives.alignment.objective import Alignment, alignment_loss
from pag.training.batch import Batch

NUM_CLASSES = 4


def small_network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, NUM_CLASSES)).double()


def random_batch(k: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.rand(3, 1, 4, 4, generator=g, dtype=torch.float64),
        labels=torch.tensor([0, 3, 1]),
        seed=0,
        target_classes=torch.stack([torch.randperm(NUM_CLASSES, generator=g)[:k] for _ in range(3)]),
        class_gradients=torch.randint(-127, 128, (3, k, 1, 4, 4), generator=g, dtype=torch.int8),
    )


def recipe(model: nn.Module, batch: Batch, weight: float, gradient_of: str) -> torch.Tensor:
    """Eq. 4 one image and one class at a time, with its own forward, input gradients by finite differences."""
    total = torch.zeros((), dtype=torch.float64)
    k = batch.target_classes.shape[1]
    for image, label, classes, directions in zip(
        batch.images, batch.labels, batch.target_classes, batch.class_gradients, strict=True
    ):
        total = total + F.cross_entropy(model(image[None]), label[None])
        for y, direction in zip(classes, directions.double(), strict=True):
            gradient = torch.zeros_like(image).flatten()
            for pixel in range(image.numel()):
                step = torch.zeros_like(image).flatten()
                step[pixel] = 1e-5
                step = step.view_as(image)
                difference = score(model, image + step, y, gradient_of) - score(model, image - step, y, gradient_of)
                gradient[pixel] = difference / 2e-5
            cos = gradient @ direction.flatten() / (gradient.norm() * direction.norm())
            total = total + weight * NUM_CLASSES / k * (1 - cos)
    return total / len(batch.images)


def score(model: nn.Module, image: torch.Tensor, y: torch.Tensor, gradient_of: str) -> torch.Tensor:
    logits = model(image[None])[0]
    return (logits.log_softmax(0) if gradient_of == "log_softmax" else logits)[y]


@pytest.mark.parametrize("gradient_of", ["log_softmax", "logit"])
@pytest.mark.parametrize("k", [1, 2, NUM_CLASSES])
def test_loss_equals_the_recipe_with_finite_difference_gradients(k: int, gradient_of: str) -> None:
    model, batch = small_network(), random_batch(k)
    terms = Alignment(0.7, gradient_of)(model, batch)
    with torch.no_grad():
        expected = recipe(model, batch, 0.7, gradient_of)
    assert torch.allclose(sum(terms.values()), expected, atol=1e-8)
    given = batch.images, batch.labels, batch.target_classes, batch.class_gradients
    own_loop = alignment_loss(model, *given, weight=0.7, gradient_of=gradient_of)
    assert torch.allclose(sum(own_loop.values()), expected, atol=1e-8)


@pytest.mark.parametrize("k", [1, NUM_CLASSES])
def test_parameter_gradient_equals_finite_differences(k: int) -> None:
    model, batch, objective = small_network(), random_batch(k), Alignment(0.7)
    sum(objective(model, batch).values()).backward()
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for index in range(0, flat.numel(), 5):
            losses = []
            for sign in (1, -1):
                flat[index] += sign * 1e-6
                losses.append(sum(objective(model, batch).values()).item())
                flat[index] -= sign * 1e-6
            assert parameter.grad.view(-1)[index].item() == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-7)


def test_random_classes_estimate_the_full_sum_without_bias() -> None:
    model, full = small_network(), random_batch(NUM_CLASSES)
    objective = Alignment(1.0)
    whole = objective(model, full)["alignment"]
    single = [
        objective(
            model,
            Batch(full.images, full.labels, 0, full.target_classes[:, [j]], full.class_gradients[:, [j]]),
        )["alignment"]
        for j in range(NUM_CLASSES)
    ]
    assert torch.allclose(torch.stack(single).mean(), whole)


def test_term_alone_is_the_term_of_the_objective() -> None:
    model, batch, objective = small_network(), random_batch(2), Alignment(0.3)
    assert torch.equal(objective.term(model, batch)["alignment"], objective(model, batch)["alignment"])


def test_linear_classifier_has_known_cosines() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    images = torch.zeros(1, 1, 1, 2, requires_grad=True)
    v = input_gradients(model(images), images, torch.tensor([[0, 1]]), "logit")
    assert torch.equal(v.flatten(2), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]))
    u = torch.tensor([1, 1], dtype=torch.int8).view(1, 1, 1, 1, 2).expand(1, 2, 1, 1, 2)
    assert torch.allclose(cosine(v, u), torch.full((1, 2), math.sqrt(0.5)))


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e15])
def test_cosine_does_not_see_the_scale(scale: float) -> None:
    g = torch.Generator().manual_seed(1)
    v, u = torch.randn(2, 3, 8, generator=g), torch.randn(2, 3, 8, generator=g)
    reference = F.cosine_similarity(v.double(), u.double(), dim=2)
    assert torch.allclose(cosine(v * scale, u).double(), reference, atol=1e-6)


def test_tiny_gradients_keep_their_direction() -> None:
    """Below the smallest normal number, with the few digits that are left there."""
    g = torch.Generator().manual_seed(1)
    v, u = torch.randn(2, 3, 8, generator=g), torch.randn(2, 3, 8, generator=g)
    reference = F.cosine_similarity(v.double(), u.double(), dim=2)
    assert torch.allclose(cosine(v, u * 1e-41).double(), reference, atol=1e-3)
    assert torch.allclose(cosine(v * 1e-41, u).double(), reference, atol=1e-3)


def test_zero_gradients_have_a_defined_loss_and_no_nan() -> None:
    v = torch.zeros(1, 2, 5, requires_grad=True)
    u = torch.ones(1, 2, 5)
    u[0, 1] = 0
    value = cosine(v, u)
    value.sum().backward()
    assert torch.equal(value, torch.zeros(1, 2))
    assert torch.equal(v.grad, torch.zeros_like(v))
    w = torch.ones(1, 1, 5, requires_grad=True)
    cosine(w, torch.zeros(1, 1, 5)).sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))


def test_saturated_network_still_aligns() -> None:
    """Where p(y|x) = 1 in float32 the log-softmax gradient is tiny, not absent."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[20.0, 0.0], [0.0, 20.0]])
    batch = Batch(
        images=torch.tensor([[[[1.0, 0.0]]]]),
        labels=torch.tensor([0]),
        seed=0,
        target_classes=torch.tensor([[0]]),
        class_gradients=torch.tensor([100, -100], dtype=torch.int8).view(1, 1, 1, 1, 2),
    )
    assert Alignment(1.0)(model, batch)["alignment"].item() == pytest.approx(0.0, abs=1e-6)
