"""What each attack of AutoAttack is for: images that it alone breaks, and only with its full budget.

Every network here is a landscape made by hand: eleven constant logits, and one class whose logit rises with the image
and wins where `rise` exceeds 1. How it rises is what the other three attacks cannot follow. The judge is each official
attack run alone.
"""

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.standard import ATTACKS, is_broken
from pag.threat.threat_model import ThreatModel

SIDE, CLASSES, EPS = 15, 12, 0.1
IMAGE = torch.full((1, 1, SIDE, SIDE), 0.5)
LABEL = torch.tensor([0])
SIGNS = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)).sign()


class Landscape(nn.Module):
    """Logits 0, −1, −2, ...; the `rank`-th largest of them climbs from its place and is 0 where the rise is 1."""

    def __init__(self, rise: nn.Module, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.rise, self.rank, self.scale = rise, rank, scale

    def forward(self, images: Tensor) -> Tensor:
        place = torch.arange(CLASSES)
        climb = (place == self.rank - 1) * (self.rank - 1) * self.rise(images - IMAGE)[:, None]
        return self.scale * (climb - place)


class Chain(nn.Module):
    """Counts the first pixels that moved the right way, and has a slope for the next one alone: a step for each."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, delta: Tensor) -> Tensor:
        right_way = (delta * SIGNS).flatten(1) / EPS
        done = (right_way > 0).int().cumprod(1).sum(1, keepdim=True)
        following = right_way.gather(1, done.clamp(max=SIDE**2 - 1))[:, 0]
        return (done[:, 0] + 0.5 + 0.5 * following) / self.length


class Tube(nn.Module):
    """Rises along a narrow tube that starts at the image and ends at a cliff, and is flat outside."""

    def forward(self, delta: Tensor) -> Tensor:
        direction = SIGNS / SIDE
        along = (delta * direction).sum((1, 2, 3))
        aside = torch.linalg.vector_norm((delta - along.view(-1, 1, 1, 1) * direction).flatten(1), dim=1)
        height = torch.where(along > 0.985 * EPS, 2.0, along / EPS)
        return torch.where(aside < 0.1 * EPS, height, 0.0)


class LongGradient(nn.Module):
    """A gradient too long by a factor: APGD normalises it, FAB believes that the boundary is near."""

    def __init__(self, rise: nn.Module, factor: float) -> None:
        super().__init__()
        self.rise, self.factor = rise, factor

    def forward(self, delta: Tensor) -> Tensor:
        height = self.rise(delta)
        return height.detach() + self.factor * (height - height.detach())


class Staircase(nn.Module):
    """Linear in steps so fine that a search sees a slope; the gradient is zero."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end  # of the way to the corner of a Linf ball

    def forward(self, delta: Tensor) -> Tensor:
        steps = (1000 * delta / EPS).round()
        return (steps * SIGNS).mean((1, 2, 3)) / (1000 * self.end)


# Attack → the landscape, its norm, and budgets that are just not enough.
CASES = {
    # The eleventh class: both targeted attacks stop at the tenth, and Square's margin to the second does not move.
    "apgd-ce": (Landscape(Chain(130), 11), "Linf", [{"n_iter": 90}]),
    # The tenth class is the ninth target; with logits so far apart the cross-entropy has no gradient at all.
    "apgd-t": (
        Landscape(LongGradient(Chain(178), 1000), 10, 20.0),
        "Linf",
        [{"n_target_classes": 8}, {"n_iter": 90}],
    ),
    # The others start beside the tube, or leave it with their first step; the way along it is long.
    "fab-t": (
        Landscape(LongGradient(Tube(), 20), 10),
        "L2",
        [{"n_target_classes": 8}, {"n_iter": 70}],
    ),
    # No gradient; single pixels are tried after 4,000 queries.
    "square": (Landscape(Staircase(0.79), 2), "Linf", [{"n_queries": 4500}]),
}


def official(name: str, attack: str, **fewer: int) -> bool:
    """Whether an official attack, run alone, breaks the landscape of `name`; `fewer` changes its budget."""
    model, norm, _ = CASES[name]
    judge = pyautoattack.AutoAttack(model, norm=norm, eps=EPS, seed=0, version="standard")
    judge.attacks_to_run = [attack]
    parts = dict(zip(ATTACKS, (judge.apgd, judge.apgd_targeted, judge.fab, judge.square), strict=True))
    for budget, value in fewer.items():
        assert getattr(parts[attack], budget) > value
        setattr(parts[attack], budget, value)
    with torch.random.fork_rng():
        x_adv, _ = judge.run_standard_evaluation(IMAGE, LABEL, batch_size=1)
        return is_broken(model, ThreatModel(norm, EPS), IMAGE, LABEL, x_adv).item()


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_breaks_what_it_alone_breaks(name: str) -> None:
    model, norm, _ = CASES[name]
    result = evaluate_autoattack(model, IMAGE, LABEL, {norm: [EPS]}, batch_size=1, seed=0).by_norm[norm]
    assert result.broken_by == [name]
    later = ATTACKS[ATTACKS.index(name) :]  # the earlier ones have just failed
    assert [attack for attack in later if official(name, attack)] == [name]


@pytest.mark.parametrize(("name", "fewer"), [(name, fewer) for name, case in CASES.items() for fewer in case[2]])
def test_less_than_the_full_budget_would_not_break_it(name: str, fewer: dict[str, int]) -> None:
    assert not official(name, name, **fewer)
