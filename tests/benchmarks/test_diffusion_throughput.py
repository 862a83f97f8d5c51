"""The diffusion benchmark in miniature: its sides take the same step, each in its own way."""

import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import diffusion
from pag.diffusion.training import Trainer

TINY = diffusion.SMALL.model_copy(
    update={"channels": 8, "multipliers": [1, 1], "attention": [], "head_dim": 8, "batch_size": 2, "timesteps": 50}
)
CPU = torch.device("cpu")
EAGER = {name: variant for name, variant in diffusion.VARIANTS.items() if not variant.compile}


def after_three_steps(variant: diffusion.Variant) -> tuple[Trainer, list[float]]:
    with torch.random.fork_rng(devices=[]):
        training = diffusion.trainer(TINY.model_copy(update={"lr": 1e-2, "dropout": 0.0}), variant, CPU)
        return training, [float(training.step(number)) for number in range(3)]


@pytest.mark.parametrize("name", EAGER)
def test_every_variant_takes_the_same_steps(name: str) -> None:
    variant = EAGER[name]
    training, losses = after_three_steps(variant)
    _, plain = after_three_steps(diffusion.VARIANTS["plain"])
    assert losses == pytest.approx(plain, rel=3e-2 if variant.bf16 else 1e-4)
    if variant.bf16:
        assert losses != plain  # by another arithmetic
    weight = next(value for value in training.values if value.ndim == 4 and value.shape[1] > 1 and value.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) == variant.channels_last


def test_it_continues_with_new_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    training, taken = after_three_steps(diffusion.VARIANTS["plain"])[0], []
    monkeypatch.setattr(training, "step", taken.append)
    steps = diffusion.Steps(training, 2)
    steps()
    steps()
    assert taken == [0, 1, 2, 3]


def test_json_has_every_eager_variant_against_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "SMALL", TINY)
    arguments = ["--json", "--steps", "1", "--repeats", "1", "--batch-size", "3"]
    output = CliRunner().invoke(diffusion.main, arguments, catch_exceptions=False).output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert found["batch_size"] == 3
    assert set(found["images_per_second"]) == set(EAGER)
    assert set(found["over_plain"]) == set(EAGER) - {"plain"}
    for name, ratio in found["over_plain"].items():
        rates = found["images_per_second"]
        assert ratio == pytest.approx(rates[name] / rates["plain"]) and rates[name] > 0
