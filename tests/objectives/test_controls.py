"""The controls against closed forms, ordinary autograd and a training loop written out in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.classifiers import build
from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.runs import run_of
from pag.foundation.config.training import ClassifierConfig
from pag.images.dataset import Split
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.build import baseline_objective
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.objectives.baselines.gradient_norm import GradientNorm
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective
from pag.training.batches import Batches
from pag.training.loop import train_classifier

ROOT = Path(__file__).parents[2]


def random_batch(count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Batch:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(count, *shape, generator=g, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(4, (count,), generator=g), seed=5)


def plain_loss(model: nn.Module, images: Tensor, labels: Tensor, weight: float) -> Tensor:
    """CE + weight · ‖∇_x CE‖₁ with ordinary autograd."""
    images = images.detach().requires_grad_()
    total = F.cross_entropy(model(images), labels, reduction="sum")
    (gradients,) = torch.autograd.grad(total, images, create_graph=True)
    return (total + weight * gradients.abs().sum()) / len(labels)


# --- the gradient norm -----------------------------------------------------------------------------------------------


def test_gradient_norm_of_a_linear_classifier_is_the_closed_form() -> None:
    """∇_x CE = Wᵀ(p − e_y)."""
    batch = random_batch(5, (1, 3, 3))
    linear = nn.Linear(9, 4).double()
    terms = GradientNorm(0.3)(nn.Sequential(nn.Flatten(), linear), batch)
    p = linear(batch.images.flatten(1)).softmax(1)
    gradients = (p - F.one_hot(batch.labels, 4)) @ linear.weight
    assert torch.allclose(terms["gradient_norm"], 0.3 * gradients.abs().sum(1).mean())
    assert torch.allclose(terms["cross_entropy"], -p[range(5), batch.labels].log().mean())


@pytest.mark.parametrize("arch", ["cnn", "rn8", "rn8-silu"])
def test_weight_gradients_equal_plain_double_backward(arch: str) -> None:
    batch, gradients = random_batch(3, (1, 8, 8)), []
    for ours in (True, False):
        model = build(arch, 4, (1, 8, 8), seed=0).double().train()
        loss = (
            sum(GradientNorm(0.5)(model, batch).values())
            if ours
            else plain_loss(model, batch.images, batch.labels, 0.5)
        )
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-9 * gradients[1].norm()


def test_the_weight_is_a_radius_to_first_order() -> None:
    batch, model, eps = random_batch(3, (1, 8, 8)), build("cnn", 4, (1, 8, 8), seed=0).double(), 1e-5
    terms = GradientNorm(eps)(model, batch)
    images = batch.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), batch.labels), images)
    worst = F.cross_entropy(model(batch.images + eps * gradient.sign()), batch.labels)
    rise = worst.item() - terms["cross_entropy"].item()
    assert rise == pytest.approx(terms["gradient_norm"].item(), rel=1e-3)


# --- noise -----------------------------------------------------------------------------------------------------------


def seen(objective: Objective, batch: Batch) -> Tensor:
    """The images that the objective shows the network."""
    shown: list[Tensor] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(batch.images[0].numel(), 4))
    model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    objective(model, batch)
    return shown[0]


def test_noise_has_the_stated_deviation_and_is_not_clamped() -> None:
    batch = random_batch(64, (3, 32, 32), torch.float32)
    images, labels = batch.images.round(), batch.labels  # black and white
    noise = seen(GaussianNoise(0.12), Batch(images, labels, seed=1)) - images
    count = noise.numel()
    assert abs(noise.mean()) < 4 * 0.12 / count**0.5
    assert noise.std().item() == pytest.approx(0.12, rel=4 / (2 * count) ** 0.5)
    assert (noise[images == 0] < 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert images.unique().tolist() == [0, 1]  # the batch itself is as it was


def test_noise_belongs_to_the_batch() -> None:
    batch = random_batch(2, (1, 4, 4), torch.float32)
    first, again, other = (seen(GaussianNoise(0.1), Batch(batch.images, batch.labels, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()
    assert not torch.isclose(first[0] - batch.images[0], first[1] - batch.images[1]).any()  # every image its own


# --- in the loop -----------------------------------------------------------------------------------------------------


class InFloat64(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 4)
            ).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.double())


@pytest.mark.parametrize("control", ["gradnorm", "noise"])
def test_training_follows_a_plain_loop(control: str) -> None:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (64, 1, 6, 6), dtype=np.uint8), np.arange(64) % 4)
    config = ClassifierConfig(
        epochs=2, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.01, lr_schedule="constant", flip=False
    )
    batches = Batches(split, config, 3, torch.device("cpu"))
    trained, expected = InFloat64(), InFloat64()
    objective: Objective = GradientNorm(0.2) if control == "gradnorm" else GaussianNoise(0.3)
    train_classifier(trained, batches, objective, split, config)

    velocity = [torch.zeros_like(p) for p in expected.parameters()]
    expected.train()
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            if control == "gradnorm":
                loss = plain_loss(expected, batch.images.double(), batch.labels, 0.2)
            else:
                noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(batch.seed))
                loss = F.cross_entropy(expected(batch.images + 0.3 * noise), batch.labels)
            gradients = torch.autograd.grad(loss, list(expected.parameters()))
            with torch.no_grad():
                for p, v, gradient in zip(expected.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(gradient + 0.01 * p)
                    p.sub_(0.1 * v)
    start = torch.cat([p.flatten() for p in InFloat64().parameters()])
    ours, theirs = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (trained, expected))
    assert (ours - theirs).norm() <= 1e-5 * (theirs - start).norm()


def test_the_objectives_have_the_values_of_conf() -> None:
    params, conf = load_params(ROOT / "params.yaml"), load_conf("cifar10", ROOT / "conf")
    expected = {
        "vanilla": cross_entropy,
        "at-l2": AdversarialTraining(ThreatModel("L2", 0.5), 7, 0.75 / 7),
        "at-linf": AdversarialTraining(ThreatModel("Linf", 8 / 255), 7, 12 / 255 / 7),
        "trades-linf": Trades(ThreatModel("Linf", 8 / 255), 10, 0.007, 6.0),
        "gradnorm": GradientNorm(3 / 255),
        "noise": GaussianNoise(0.12),
    }
    runs = {name: run_of(name, "cifar10", "rn8", params, conf) for name in expected}
    assert {name: baseline_objective(run, conf.methods) for name, run in runs.items()} == expected
