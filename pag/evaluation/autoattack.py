"""AutoAttack at several radii of several norms, sharing the work among the radii of one norm.

An example that is adversarial at a radius is adversarial at every larger one, so the radii are visited in ascending
order and an image that is broken is not attacked again; nor is FAB-T repeated (see standard.py). Every image
that is still unbroken meets all four attacks with their full budgets, so the robust accuracy at a radius is never
higher than that of a separate run there, up to the random numbers that the attacks draw.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pag.evaluation.admission import admit, checked, checked_radii
from pag.evaluation.cache import Cache
from pag.evaluation.standard import (
    ATTACKS,
    SURVIVED,
    Budget,
    Job,
    Nearest,
    Outcome,
    class_count_notes,
    is_broken,
    reliability_flags,
    require_attacks,
    square_flag,
)
from pag.evaluation.workers import runner
from pag.evaluation.wrapped import parameters_of
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.section import Norm
from pag.foundation.processes import is_first, shared_out
from pag.foundation.seeding import derive_seed
from pag.threat.threat_model import ThreatModel

STANDARD = Budget()
MISCLASSIFIED = "clean"  # what "broke" an image that is misclassified without any attack


@dataclass
class NormResult:
    """The attacked images under one norm."""

    eps: tuple[float, ...]  # the radii that were attacked, ascending
    radius: Tensor  # (N,) float64: the smallest of them that broke the image; 0 if misclassified as it is, inf if none
    broken_by: list[str]  # per image: a name of ATTACKS, MISCLASSIFIED, or "" where it survived
    x_adv: Tensor  # (N, C, H, W): the example at `radius`; the image itself where there is none

    def robust_accuracy(self, eps: float) -> float:
        """The fraction of images that no attack broke within `eps`: a radius that was attacked, or 0 for none."""
        if eps not in (0, *self.eps):
            raise ValueError(f"eps = {eps} was not attacked: expected one of {', '.join(map(str, self.eps))}")
        return (self.radius > eps).double().mean().item()


@dataclass
class AutoAttackResult:
    by_norm: dict[Norm, NormResult]
    warnings: list[str]  # AutoAttack's reliability flags, and what is doubtful about the model
    notes: list[str]  # departures from AutoAttack's standard version on few classes


def evaluate_autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Mapping[Norm, Sequence[float]],
    *,
    batch_size: int,
    seed: int,
    progress: Callable[[int, int, int], None] | None = None,
    cache: Path | None = None,
    processes: int = 1,
    budget: Budget = STANDARD,
) -> AutoAttackResult:
    """Attack `model` at every radius of every norm; it runs in eval mode with frozen parameters, both restored.

    images: (N, C, H, W) in [0, 1]; labels: (N,), on the model's device. radii: norm → radii.
    batch_size: images attacked at once.
    progress: called with (decided, all, decided and not broken) pairs of an image and a threat model.
    cache: a scratch folder; finished parts are kept there, and an evaluation of the same weights, images and settings
    resumes; of a random model, of which no two passes are alike, nothing is kept.
    processes: how many share the work on a CPU; with more than one, a script needs a main guard.
    budget: the attacks, standard or quick.
    Raises ValueError in one line for images, labels or a model with which the result would mean nothing.
    """
    images, labels = checked(images, labels)
    given = checked_radii(radii, images[0].numel())
    height, width = images.shape[2:]
    if "L2" in given and "square" in budget.attacks and not square_attack_fits(height, width):
        raise ValueError(
            f"images of {height}×{width} pixels: AutoAttack's Square attack under L2 cannot take them, use another "
            "size, for instance a multiple of 8 but 24, or L∞ alone"
        )
    threat_models = {norm: [ThreatModel(norm, eps) for eps in values] for norm, values in given.items()}

    with frozen(model):
        admitted = admit(model, images, labels, batch_size)
        model, flags = admitted.model, admitted.warnings
        logits = predict(model, images, batch_size)
        require_attacks(budget, logits.shape[1])
        flags = flags + reliability_flags(model, images[:batch_size], labels[:batch_size])
        campaigns = [_Campaign(models, images, labels, logits, seed, budget) for models in threat_models.values()]

        def tell() -> None:
            if progress is not None:
                progress(*(sum(getattr(each, of) for each in campaigns) for of in ("decided", "pairs", "held")))

        kept = None if admitted.random else cache
        if kept is not None and is_first():  # so that another model is refused before the first attack
            probe = {"images": images[:batch_size]}
            Cache(kept, model, "pyautoattack").outcome(probe, images[:batch_size], lambda: None)
        with runner(model, processes, kept) as run:
            for level in range(max(map(len, threat_models.values()))):
                active = [campaign for campaign in campaigns if level < len(campaign.threat_models)]
                for campaign in active:
                    campaign.count_known(model, level, batch_size)
                tell()
                parts = [part for campaign in active for part in campaign.parts(level, batch_size)]
                for index, outcome in run([part.job for part in parts]):
                    parts[index].campaign.record(parts[index], outcome)
                    tell()
    flags += [flag for campaign in campaigns for flag in campaign.flags()]
    by_norm = {norm: campaign.result for norm, campaign in zip(given, campaigns, strict=True)}
    return AutoAttackResult(by_norm, flags, class_count_notes(logits.shape[1]))


def predict(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """Logits (N, num_classes), without gradients."""
    with torch.no_grad():
        return torch.cat(shared_out([partial(model, batch) for batch in images.split(batch_size)]))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode and without gradients for its parameters; afterwards everything is as it was."""
    training = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in parameters_of(model)}
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, required in trainable.items():
            parameter.requires_grad_(required)


