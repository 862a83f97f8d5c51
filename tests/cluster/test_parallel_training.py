"""Data-parallel training: all ranks end with the same weights, which are those of one process on whole batches."""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import join
from timm.layers import BatchNormAct2d, DropPath
from torch import Tensor, nn

from pag.classifiers import compiled
from pag.diffusion.training import train as train_diffusion
from pag.foundation import global_batch
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.section import ConfigError
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.global_batch import see_whole_batch
from pag.foundation.processes import Part
from pag.foundation.scratch import Scratch
from pag.images.dataset import ImageDataset, Split
from pag.objectives.alignment.objective import Alignment
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.objectives.baselines.gradient_norm import GradientNorm
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective
from pag.training.batches import Batches
from pag.training.loop import train_classifier

CLASSES, SHAPE, CPU = 3, (1, 8, 8), torch.device("cpu")
RANKS = 2
STEPS = 6  # of the training that is interrupted: 2 epochs of 3

TRADES, ALIGNMENT = Trades(ThreatModel("Linf", 0.05), steps=2, step_size=0.03, beta=2.0), Alignment(0.5)


def trades_and_alignment(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {**TRADES(model, batch), **ALIGNMENT.term(model, batch)}


@dataclass(frozen=True)
class Case:
    objective: Objective = cross_entropy
    compile: bool = False
    dynamic: bool | None = None  # as Dynamo does from the second batch size on
    backend: str = "aot_eager"  # as far as the traced graph, without generating code for it
    norm: Callable[[], nn.Module] = lambda: nn.BatchNorm2d(4)


class OverTokens(nn.Module):
    """BatchNorm of tokens in a row, as LeViT has it: the first dimension is not that of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.norm(tokens.flatten(0, 1)).view_as(tokens).transpose(1, 2).reshape(x.shape)


CASES = {
    "vanilla": Case(),
    "batch norm over tokens": Case(norm=OverTokens),
    "no batch norm": Case(norm=nn.Identity),
    "alignment": Case(ALIGNMENT),
    "alignment compiled": Case(ALIGNMENT, compile=True),
    "alignment compiled for any batch": Case(ALIGNMENT, compile=True, dynamic=True),
    "at": Case(AdversarialTraining(ThreatModel("L2", 0.3), steps=2, step_size=0.2)),
    "at compiled": Case(AdversarialTraining(ThreatModel("L2", 0.3), steps=2, step_size=0.2), compile=True),
    "trades+alignment": Case(trades_and_alignment),
    "gradnorm": Case(GradientNorm(0.02)),
    "noise": Case(GaussianNoise(0.1)),
}
if shutil.which("g++"):
    CASES["alignment, code generated"] = Case(ALIGNMENT, compile=True, backend="inductor")
Result = dict[str, Tensor]


def images(count: int = 48) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8), np.arange(count, dtype=np.int64) % CLASSES)


class Directions:
    shape = (48, CLASSES, *SHAPE)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        table = np.random.default_rng(1).integers(-127, 128, self.shape).astype(np.int8)
        return table[rows[:, None], target_classes]


def network(norm: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), norm(), nn.SiLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, CLASSES)
        )


def train(case: Case, scratch: Path | None = None, epochs: int = 2) -> Result:
    """Weights and statistics, and the curve. A batch of 15 falls into parts of 7 and 8."""
    config = ClassifierConfig(
        epochs=epochs, batch_size=15, lr=0.02, crop_padding=1, flip=True, compile=case.compile, precision="float32"
    )
    model = network(case.norm)
    batches = Batches(images(), config, 3, CPU, Directions(), 1)
    kept = Scratch(scratch, {}) if scratch is not None else None
    history = train_classifier(model, batches, case.objective, images(9), config, scratch=kept)
    curve = torch.tensor([list(row.values()) for row in history.rows])
    return {**{name: value.clone() for name, value in model.state_dict().items()}, "curve": curve}


def diffuse(dropout: float = 0.3) -> Result:
    config = DiffusionConfig(
        schedule="cosine", timesteps=50, learn_sigma=True, noise_levels="all", channels=32, multipliers=[1], blocks=1,
        attention=[], head_dim=32, dropout=dropout, steps=4, batch_size=5, lr=0.002, ema_decay=0.99,
    )  # fmt: skip
    split = images(20)
    dataset = ImageDataset.create("x", tuple("abc"), train=split, validation=split, test=split)
    trained = train_diffusion(dataset, config, 0, CPU)
    return {**trained.ema_weights, "losses": torch.tensor(trained.losses)}


def everything() -> dict[str, Result]:
    whole = torch.compile
    try:
        results = {}
        for name, case in CASES.items():
            torch.compile = functools.partial(whole, backend=case.backend, dynamic=case.dynamic)  # type: ignore[assignment]
            compiled._compiled.cache_clear()
            results[name] = train(case)
        return {**results, "diffusion": diffuse()}
    finally:
        torch.compile = whole


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What one process found, and each of two."""
    folder = tmp_path_factory.mktemp("ranks") / "work"
    join(folder, RANKS, lambda: torch.save(everything(), folder / f"{os.environ['RANK']}.pt"))
    return [everything(), *(torch.load(folder / f"{rank}.pt") for rank in range(RANKS))]


@pytest.mark.parametrize("name", [*CASES, "diffusion"])
def test_ranks_agree_to_the_bit_and_with_one_process(name: str, found: list[dict[str, Result]]) -> None:
    alone, *ranks = (results[name] for results in found)
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in alone)
    first = ranks[0]
    if name == "diffusion":  # Adam's first steps turn the rounding of a tiny gradient into a step of full length
        alone, first = ({"all": torch.cat([value.flatten() for value in of.values()])} for of in (alone, first))
    for key, value in alone.items():
        expected, actual = value.double(), first[key].double()
        assert (actual - expected).norm() <= 1e-4 * expected.norm() + 1e-7, key


def test_the_statistics_of_parts_are_exact_where_the_mean_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 16 and 48 images, whose means are two standard deviations apart."""
    random = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(64, 3, 4, 4, generator=random)
    x[:16] += 2
    parts, own = x.split([16, 48]), []
    settings = torch.ones(3), torch.zeros(3), x.numel() // 3, 1e-5
    with torch.no_grad():
        monkeypatch.setattr(global_batch, "_of_all", lambda sent: own.append(sent) or sent[None])
        for part in parts:
            global_batch._Normalization.apply(part, *settings)
        monkeypatch.setattr(global_batch, "_of_all", lambda sent: torch.stack(own))
        _, mean, variance = global_batch._Normalization.apply(parts[1], *settings)
    expected = x.double()
    torch.testing.assert_close(mean.double(), expected.mean([0, 2, 3]), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), expected.var([0, 2, 3], correction=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("layer", [BatchNormAct2d(4), nn.Dropout2d(0.1), DropPath(0.1)])
def test_a_layer_that_would_be_another_is_refused(layer: nn.Module) -> None:
    """timm's BatchNormAct2d has an activation in it; the others draw for the images that they see."""
    with pytest.raises(ConfigError, match=rf"^the network has a {type(layer).__name__}, .*: train it in one process$"):
        see_whole_batch(nn.Sequential(nn.Conv2d(1, 4, 3), layer), Part(0, 1, 2))
