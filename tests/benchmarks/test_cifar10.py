"""The benchmark in miniature: every stage runs, a call that was cut off is gone on with, results appear."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pyautoattack import AutoAttack

from benchmarks.cifar10 import __main__ as entry
from benchmarks.cifar10 import rates
from benchmarks.cifar10.settings import MINIATURE, Scale
from benchmarks.cifar10.state import OutOfTime
from pag.attacks import standard
from stages import evaluate, train, train_diffusion

CLASSES = ("blue", "green", "red", "yellow")
ARCHIVE = Path(os.environ.get("PAG_SHARED", Path(__file__).parents[2] / "../shared")) / "data/cifar10-jpeg.tar.xz"


class BriefAutoAttack(AutoAttack):
    """A few steps of each attack: the run is tested here, not the attacks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 3
        self.square.n_queries = 5


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of noisy 8×8 images whose colour tells the class."""
    rng = np.random.default_rng(0)
    colours = np.array([[40, 40, 220], [40, 220, 40], [220, 40, 40], [220, 220, 40]])
    for part, count in (("train", 20), ("test", 5)):
        for name, colour in zip(CLASSES, colours, strict=True):
            folder = tmp_path / "raw" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + rng.normal(0, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "raw"


def scaled(**changes: Any) -> Scale:
    return replace(MINIATURE, **{"methods": ("cnn/sbg", "cnn/vanilla"), "required": 2, **changes})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(entry, "MINIATURE", scaled())
    monkeypatch.setattr(standard, "AutoAttack", BriefAutoAttack)
    monkeypatch.chdir(tmp_path)  # the command changes it; this puts it back
    yield


def call(state: Path, archive: Path) -> str:
    arguments = ["--miniature", "--minutes", "60", "--state", str(state), "--archive", str(archive)]
    result = CliRunner().invoke(entry.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def stages(folder: Path) -> list[str]:
    return list(json.loads((folder / "state.json").read_text())["stages"])


def weights(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "data").rglob("*.safetensors"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_run_that_is_cut_off_ends_like_one_that_is_not(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert "everything is done" in call(whole, raw)

    def out_of_time(*_: Any, **__: Any) -> None:
        raise OutOfTime

    with monkeypatch.context() as patch:  # the second classifier's training is cut off
        patch.setattr(train, "train_and_save", out_of_time)
        assert "call again" in call(parts, raw)
    assert "train cnn/vanilla" not in stages(parts)
    begun = {path: path.stat().st_mtime_ns for path in (parts / "data").rglob("*.safetensors")}
    with monkeypatch.context() as patch:  # then an evaluation
        patch.setattr(evaluate, "heldout_alignment", out_of_time)
        call(parts, raw)
    output = call(parts, raw)

    assert "everything is done" in output
    assert "diffusion: begins" not in output and "calibrate" not in output
    assert sorted(stages(parts)) == sorted(stages(whole))
    assert all(path.stat().st_mtime_ns == time for path, time in begun.items())
    assert weights(parts) == weights(whole)
    assert "everything is done" in call(parts, raw)  # and once more there is nothing to do

    state = json.loads((parts / "state.json").read_text())
    assert state["partial"] == {}
    assert not list((parts / "data" / ".scratch").glob("*"))


def test_the_results_are_complete(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "MINIATURE", scaled(methods=("cnn/sbg", "cnn/vanilla", "cnn/at-l2"), required=3))
    call(tmp_path / "run", raw)
    out = tmp_path / "run" / "out"
    figures = {"diffusion.png", "realizations.png", "large-eps-cnn.png", "alignment-cnn.png"}
    assert {path.name for path in out.iterdir()} == {"metrics.json", "report.md", *figures}
    results = json.loads((out / "metrics.json").read_text())
    assert list(results["metrics"]) == ["cnn/vanilla", "cnn/at-l2", "cnn/sbg"]
    for metrics in results["metrics"].values():
        assert metrics["n_examples"] == 10 and set(metrics["robust_accuracy"]) == {"L2", "Linf"}
    assert set(results["training"]) == set(results["metrics"])
    assert results["stages"]["train diffusion"]["seconds"] >= 0
    page = (out / "report.md").read_text()
    assert all(f"({name})" in page for name in figures)
    assert "AT-L2" in page and "alignment step over AT-PGD-7, batch 8" in page


def test_a_classifier_that_fails_costs_only_itself(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the loss is nan at step 3")

    monkeypatch.setattr(train, "train_and_save", diverge)
    output = call(tmp_path / "run", raw)
    assert "train cnn/vanilla failed: FloatingPointError: the loss is nan at step 3" in output
    assert "evaluate cnn/sbg" in stages(tmp_path / "run")
    notes = json.loads((tmp_path / "run" / "out" / "metrics.json").read_text())["given_up"]
    assert any("train cnn/vanilla failed" in note for note in notes)


def test_what_was_measured_before_the_time_was_over_is_not_measured_again(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_time(*_: Any) -> None:
        raise OutOfTime

    measured = []
    diffusion_seconds = rates.diffusion_seconds
    monkeypatch.setattr(rates, "diffusion_seconds", lambda *a: measured.append("diffusion") or diffusion_seconds(*a))
    with monkeypatch.context() as patch:
        patch.setattr(rates, "distillation_seconds", out_of_time)
        assert "call again" in call(tmp_path / "run", raw)
    assert stages(tmp_path / "run") == ["prepare"] and measured == ["diffusion"]
    assert "everything is done" in call(tmp_path / "run", raw)
    assert measured == ["diffusion"]


def test_a_diffusion_model_that_diverges_gets_smaller_steps(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def diverge_once(dataset: Any, config: Any, *arguments: Any, **options: Any) -> Any:
        tried.append(config.lr)
        if len(tried) == 1:
            raise FloatingPointError("the loss is nan at step 2")
        return trained(dataset, config, *arguments, **options)

    trained = train_diffusion.train
    monkeypatch.setattr(train_diffusion, "train", diverge_once)
    assert "everything is done" in call(tmp_path / "run", raw)
    assert tried == [tried[0], tried[0] / 2]
    notes = json.loads((tmp_path / "run" / "out" / "metrics.json").read_text())["given_up"]
    assert any(note.startswith("train diffusion failed") and "again with diffusion.lr" in note for note in notes)


def test_an_error_that_stays_on_the_gpu_ends_the_call_and_blames_no_method(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_save", broken)
        with pytest.raises(RuntimeError, match="CUDA error"):
            call(tmp_path / "run", raw)
    assert "everything is done" in call(tmp_path / "run", raw)
    assert "train cnn/vanilla" in stages(tmp_path / "run")


@pytest.mark.slow  # the processes of the lanes run the attacks with their whole budgets
def test_evaluations_in_lanes_give_the_same_metrics(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard, "AutoAttack", AutoAttack)
    call(tmp_path / "one", raw)
    monkeypatch.setattr(entry, "MINIATURE", scaled(lanes=2))
    output = call(tmp_path / "lanes", raw)
    assert "begins in a lane" in output and "everything is done" in output
    found = [json.loads((tmp_path / run / "out" / "metrics.json").read_text())["metrics"] for run in ("one", "lanes")]
    assert found[0] == found[1]


def test_check_only_measures(raw: Path, tmp_path: Path) -> None:
    arguments = ["--check", "--miniature", "--minutes", "5", "--state", str(tmp_path / "run"), "--archive", str(raw)]
    assert CliRunner().invoke(entry.main, arguments, catch_exceptions=False).exit_code == 0
    assert stages(tmp_path / "run") == ["prepare", "calibrate"]


def test_on_a_slice_of_the_archive(tmp_path: Path) -> None:
    if not ARCHIVE.is_file():
        pytest.skip(f"{ARCHIVE} is not here; PAG_SHARED names the folder that has data/{ARCHIVE.name}")
    call(tmp_path / "run", ARCHIVE)
    results = json.loads((tmp_path / "run" / "out" / "metrics.json").read_text())
    assert results["metrics"]["cnn/sbg"]["n_clean"] == 20
    assert results["settings"]["data"]["train_limit"] == 60
