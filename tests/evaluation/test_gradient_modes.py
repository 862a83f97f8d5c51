"""The caller's gradients: weights keep theirs, and what the caller does without is computed or refused at once."""

from functools import partial

import pytest
import torch
from linear_truth import linear_classifier
from torch import Tensor, nn

import pag
from pag.evaluation.evaluate import Evaluation
from pag.evaluation.standard import Budget

IMAGES = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
DIRECTIONS = torch.randn(6, 4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = linear_classifier(4, 36)(IMAGES).argmax(1)


def evaluated(model, images: Tensor = IMAGES, labels: Tensor = LABELS) -> Evaluation:
    asked = {"foolbox": {"L1FMNAttack": None, "EADAttack": None}, "directions": (IMAGES, DIRECTIONS)}
    short = Budget(("apgd-ce", "fab-t"), 5, short_foolbox=True)
    return pag.evaluate(model, images, labels, {"L2": [0.001]}, attack=short, **asked)


def called(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


@pytest.mark.usefixtures("few_iterations")
@pytest.mark.parametrize(
    "wrap", [lambda net: lambda x: net(x).clone(), lambda net: net.forward, lambda net: partial(called, net)]
)
def test_a_function_of_a_network_leaves_no_gradient_in_its_weights(wrap) -> None:
    network = linear_classifier(4, 36).eval()
    network[1].bias.requires_grad_(False)
    evaluated(wrap(network))
    pag.measure_alignment(wrap(network), IMAGES, DIRECTIONS)
    assert network[1].weight.grad is None
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False]


@pytest.mark.usefixtures("few_iterations")
def test_without_gradients_around_it_the_numbers_are_the_same() -> None:
    model = linear_classifier(4, 36).eval()
    expected, alignment = evaluated(model), pag.measure_alignment(model, IMAGES, DIRECTIONS)
    with torch.no_grad():
        found = evaluated(model)
        assert pag.measure_alignment(model, IMAGES, DIRECTIONS) == alignment == found.alignment
        assert not torch.is_grad_enabled()
    assert torch.equal(found.by_norm["L2"].radius, expected.by_norm["L2"].radius)
    for name, result in expected.foolbox.items():
        assert torch.equal(found.foolbox[name].distances, result.distances)


def test_inference_mode_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_classifier(4, 36).eval()
    with torch.inference_mode():
        images, labels, made = IMAGES.clone(), LABELS.clone(), linear_classifier(4, 36).eval()
    monkeypatch.setattr("pag.evaluation.workers.attack", lambda *_: pytest.fail("attacked before it was looked at"))
    refused = pytest.raises(ValueError, match=r"^torch.inference_mode\(\) computes no gradients.*$")
    for given in [(model, images), (model, IMAGES, labels), (made,), (made.forward,)]:
        with refused:
            evaluated(*given)
    with refused, torch.inference_mode():
        evaluated(model)
    with refused, torch.inference_mode():
        pag.measure_alignment(model, IMAGES, DIRECTIONS)
    with refused:
        pag.measure_alignment(made, IMAGES, DIRECTIONS)
