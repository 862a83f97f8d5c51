"""`heuristics.computed` through the stages: no store, and the same weights to the byte."""

import json
from pathlib import Path

import pytest
from workspace import Workspace


def weights(workspace: Workspace, method: str) -> tuple[bytes, dict]:
    folder = workspace.folder / "data/digits/classifiers/cnn" / method
    return (folder / "weights.safetensors").read_bytes(), json.loads((folder / "weights.json").read_text())


@pytest.mark.parametrize("bits", [8, 4])
def test_training_is_the_same_with_computed_gradients(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, bits: int
) -> None:
    runs = {
        "oi": ("train", "digits", "cnn", "oi"),
        "at-l2+cm": ("train", "digits", "cnn", "at-l2+cm"),
    }
    trained = []
    for computed in ([], ["oi", "cm"]):
        workspace = chain.copy(tmp_path / f"{len(computed)}")
        workspace.set("distill.bits", bits)
        workspace.set("heuristics.computed", computed)
        for realization in ("oi", "cm"):
            assert workspace.run(monkeypatch, "distill", "digits", realization) == 0
            folder = workspace.folder / f"data/digits/gradients/{realization}.zarr"
            assert (folder / "directions").exists() == (not computed)
            printed = capfd.readouterr().out
            assert (f"in {bits} bits are computed while training" in printed) == bool(computed)
        for command in runs.values():
            assert workspace.run(monkeypatch, *command) == 0
        trained.append([weights(workspace, method) for method in runs])
    assert trained[0] == trained[1]


def test_the_figure_of_a_realisation_is_the_same(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("heuristics.computed", ["cm"])
    before = workspace.files()
    assert workspace.run(monkeypatch, "distill", "digits", "cm") == 0
    changed = {path for path, content in workspace.files().items() if before.get(path) != content}
    assert {path.parts[:4] for path in changed} == {("data", "digits", "gradients", "cm.zarr")}


def test_what_cannot_be_computed_is_distilled(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("heuristics.computed", ["oi"])
    before = workspace.files()
    for realization in ("cm", "nn"):
        assert workspace.run(monkeypatch, "distill", "digits", realization) == 0
    assert workspace.files() == before


def test_targets_of_other_images_stop_training(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("heuristics.computed", ["cm"])
    assert workspace.run(monkeypatch, "distill", "digits", "cm") == 0
    workspace.set("data.train_limit", 150)
    assert workspace.run(monkeypatch, "prepare", "digits") == 0
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "cm") == 1
    assert "cm.zarr has dataset_hash" in capfd.readouterr().err.splitlines()[-1]
