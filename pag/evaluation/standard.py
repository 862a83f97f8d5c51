"""The four attacks of AutoAttack's standard version (Croce and Hein, 2020) on one batch of images at one radius.

The attacks, their order and their budgets are those of `pyautoattack.AutoAttack(version="standard")`: APGD-CE,
targeted APGD on the DLR loss, targeted FAB (100 iterations each, 9 target classes), Square (5,000 queries). The loop
over them is ours, for three reasons: an image counts as broken only after our own check of the returned example; it is
known which attack broke it; and what FAB found is kept. FAB minimises the perturbation without being told the radius,
which only decides afterwards whether its example counts, and it draws no random numbers here. So it runs once per norm,
at the smallest radius, and its distances answer for every larger one.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pyautoattack import AutoAttack, checks
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from pag.foundation.seeding import own_random_state
from pag.threat.pgd import Model
from pag.threat.threat_model import ThreatModel

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
SURVIVED = -1  # in place of an index into ATTACKS
DLR_CLASSES = 4  # the targeted DLR loss divides by a difference of the four largest logits
TARGET_CLASSES = 9  # of the standard version

# Rounding of float32 in an attack's projection: how far beyond the radius an example may lie, relative to it.
TOLERANCE = 1e-5
ROUNDING = 1e-7  # and of x + delta for pixels near 1, whatever the radius

_logger = logging.getLogger("auto-attack")


@dataclass(frozen=True)
class Nearest:
    """The closest adversarial example that FAB-T found for each image, at any distance; inf where it found none."""

    x_adv: Tensor  # (B, C, H, W)
    distance: Tensor  # (B,)


@dataclass(frozen=True)
class Budget:
    """Which attacks an image meets, and how long. The default is AutoAttack's standard version."""

    attacks: tuple[str, ...] = ATTACKS
    steps: int = 100  # of APGD; FAB has 100
    target_classes: int = TARGET_CLASSES
    short_foolbox: bool = False  # Foolbox takes `steps` too, in place of its own budgets; of quick() alone

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError(f"attacks are empty: expected some of {', '.join(ATTACKS)}")
        if unknown := [name for name in self.attacks if name not in ATTACKS]:
            raise ValueError(f"attacks have {unknown[0]!r}: expected some of {', '.join(ATTACKS)}")
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError(f"attacks are {', '.join(self.attacks)}: expected each once")
        if self.steps < 1 or self.target_classes < 1:
            raise ValueError(f"{self.steps} steps, {self.target_classes} target classes: expected at least 1 of each")

    @property
    def note(self) -> str | None:
        """How it departs from the standard version; None where it does not."""
        if self == Budget():
            return None
        names = " and ".join(name.upper() for name in self.attacks)
        return f"quick attack: {names} alone, {self.steps} steps, {self.target_classes} target classes"


def quick(steps: int | None = None, target_classes: int | None = None) -> Budget:
    """For choosing values and for smoke tests; its numbers are no results. None: 20 steps, 9 target classes."""
    steps = 20 if steps is None else steps
    target_classes = TARGET_CLASSES if target_classes is None else target_classes
    return Budget(("apgd-ce", "apgd-t"), steps, target_classes, short_foolbox=True)


@dataclass(frozen=True)
class Job:
    """Correctly classified images to attack at one radius."""

    threat_model: ThreatModel
    images: Tensor  # (B, C, H, W) in [0, 1]
    labels: Tensor  # (B,)
    num_classes: int
    seed: int
    attacks: tuple[str, ...]  # of ATTACKS, in this order; without FAB-T if it has attacked them at a smaller radius
    budget: Budget


@dataclass(frozen=True)
class Outcome:
    """What became of a job's images. Every example counted here lies in the ball and in [0, 1] and is misclassified."""

    broken_by: Tensor  # (B,) index into ATTACKS, or SURVIVED
    x_adv: Tensor  # (B, C, H, W): the example; the image itself where it survived
    nearest: Nearest | None  # complete for the survivors; None without FAB-T
    warnings: list[str]


def attack(model: Model, job: Job) -> Outcome:
    """Run the attacks one after the other, each on the images that the earlier ones left."""
    images, labels = job.images, job.labels
    broken_by = torch.full_like(labels, SURVIVED)
    x_adv = images.clone()
    nearest = Nearest(images.clone(), torch.full(labels.shape, torch.inf, device=images.device))
    with torch.no_grad(), own_random_state(images.device), collected_flags() as warnings:
        for name, run in _attacks(model, job, nearest).items():
            subset = (broken_by == SURVIVED).nonzero().flatten()
            if len(subset) == 0:
                break
            examples = run(subset)
            confirmed = is_broken(model, job.threat_model, images[subset], labels[subset], examples)
            broken_by[subset[confirmed]] = ATTACKS.index(name)
            x_adv[subset[confirmed]] = examples[confirmed]
    return Outcome(broken_by, x_adv, nearest if "fab-t" in job.attacks else None, _summary(warnings))


def is_broken(model: Model, threat_model: ThreatModel, images: Tensor, labels: Tensor, x_adv: Tensor) -> Tensor:
    """Our own check of returned examples, (B,) bool: inside the ball, inside [0, 1], and misclassified."""
    inside_ball = threat_model.distance(x_adv - images) <= threat_model.eps * (1 + TOLERANCE) + ROUNDING
    inside_range = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)
    return inside_ball & inside_range & (model(x_adv).argmax(dim=1) != labels)


