"""The checks after Carlini et al.: passed by an honest evaluation, and each failed by the numbers that it is for."""

from types import SimpleNamespace

import pytest
import torch
from linear_truth import linear_classifier
from torch import nn

from pag.evaluation import sanity
from pag.evaluation.sanity import sanity_checks

IMAGES = 0.5 + 0.1 * torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(0))
MONOTONE, LARGE, SQUARE, STEPS = range(4)


def results(model: nn.Module, radii: dict) -> list[bool]:
    labels = model(IMAGES).argmax(1)
    checks = sanity_checks(model, IMAGES, labels, radii, batch_size=8, seed=0)
    assert all(check.name and check.detail for check in checks)
    return [check.passed for check in checks]


def test_a_linear_classifier_passes_all() -> None:
    assert results(linear_classifier(4, 100), {"L2": [2.0, 1.0]}) == [True] * 4
    assert results(linear_classifier(3, 100), {"Linf": [0.2]}) == [True] * 4


class Rounding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear_classifier(4, 100)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear((100 * images).round() / 100)


def test_masked_gradients_fail_where_square_sees_more() -> None:
    passed = results(Rounding(), {"Linf": [0.2]})
    assert not passed[SQUARE]


HONEST = {("apgd-ce", "apgd-t"): 0.4, ("apgd-ce",): 0.5, ("apgd-t",): 0.45, ("fab-t",): 0.45, ("square",): 0.6}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, None),
        ({(0.2, "apgd-ce+apgd-t", 100): 0.52}, MONOTONE),
        ({(0.5, "apgd-ce+apgd-t", 100): 0.1}, LARGE),
        ({(0.2, "fab-t", 100): 0.61}, SQUARE),
        ({(0.2, "apgd-ce", 100): 0.61}, SQUARE),
        ({(0.2, "apgd-ce+apgd-t", 200): 0.39}, STEPS),
        ({(0.2, "apgd-ce+apgd-t", 200): 0.397}, None),
    ],
)
def test_each_check_fails_by_its_own_number(
    monkeypatch: pytest.MonkeyPatch, changes: dict[tuple[float, str, int], float], failed: int | None
) -> None:
    def fake(model, images, labels, radii, *, attack, **options):
        ((norm, (eps,)),) = radii.items()
        honest = 0.0 if eps == 0.5 else 0.5 if eps == 0.1 else HONEST[attack.attacks]
        value = changes.get((eps, "+".join(attack.attacks), attack.steps), honest)
        return SimpleNamespace(robust_accuracy={norm: {eps: value}})

    monkeypatch.setattr(sanity, "evaluate", fake)
    expected = [True] * 4
    if failed is not None:
        expected[failed] = False
    if failed == MONOTONE:
        expected[STEPS] = False  # of another accuracy after 100 steps
    assert results(linear_classifier(4, 100), {"Linf": [0.2, 0.1]}) == expected


def test_images_go_where_the_model_is_and_there_one_process_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fake(model, images, labels, radii, *, processes, budget, **options):
        seen.append((images.device.type, labels.device.type, processes))
        found = {norm: SimpleNamespace(eps=values, robust_accuracy=lambda eps: 0.0) for norm, values in radii.items()}
        return SimpleNamespace(by_norm=found, warnings=[], notes=[])

    monkeypatch.setattr("pag.evaluation.evaluate.evaluate_autoattack", fake)
    labels = torch.zeros(len(IMAGES), dtype=torch.long)
    model = linear_classifier(4, 100).to("meta")  # as a GPU, which these images are not on
    assert len(sanity_checks(model, IMAGES, labels, {"Linf": [0.1]}, batch_size=8, seed=0, processes=2)) == 4
    assert set(seen) == {("meta", "meta", 1)}
