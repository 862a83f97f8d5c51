"""Adversarial training (Madry et al., 2018) and TRADES (Zhang et al., 2019), against one threat model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.threat.pgd import PgdLoss, pgd
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch


@dataclass(frozen=True)
class AdversarialTraining:
    """CE(f(x_adv), y) with x_adv from PGD on the cross-entropy, random start inside the ball."""

    threat_model: ThreatModel
    steps: int
    step_size: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = _attack(model, batch, self.threat_model, self.steps, self.step_size, "ce")
        return {"cross_entropy": F.cross_entropy(model(x_adv), batch.labels)}


@dataclass(frozen=True)
class Trades:
    """CE(f(x), y) + β · KL(p(·|x) ‖ p(·|x_adv)) with x_adv from PGD on the KL divergence."""

    threat_model: ThreatModel
    steps: int
    step_size: float
    beta: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = _attack(model, batch, self.threat_model, self.steps, self.step_size, "kl")
        logits, logits_adv = model(batch.images), model(x_adv)
        divergence = F.kl_div(
            F.log_softmax(logits_adv, dim=1), F.log_softmax(logits, dim=1), reduction="batchmean", log_target=True
        )
        return {"cross_entropy": F.cross_entropy(logits, batch.labels), "divergence": self.beta * divergence}


def _attack(
    model: nn.Module, batch: Batch, threat_model: ThreatModel, steps: int, step_size: float, loss: PgdLoss
) -> Tensor:
    """Adversarial examples of the current weights."""
    generator = torch.Generator(batch.images.device).manual_seed(batch.seed)
    attacked = model, batch.images, batch.labels, threat_model
    with _under_attack(model):
        return pgd(*attacked, steps, step_size, generator=generator, loss=loss, part=batch.part)


@contextmanager
def _under_attack(model: nn.Module) -> Iterator[None]:
    """Eval mode, as in TRADES' own attack, and parameters without gradient, which a compiled backward would compute."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train()
        for parameter in parameters:
            parameter.requires_grad_(True)
