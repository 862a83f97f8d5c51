"""The comparison of noise levels in miniature, and its measure on directions whose cosine is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyautoattack import AutoAttack

from benchmarks import noise_levels
from pag.evaluation import standard
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.gradients.distillation.store_writer import StoreWriter
from pag.store.reader import GradientStore

SMALL_UNET: dict[str, Any] = {"channels": 8, "multipliers": [1, 1], "attention": [], "head_dim": 8, "batch_size": 4}


class BriefAutoAttack(AutoAttack):
    """A few steps of each attack: the comparison is tested here, not the attacks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 3
        self.square.n_queries = 5


def small_conf(name: str) -> Conf:
    conf = load_conf(name)
    sections = {
        "data": conf.data.model_copy(update={"train_limit": 120, "test_limit": 60}),
        "diffusion": conf.diffusion.model_copy(update=SMALL_UNET),
        "distill": conf.distill.model_copy(update={"noise_draws": 1}),
        "classifier": conf.classifier.model_copy(update={"epochs": 1, "batch_size": 16}),
    }
    return conf.model_copy(update=sections)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DiffusionConfig, int]]:
    """Small sizes; the configurations and seeds that diffusion models are trained with."""
    seen: list[tuple[DiffusionConfig, int]] = []
    original = noise_levels.diffusion_model

    def diffusion_model(bench: Any, config: DiffusionConfig, seed: int, name: str) -> Any:
        seen.append((config, seed))
        return original(bench, config, seed, name)

    monkeypatch.setattr(noise_levels, "diffusion_model", diffusion_model)
    monkeypatch.setattr(noise_levels, "load_conf", small_conf)
    monkeypatch.setattr(standard, "AutoAttack", BriefAutoAttack)
    return seen


def run(*arguments: str) -> str:
    options = ["--steps", "10", "--long", "2", "--images", "20", *arguments]
    result = CliRunner().invoke(noise_levels.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_every_row_has_the_same_budget_and_the_long_run_agrees_with_itself(
    trained: list[tuple[DiffusionConfig, int]],
) -> None:
    output = run("--seeds", "2", "--json")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert "diffusion single-1: step 10 of 10" in output and "diffusion long: step 20 of 20" in output

    runs = [(config.noise_levels, config.steps, seed) for config, seed in trained]
    short = [(levels, 10, seed) for levels in ("single", "band", "all") for seed in (0, 1)]
    assert runs == [("all", 20, noise_levels.LONG_SEED), *short]

    rows = found["per_seed"]
    assert list(rows) == ["single", "band", "all", "long"]
    assert rows["long"]["cosine"] == pytest.approx([1, 1], abs=1e-5)
    for name, row in rows.items():
        assert all(len(values) == 2 for values in row.values())
        assert all(-1 <= value < 0.999 for value in row["other_noise"])
        assert name == "long" or all(-1 <= value < 0.999 for value in row["cosine"])
        for near, far in zip(row["L2 0.5"], row["L2 1.0"], strict=True):
            assert 0 <= far <= near <= 1
        assert found["means"][name]["clean"] == pytest.approx(sum(row["clean"]) / 2)


def test_table_has_means_with_their_spread_and_what_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"seconds": [9.0, 9.0], "cosine": [0.5, 0.7], "other_noise": [0.4, 0.4]}
    row |= {"clean": [0.98, 0.99], "L2 0.5": [0.7, 0.7], "L2 1.0": [0.2, 0.3]}
    noise_levels.show({"single": row}, {"seeds": 2, "images": 20})
    output = capsys.readouterr().out
    (line,) = (line for line in output.splitlines() if "single" in line)
    cells = ["single", "9.0", "0.6000 ± 0.1414", "0.4000", "98.5 ± 0.7", "70.0", "25.0 ± 7.1"]
    assert [cell.strip() for cell in line.strip("│").split("│")] == cells
    caption = " ".join(output.split())
    assert "seeds 2, images 20, standard error of an L2 accuracy up to 11.2 %" in caption


def test_mean_cosine_of_known_directions(tmp_path: Path) -> None:
    shape = (70, 2, 1, 4, 4)
    v = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))
    other = v.clone()
    other[:, 1] *= -3  # class 0 agrees, class 1 points the other way
    stores = []
    for name, directions in (("v", v), ("negated", -v), ("other", other)):
        with StoreWriter(tmp_path / name, shape, {}, 8) as writer:
            writer.append(directions)
        stores.append(GradientStore.open(tmp_path / name))
    cosines = [noise_levels.mean_cosine(stores[0], store) for store in stores]
    assert cosines == pytest.approx([1, -1, 0], abs=1e-6)