@dataclass(frozen=True)
class _Part:
    """One job and where its images come from."""

    campaign: "_Campaign"
    level: int  # index of the radius
    subset: Tensor  # (B,) indices into the campaign's images
    job: Job


class _Campaign:
    """The ascending radii of one norm, and what is known about every image so far."""

    def __init__(
        self,
        threat_models: list[ThreatModel],
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        seed: int,
        budget: Budget,
    ) -> None:
        self.threat_models, self.budget = threat_models, budget
        self.images, self.labels, self.num_classes, self.seed = images, labels, logits.shape[1], seed
        correct = logits.argmax(dim=1) == labels
        self.result = NormResult(
            eps=tuple(threat_model.eps for threat_model in threat_models),
            radius=torch.where(correct, torch.inf, 0.0).double(),
            broken_by=["" if is_correct else MISCLASSIFIED for is_correct in correct.tolist()],
            x_adv=images.clone(),
        )
        self.nearest = Nearest(images.clone(), torch.full(labels.shape, torch.inf, device=images.device))
        self.found: list[str] = []
        self.pairs = len(images) * len(threat_models)  # of an image and a radius
        self.decided = int((~correct).sum()) * len(threat_models)
        self.held = 0  # of the decided ones, those that no attack broke

    def count_known(self, model: nn.Module, level: int, batch_size: int) -> None:
        """Count the images for which FAB-T, at the smallest radius, found an example within this one."""
        threat_model = self.threat_models[level]
        claimed = self.result.radius.isinf() & (self.nearest.distance <= threat_model.eps)
        for subset in claimed.nonzero().flatten().split(batch_size) if claimed.any() else ():
            x_adv = self.nearest.x_adv[subset]
            with torch.no_grad():
                known = is_broken(model, threat_model, self.images[subset], self.labels[subset], x_adv)
            self._count(level, subset[known], ["fab-t"] * int(known.sum()), x_adv[known])

    def parts(self, level: int, batch_size: int) -> list[_Part]:
        """The images that are still unbroken, in batches of nearly equal size."""
        alive = self.result.radius.isinf().nonzero().flatten()
        if len(alive) == 0:
            return []
        threat_model = self.threat_models[level]
        seed = derive_seed(self.seed, "autoattack", threat_model.norm, str(threat_model.eps))
        attacks = tuple(name for name in self.budget.attacks if level == 0 or name != "fab-t")
        parts = []
        for subset in alive.tensor_split(-(-len(alive) // batch_size)):
            images, labels = self.images[subset], self.labels[subset]
            job = Job(threat_model, images, labels, self.num_classes, seed, attacks, self.budget)
            parts.append(_Part(self, level, subset, job))
        return parts

    def record(self, part: _Part, outcome: Outcome) -> None:
        """Take over what became of a part's images."""
        broken = outcome.broken_by != SURVIVED
        attacks = [ATTACKS[index] for index in outcome.broken_by[broken].tolist()]
        self._count(part.level, part.subset[broken], attacks, outcome.x_adv[broken])
        if outcome.nearest is not None:
            self.nearest.x_adv[part.subset] = outcome.nearest.x_adv
            self.nearest.distance[part.subset] = outcome.nearest.distance
        self.decided += int((~broken).sum())
        self.held += int((~broken).sum())
        self.found += [f"{_name(part.job.threat_model)}: {warning}" for warning in outcome.warnings]

    def _count(self, level: int, broken: Tensor, attacks: list[str], x_adv: Tensor) -> None:
        self.result.radius[broken] = self.threat_models[level].eps
        self.result.x_adv[broken] = x_adv
        for index, attack in zip(broken.tolist(), attacks, strict=True):
            self.result.broken_by[index] = attack
        self.decided += len(broken) * (len(self.threat_models) - level)

    def flags(self) -> list[str]:
        """The warnings of the attacks, each once, and whether Square gained more than it should at any radius."""
        flags = list(dict.fromkeys(self.found))
        by_square = torch.tensor([name == "square" for name in self.result.broken_by], device=self.images.device)
        for threat_model in self.threat_models:
            after = self.result.robust_accuracy(threat_model.eps)
            gained = (by_square & (self.result.radius == threat_model.eps)).double().mean().item()
            for warning in square_flag(after + gained, after):
                flags.append(f"{_name(threat_model)}: {warning}")
        return flags


def _name(threat_model: ThreatModel) -> str:
    return f"{threat_model.norm} eps = {threat_model.eps}"
