"""Weights after a few steps of every method, against a plain loop in float64 that spells out the whole objective."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.foundation.config.training import AdversarialConfig, ClassifierConfig
from pag.images.dataset import Split
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective
from pag.training.batches import Batches
from pag.training.loop import train_classifier
from stages.train import objective_of

CLASSES, SIDE, COUNT, PER_IMAGE = 3, 6, 32, 2
WEIGHT, BETA, STEPS = 0.5, 6.0, 3  # λ, TRADES' β, steps of PGD
L2, LINF = (ThreatModel("L2", 0.5), 0.25), (ThreatModel("Linf", 0.1), 0.05)  # with the step sizes
CONFIG = ClassifierConfig(epochs=2, batch_size=8, lr=0.05, weight_decay=0.01, lr_schedule="cosine", crop_padding=1)

PlainLoss = Callable[[nn.Module, Batch], Tensor]


class RandomDirections:
    shape = (COUNT, CLASSES, 1, SIDE, SIDE)

    def __init__(self) -> None:
        self.values = np.random.default_rng(1).integers(-100, 100, self.shape, dtype=np.int8)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return self.values[rows[:, None], target_classes]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def batches() -> Batches:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 1, SIDE, SIDE), dtype=np.uint8)
    split = Split(images, np.arange(COUNT, dtype=np.int64) % CLASSES)
    return Batches(split, CONFIG, 3, torch.device("cpu"), RandomDirections(), PER_IMAGE)


def plain_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    log_p = model(batch.images).log_softmax(1)
    return -log_p[torch.arange(len(log_p)), batch.labels].mean()


def plain_alignment(model: nn.Module, batch: Batch) -> Tensor:
    """λ · C · the mean over images and drawn classes of 1 − cos(∇_x log p(y|x), g)."""
    images = batch.images.clone().requires_grad_()
    log_p = model(images).log_softmax(1)
    log_odds = log_p - (1 - log_p.exp()).log()  # in the direction of log p; under BatchNorm every image weighs the same
    total = torch.zeros((), dtype=torch.float64)
    for y, given in zip(batch.target_classes.T, batch.class_gradients.double().unbind(1), strict=True):
        (v,) = torch.autograd.grad(log_odds[torch.arange(len(y)), y].sum(), images, create_graph=True)
        v, g = v.flatten(1), given.flatten(1)
        total = total + (1 - (v * g).sum(1) / (v.norm(dim=1) * g.norm(dim=1))).sum()
    return WEIGHT * CLASSES * total / batch.target_classes.numel()


def plain_attack(model: nn.Module, batch: Batch, threat: ThreatModel, step: float, loss: PlainLoss) -> Tensor:
    """PGD in eval mode from a random start in the ball."""
    x = batch.images
    x_adv = x + threat.random_start(x.shape, torch.Generator().manual_seed(batch.seed)).double()
    model.eval()
    for _ in range(STEPS):
        x_adv = x_adv.clamp(0, 1).detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(model, x_adv), x_adv)
        norms = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = x_adv.detach() + step * (g.sign() if threat.norm == "Linf" else g / norms) - x
        size = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = (
            delta.clamp(-threat.eps, threat.eps) if threat.norm == "Linf" else delta * (threat.eps / size).clamp(max=1)
        )
        x_adv = x + delta
    model.train()
    return x_adv.clamp(0, 1).detach()


def plain_adversarial(threat: ThreatModel, step: float) -> PlainLoss:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        attacked = plain_attack(
            model, batch, threat, step, lambda model, x: F.cross_entropy(model(x), batch.labels, reduction="sum")
        )
        return F.cross_entropy(model(attacked), batch.labels)

    return loss


def divergence(logits: Tensor, logits_adv: Tensor) -> Tensor:
    """KL(p(·|x) ‖ p(·|x_adv)) of every image."""
    return (logits.softmax(1) * (logits.log_softmax(1) - logits_adv.log_softmax(1))).sum(1)


def plain_trades(threat: ThreatModel, step: float) -> PlainLoss:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        clean = model.eval()(batch.images).detach()
        x_adv = plain_attack(model, batch, threat, step, lambda model, x: divergence(clean, model(x)).sum())
        logits = model(batch.images)
        return F.cross_entropy(logits, batch.labels) + BETA * divergence(logits, model(x_adv)).mean()

    return loss


PLAIN: dict[str, PlainLoss] = {
    "vanilla": plain_cross_entropy,
    "at-l2": plain_adversarial(*L2),
    "at-linf": plain_adversarial(*LINF),
    "trades-linf": plain_trades(*LINF),
}
CONFIGS = {
    "at-l2": AdversarialConfig(norm="L2", eps=L2[0].eps, steps=STEPS, step_size=L2[1]),
    "at-linf": AdversarialConfig(norm="Linf", eps=LINF[0].eps, steps=STEPS, step_size=LINF[1]),
    "trades-linf": AdversarialConfig(norm="Linf", eps=LINF[0].eps, steps=STEPS, step_size=LINF[1], beta=BETA),
}


def methods(name: str) -> tuple[Objective, PlainLoss]:
    """What the stage `train` minimises for a method of this name, and the same as one plain sum."""
    baseline, realization = name.removesuffix("sbg").strip("+") or None, "sbg" if name.endswith("sbg") else None
    run = SimpleNamespace(
        baseline=baseline, realization=realization, weight=WEIGHT, alignment=SimpleNamespace(gradient_of="log_softmax")
    )
    conf = SimpleNamespace(methods=SimpleNamespace(adversarial=CONFIGS.get))
    terms = [PLAIN[baseline or "vanilla"], *([plain_alignment] if realization else [])]
    return objective_of(run, conf), lambda model, batch: sum(term(model, batch) for term in terms)


def plain_training(loss: PlainLoss) -> nn.Module:
    """SGD with momentum and weight decay, learning rate along a half cosine; in float64."""
    model = network().double().train()
    steps = CONFIG.epochs * COUNT // CONFIG.batch_size
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    step = 0
    for epoch in range(CONFIG.epochs):
        for drawn in batches().epoch(epoch):
            batch = replace(drawn, images=drawn.images.double())
            model.zero_grad()
            loss(model, batch).backward()
            lr = CONFIG.lr * (1 + np.cos(np.pi * step / steps)) / 2
            for p, v in zip(model.parameters(), velocity, strict=True):
                v.mul_(CONFIG.momentum).add_(p.grad + CONFIG.weight_decay * p.data)
                p.data -= lr * v
            step += 1
    return model


@pytest.mark.parametrize("name", [*PLAIN, "sbg", "at-l2+sbg", "trades-linf+sbg"])
def test_the_weights_are_those_of_the_whole_objective(name: str) -> None:
    objective, plain = methods(name)
    trained, start = network(), network()
    train_classifier(trained, batches(), objective, batches().split, CONFIG)
    expected = plain_training(plain)
    way = torch.cat([(a - b).flatten() for a, b in zip(expected.parameters(), start.parameters(), strict=True)])
    miss = torch.cat([(a - b).flatten() for a, b in zip(expected.parameters(), trained.parameters(), strict=True)])
    assert miss.norm() < 1e-4 * way.norm()