def reliability_flags(model: Model, images: Tensor, labels: Tensor) -> list[str]:
    """AutoAttack's checks of the defence: randomness, probabilities in place of logits, optimisation at inference."""
    tracer = sys.gettrace()  # the last check installs its own, which would end a debugger's or a coverage run
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # counters of the process, never reset by the library
    with own_random_state(images.device), collected_flags() as warnings:
        try:
            checks.check_randomized(model, images, labels, bs=len(images), logger=_logger)
            checks.check_range_output(model, images, logger=_logger)
            checks.check_dynamic(model, images, logger=_logger)
        finally:
            sys.settrace(tracer)
    return _summary(warnings)


def square_flag(accuracy_before: float, accuracy_after: float) -> list[str]:
    """AutoAttack's check that Square, which sees no gradients, gains at most 0.2 % over the gradient attacks."""
    with collected_flags() as warnings:
        checks.check_square_sr(
            {"clean": 1.0, "gradient attacks": accuracy_before, "square": accuracy_after}, logger=_logger
        )
    return _summary(warnings)


def require_attacks(budget: Budget, num_classes: int) -> None:
    """Refuse a budget of which no attack can run on so few classes: nothing would break an image."""
    if set(budget.attacks) == {"apgd-t"} and num_classes < DLR_CLASSES:
        raise ValueError(f"attacks are apgd-t alone, which needs {DLR_CLASSES} classes: the model has {num_classes}")


def class_count_notes(num_classes: int) -> list[str]:
    """How the attacks differ from the standard version on a data set of fewer than ten classes."""
    notes = []
    if num_classes <= TARGET_CLASSES:
        notes.append(f"{num_classes} classes: {num_classes - 1} target classes per image instead of {TARGET_CLASSES}")
    if num_classes < DLR_CLASSES:
        notes.append(f"{num_classes} classes: no APGD-T, its DLR loss needs {DLR_CLASSES}")
    return notes


def _attacks(model: Model, job: Job, nearest: Nearest) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name → function from the indices (S,) of a job's images to examples (S, C, H, W), in the standard order."""
    threat_model = job.threat_model
    standard = AutoAttack(
        model, norm=threat_model.norm, eps=threat_model.eps, seed=job.seed, device=job.images.device, version="standard"
    )
    target_classes = min(job.budget.target_classes, job.num_classes - 1)
    standard.apgd_targeted.n_target_classes = standard.fab.n_target_classes = target_classes
    if job.budget.steps != Budget().steps:  # the standard version's are its own
        _shorten(standard, job.budget.steps)
    runs: dict[str, Callable[[Tensor], Tensor]] = {
        "apgd-ce": lambda subset: standard.apgd.perturb(job.images[subset], job.labels[subset]),
        "apgd-t": lambda subset: standard.apgd_targeted.perturb(job.images[subset], job.labels[subset]),
        "fab-t": lambda subset: _fab(model, standard.fab, job, nearest, subset),
        "square": lambda subset: _square(standard.square, job, subset),
    }
    assert tuple(standard.attacks_to_run) == ATTACKS == tuple(runs)
    applicable = [name for name in job.attacks if name != "apgd-t" or job.num_classes >= DLR_CLASSES]
    return {name: runs[name] for name in applicable}


def _shorten(standard: AutoAttack, steps: int) -> None:
    """Give APGD `steps` iterations, and its checkpoints in the same proportion (Croce and Hein, 2020, section 3)."""
    for apgd in (standard.apgd, standard.apgd_targeted):
        apgd.n_iter = steps
        apgd.n_iter_2, apgd.n_iter_min, apgd.size_decr = (max(int(part * steps), 1) for part in (0.22, 0.06, 0.03))


def _fab(model: Model, fab: FABAttack_PT, job: Job, nearest: Nearest, subset: Tensor) -> Tensor:
    """FAB-T on `subset`, one target class after the other until the image is broken; fills in `nearest`."""
    for rank in range(2, fab.n_target_classes + 2):  # the rank-th largest logit is the target; the largest is the label
        left = subset[nearest.distance[subset] > job.threat_model.eps]
        if len(left) == 0:
            break
        fab.target_class = rank
        images, labels = job.images[left], job.labels[left]
        examples = fab.attack_single_run(images, labels, is_targeted=True)
        distance = job.threat_model.distance(examples - images)
        # Where it fails, FAB returns the image itself, which is classified correctly.
        closer = (model(examples).argmax(dim=1) != labels) & (distance < nearest.distance[left])
        nearest.x_adv[left[closer]] = examples[closer]
        nearest.distance[left[closer]] = distance[closer]
    return nearest.x_adv[subset]


def _square(square: SquareAttack, job: Job, subset: Tensor) -> Tensor:
    """Square needs no gradients: in inference mode its 5,000 small steps cost about a tenth less."""
    with torch.inference_mode():
        examples = square.perturb(job.images[subset], job.labels[subset])
    return examples.clone()


@contextmanager
def collected_flags() -> Iterator[list[str]]:
    """Collect AutoAttack's warnings, which it logs, instead of letting them scroll by."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    propagate, _logger.propagate = _logger.propagate, False
    _logger.addHandler(handler)
    try:
        yield messages
    finally:
        _logger.removeHandler(handler)
        _logger.propagate = propagate


# what AutoAttack asks of its own callers → what ours can do
_ADVICE = {
    'Please use version="rand".': "Its accuracies are of single passes, which flatters it: attack the mean of its "
    "logits over many passes, as a function of the images",
    "please be sure that the logits are used!": "whose gradient vanishes where the model is sure: return the logits",
}


def _summary(messages: list[str]) -> list[str]:
    """Each kind of warning once: without the pointer to the library's file and without the number of images."""
    kinds = [re.sub(r"there are \d+ points", "there are points", text.split(" See ")[0]) for text in messages]
    for theirs, ours in _ADVICE.items():
        kinds = [text.replace(theirs, ours) for text in kinds]
    return list(dict.fromkeys(kinds))
