"""Signs of an evaluation that flatters (Carlini et al., 2019, "On Evaluating Adversarial Robustness")."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from pag.evaluation.autoattack import frozen
from pag.evaluation.evaluate import device_of, evaluate
from pag.evaluation.standard import DLR_CLASSES, Budget
from pag.foundation.config.section import Norm

GRADIENT_ATTACKS = ("apgd-ce", "apgd-t")
TOLERANCE = 0.005  # half a point: what the attacks' random numbers may move


@dataclass(frozen=True)
class SanityCheck:
    name: str
    passed: bool
    detail: str  # the numbers that decided


def sanity_checks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Mapping[Norm, Sequence[float]],
    *,
    batch_size: int,
    seed: int,
    processes: int = 1,
    cache: Path | None = None,
) -> list[SanityCheck]:
    """Four checks per norm, each from runs of its own; the arguments are those of `evaluate`.

    They take about as long as an evaluation at three radii: give them some of the images.
    """

    def accuracy(norm: Norm, eps: float, attacks: tuple[str, ...], steps: int = 100) -> float:
        found = evaluate(
            model,
            images,
            labels,
            {norm: [eps]},
            batch_size=batch_size,
            seed=seed,
            processes=processes,
            cache=cache,
            attack=Budget(attacks, steps),
        )
        return found.robust_accuracy[norm][eps]

    with frozen(model), torch.no_grad():
        few_classes = model(images[:1].to(device_of(model, images))).shape[1] < DLR_CLASSES
    white_box = ("apgd-ce", "fab-t") if few_classes else ("apgd-ce", "apgd-t", "fab-t")
    return [
        check
        for norm, eps in radii.items()
        for check in _checks(norm, sorted(set(eps)), images.shape[1:], white_box, accuracy)
    ]


def _checks(
    norm: Norm, radii: list[float], shape: tuple[int, ...], white_box: tuple[str, ...], accuracy: Callable[..., float]
) -> Iterator[SanityCheck]:
    """shape: of an image, (C, H, W). accuracy: of (norm, eps, attacks, steps)."""
    by_radius = [accuracy(norm, eps, GRADIENT_ATTACKS) for eps in radii]
    rising = any(after > before + TOLERANCE for before, after in pairwise(by_radius))
    detail = ", ".join(f"{value:.1%} at {eps:g}" for eps, value in zip(radii, by_radius, strict=True))
    yield SanityCheck(f"{norm}: a larger radius never leaves more accuracy", not rising, detail)

    # From every image a grey one, which has one class only, lies within this radius.
    everything = 0.5 if norm == "Linf" else 0.5 * math.prod(shape) ** 0.5
    left = accuracy(norm, everything, GRADIENT_ATTACKS)
    yield SanityCheck(f"{norm}: a large radius breaks everything", left == 0, f"{left:.1%} at {everything:g}")

    eps, once = radii[len(radii) // 2], by_radius[len(radii) // 2]
    alone = {name: accuracy(norm, eps, (name,)) for name in (*white_box, "square")}
    weaker = any(alone[name] > alone["square"] + TOLERANCE for name in white_box)
    detail = ", ".join(f"{name} {value:.1%}" for name, value in alone.items()) + f" at {eps:g}"
    yield SanityCheck(f"{norm}: no white-box attack is weaker than Square alone", not weaker, detail)

    twice = accuracy(norm, eps, GRADIENT_ATTACKS, 200)
    detail = f"{once:.1%} after 100, {twice:.1%} after 200 at {eps:g}"
    yield SanityCheck(f"{norm}: twice the APGD steps change little", abs(once - twice) < TOLERANCE, detail)
