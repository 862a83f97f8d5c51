"""The classifier loop on a tiny separable problem: every objective learns it, and nothing depends on chance."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pag.classifiers import build
from pag.classifiers.accuracy import accuracy
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.finite import MAX_WEIGHT
from pag.images.dataset import Split
from pag.objectives.alignment.objective import Alignment
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.objectives.baselines.gradient_norm import GradientNorm
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective
from pag.training.batches import Batches
from pag.training.loop import History, build_optimizer, lr_factor, train_classifier

CLASSES, SIDE = 2, 6
OBJECTIVES: dict[str, Objective] = {
    "vanilla": cross_entropy,
    "alignment": Alignment(0.5),
    "at": AdversarialTraining(ThreatModel("L2", 0.3), steps=2, step_size=0.2),
    "trades": Trades(ThreatModel("Linf", 0.05), steps=2, step_size=0.03, beta=2.0),
    "gradnorm": GradientNorm(0.02),
    "noise": GaussianNoise(0.1),
}


def bright_half(count: int, seed: int) -> Split:
    """Class 0 is brighter on the left, class 1 on the right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    images = rng.integers(0, 120, (count, 1, SIDE, SIDE))
    for label, half in enumerate((slice(0, SIDE // 2), slice(SIDE // 2, SIDE))):
        images[labels == label, :, :, half] += 120
    return Split(images.astype(np.uint8), labels)


class TrueDirections:
    """Towards class y: brighten its half, darken the other."""

    shape = (64, CLASSES, 1, SIDE, SIDE)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        left = np.full((1, SIDE, SIDE), 100, np.int8)
        left[:, :, SIDE // 2 :] = -100
        return np.stack([left, -left])[target_classes]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def train(objective: Objective, seed: int = 3, **changes: object) -> tuple[nn.Module, History]:
    options = {"epochs": 5, "batch_size": 16, "lr": 0.05, "crop_padding": 0, "flip": False}
    config = ClassifierConfig(**options).model_copy(update=changes)  # which may be beyond what a file can say
    batches = Batches(bright_half(64, 0), config, seed, torch.device("cpu"), TrueDirections(), 1)
    model = network()
    return model, train_classifier(model, batches, objective, bright_half(40, 1), config)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns(name: str) -> None:
    _, history = train(OBJECTIVES[name])
    terms = [key for key in history.rows[0] if key not in ("epoch", "validation_accuracy")]
    first, last = (sum(row[key] for key in terms) for row in (history.rows[0], history.rows[-1]))
    assert last < 0.8 * first
    assert history.rows[-1]["validation_accuracy"] > 0.95
    assert history.steps == 5 * 4


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.usefixtures("two_threads")
def test_same_seed_same_bits_whatever_the_global_generator(name: str) -> None:
    states = []
    for global_seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            states.append(train(OBJECTIVES[name], epochs=2)[0].state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_another_seed_gives_other_weights() -> None:
    first, second = (train(cross_entropy, seed, epochs=1)[0].state_dict()["0.weight"] for seed in (1, 2))
    assert not torch.equal(first, second)


def test_alignment_aligns() -> None:
    _, history = train(OBJECTIVES["alignment"], epochs=10)
    assert history.rows[-1]["alignment"] < 0.5 * history.rows[0]["alignment"]


def test_the_objective_sees_train_mode_and_its_own_batch() -> None:
    modes, seeds = [], []

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        modes.append(model.training)
        seeds.append(batch.seed)
        return cross_entropy(model, batch)

    model, _ = train(objective, epochs=2)
    assert modes == [True] * 8
    assert len(set(seeds)) == 8
    assert model[1].num_batches_tracked == 8


@pytest.mark.parametrize("bad_step", [1, 3])
def test_a_loss_that_is_not_finite_stops_with_the_step(bad_step: int) -> None:
    steps = 0

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        return {"cross_entropy": cross_entropy(model, batch)["cross_entropy"] * (math.nan if steps == bad_step else 1)}

    line = rf"loss is nan at step {bad_step} \(epoch 1, batch {bad_step}\): lower classifier\.lr or lambda"
    with pytest.raises(FloatingPointError, match=line):
        train(objective)


class Steep(torch.autograd.Function):
    """The identity, with an infinite gradient: the loss stays finite."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * math.inf


def test_a_gradient_that_is_not_finite_stops_with_the_step() -> None:
    steps = 0

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        loss = cross_entropy(model, batch)["cross_entropy"]
        return {"cross_entropy": Steep.apply(loss) if steps == 6 else loss}

    with pytest.raises(FloatingPointError, match=r"a gradient is not finite at step 6 \(epoch 2, batch 2\)"):
        train(objective)


def test_weights_that_run_away_in_the_last_step_are_no_result() -> None:
    """Neither loss nor gradient of any step says so."""
    with pytest.raises(FloatingPointError, match=r"a weight is .*e\+\d+ at step 1 \(epoch 1, batch 1\): lower"):
        train(cross_entropy, epochs=1, batch_size=64, lr=1e30)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("steps", {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 0.99: 0.01}),
        ("cosine", {0: 1, 0.5: 0.5, 0.25: 0.5 + 0.5 * math.sqrt(0.5)}),
        ("constant", {0: 1, 0.99: 1}),
    ],
)
def test_learning_rate_schedule(schedule: str, expected: dict[float, float]) -> None:
    config = ClassifierConfig(lr_schedule=schedule)
    assert {progress: lr_factor(config, progress) for progress in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_one_update_of_the_optimizer(name: str) -> None:
    """w = 1 with gradient 2, by the optimisers' definitions."""
    weight = nn.Linear(1, 1, bias=False)
    weight.weight.data.fill_(1.0)
    optimizer = build_optimizer(weight, ClassifierConfig(optimizer=name, lr=0.1, weight_decay=0.5))
    weight.weight.grad = torch.full((1, 1), 2.0)
    optimizer.step()
    expected = 1 - 0.1 * (2 + 0.5) if name == "sgd" else 1 - 0.1  # Adam's first step has length lr
    assert weight.weight.item() == pytest.approx(expected)


def test_accuracy_counts_images_and_leaves_statistics_alone() -> None:
    model, split = network(), bright_half(30, 2)
    expected = (model.eval()(torch.from_numpy(split.images) / 255).argmax(1).numpy() == split.labels).mean()
    model.train()
    assert accuracy(model, split, torch.device("cpu"), batch_size=7) == pytest.approx(expected)
    assert model[1].num_batches_tracked == 0


def test_bf16_trains() -> None:
    _, history = train(OBJECTIVES["alignment"], precision="bf16")
    assert history.rows[-1]["validation_accuracy"] > 0.9


def test_timings_say_how_the_time_was_spent() -> None:
    _, history = train(cross_entropy, epochs=1)
    timings = history.timings()
    assert set(timings) == {"train_seconds", "seconds_per_step", "data_wait_fraction"}
    assert 0 <= timings["data_wait_fraction"] <= 1


@pytest.mark.parametrize("lr", [1.0, 100.0])
def test_a_training_that_runs_away_is_no_artifact(lr: float) -> None:
    """The weights stay far below the bound of a single weight, and a dead network ends near chance."""
    split = Split(np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8), np.arange(64) % 10)
    config = ClassifierConfig(epochs=5, batch_size=8, optimizer="adam").model_copy(update={"lr": lr})
    model = build("cnn", 10, (1, 8, 8), 0)
    with pytest.raises(FloatingPointError, match=r"the mean cross-entropy of an epoch is .* run away at step 8 "):
        train_classifier(model, Batches(split, config, 0, torch.device("cpu")), cross_entropy, split, config)
    assert max(weight.abs().max().item() for weight in model.parameters()) < MAX_WEIGHT
