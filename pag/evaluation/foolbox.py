"""The Foolbox attacks of the paper's Table 6 (Rauber et al., 2020), each measured in its own distance.

All seven look for a small perturbation, and all are run without a radius (``epsilons=None``): given one, three of them
raise because they have no distance of their own and L0FMN because Foolbox cannot shrink to an L0 ball. The
distance is measured here, on examples that we have checked, and an image counts as robust at the radius `eps` if no
example within it was found. The paper states no radii.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import eagerpy as ep
import foolbox
import torch
from torch import Tensor, nn

from pag.evaluation.admission import admit, checked
from pag.evaluation.autoattack import frozen
from pag.evaluation.cache import Cache
from pag.foundation.config.section import ConfigError, is_number, nearest
from pag.foundation.processes import shared_out
from pag.foundation.seeding import derive_seed, own_random_state

Distance = Literal["L0", "L1", "L2"]
_ORDER = {"L0": 0, "L1": 1, "L2": 2}


class L0FMN(foolbox.attacks.L0FMNAttack):
    """Foolbox's, which ends in an IndexError where the radius has grown to all values of an image."""

    def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: ep.Tensor) -> ep.Tensor:
        return super().project(x, x0, ep.minimum(epsilon, math.prod(x.shape[1:]) - 1))


# Name → the distance it is measured in and its constructor, with Foolbox's default budgets. Three attacks search along
# a path and have no distance of their own: L2 for them, as for salt-and-pepper noise. EAD is slow: 9 × 10,000 steps.
# Last, the arguments that are its budget, which a quick evaluation sets to its number of steps.
ATTACKS: dict[str, tuple[Distance, Callable[..., foolbox.Attack], tuple[str, ...]]] = {
    "SaltAndPepperNoiseAttack": ("L2", foolbox.attacks.SaltAndPepperNoiseAttack, ("steps",)),
    "BinarySearchContrastReductionAttack": (
        "L2",
        foolbox.attacks.BinarySearchContrastReductionAttack,
        ("binary_search_steps",),
    ),
    "GaussianBlurAttack": ("L2", partial(foolbox.attacks.GaussianBlurAttack, channel_axis=1), ("steps",)),
    "LinearSearchBlendedUniformNoiseAttack": (
        "L2",
        foolbox.attacks.LinearSearchBlendedUniformNoiseAttack,
        ("steps", "directions"),
    ),
    "L0FMNAttack": ("L0", L0FMN, ("steps",)),
    "L1FMNAttack": ("L1", foolbox.attacks.L1FMNAttack, ("steps",)),
    "EADAttack": ("L1", foolbox.attacks.EADAttack, ("steps", "binary_search_steps")),
}


@dataclass(frozen=True)
class FoolboxResult:
    """One attack on all images."""

    distance_name: Distance  # L0 counts the changed pixels of all channels
    distances: Tensor  # (N,) of the example found; 0 if misclassified as it is, inf if none was found
    eps: float | None  # None: any example counts
    warnings: list[str]

    @property
    def clean_accuracy(self) -> float:
        """Of exactly these images, without any attack."""
        return (self.distances > 0).double().mean().item()

    @property
    def accuracy(self) -> float:
        """The fraction of images for which the attack found no example within eps."""
        limit = torch.inf if self.eps is None else self.eps
        return 1 - (self.distances.isfinite() & (self.distances <= limit)).double().mean().item()

    @property
    def median_distance(self) -> float | None:
        """The median over all images; None where more than half of them have no example."""
        median = self.distances.median().item()
        return None if median == float("inf") else median


def evaluate_foolbox(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, float | None],
    *,
    batch_size: int,
    seed: int,
    cache: Path | None = None,
    quick_steps: int | None = None,
) -> dict[str, FoolboxResult]:
    """Run each named attack on images (N, C, H, W) in [0, 1]. attacks: name → eps in the attack's distance, or None.

    cache: a scratch folder that keeps finished batches, from which an interrupted evaluation of the same weights,
    images and seed resumes. quick_steps: of each attack, in place of Foolbox's default budgets.
    Raises what `checked_attacks` does, and ValueError in one line for images, labels or a model with which the result
    would mean nothing.
    """
    attacks = checked_attacks(attacks)
    if not attacks:
        return {}
    images, labels = checked(images, labels)
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    results = {}
    with frozen(model):
        admitted = admit(model, images, labels, batch_size)
        model = admitted.model
        kept = Cache(cache, model, "foolbox") if cache is not None and not admitted.random else None
        for name, eps in attacks.items():
            run = partial(_outcome, model, name, quick_steps=quick_steps, kept=kept)
            seeds = [derive_seed(seed, "foolbox", name, number) for number in range(len(batches))]
            outcomes = shared_out([partial(run, *batch, each) for batch, each in zip(batches, seeds, strict=True)])
            found = [message for outcome in outcomes for message in outcome["warnings"]]
            messages = admitted.warnings + [re.sub(r" \(\d+ / \d+\)", "", message) for message in found]  # of a batch
            distances = torch.cat([outcome["distances"] for outcome in outcomes])
            results[name] = FoolboxResult(ATTACKS[name][0], distances, eps, list(dict.fromkeys(messages)))
    return results


def checked_attacks(attacks: Mapping[str, float | None]) -> dict[str, float | None]:
    """Attack → its radius, or None for the smallest example.

    Raises ConfigError for a name that is not in ATTACKS, with the nearest one, and ValueError for anything else.
    """
    if not isinstance(attacks, Mapping):
        raise ValueError(f'foolbox is {attacks!r}: expected attacks and their radii, as {{"GaussianBlurAttack": 2.0}}')
    for name, eps in attacks.items():
        if name not in ATTACKS:
            raise ConfigError(f"unknown Foolbox attack '{name}'{nearest(str(name), list(ATTACKS))}")
        number = is_number(eps) and 0 <= eps < torch.inf
        if eps is not None and not number:
            raise ValueError(f"the radius of {name} is {eps!r}: expected a number from 0 on, or None for any example")
    return dict(attacks)


def _outcome(
    model: nn.Module, name: str, images: Tensor, labels: Tensor, seed: int, quick_steps: int | None, kept: Cache | None
) -> Any:
    """Distances and warnings of one attack on one batch, from the scratch folder if they are there."""

    def attack() -> dict[str, Any]:
        with own_random_state(images.device), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.manual_seed(seed)
            distances = _distances(model, name, images, labels, quick_steps)
        return {"distances": distances, "warnings": [str(warning.message) for warning in caught]}

    if kept is None:
        return attack()
    about = {"attack": name, "images": images, "labels": labels, "seed": seed, "quick_steps": quick_steps}
    return kept.outcome(about, images, attack)


def _distances(model: nn.Module, attack: str, images: Tensor, labels: Tensor, quick_steps: int | None) -> Tensor:
    """How far the attack's examples lie, (B,); inf where the returned image is not misclassified after clamping."""
    name, make, budget = ATTACKS[attack]
    target = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    given = {} if quick_steps is None else dict.fromkeys(budget, quick_steps)
    with torch.enable_grad():  # whatever the caller does without
        returned, _, _ = make(**given)(target, images, labels, epsilons=None)
    examples = returned.clamp(0, 1)  # they leave the range by rounding; what is measured and classified is inside it
    with torch.no_grad():
        misclassified = model(images).argmax(dim=1) != labels
        found = model(examples).argmax(dim=1) != labels
    distance = torch.linalg.vector_norm((examples - images).flatten(1), ord=_ORDER[name], dim=1)
    return torch.where(misclassified, 0.0, torch.where(found, distance, torch.inf))
