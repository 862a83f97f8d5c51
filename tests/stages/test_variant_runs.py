"""Variants and the figure over noise levels, through the stages: what a variant states is what it is trained with."""

import json

import numpy as np
import pytest
from workspace import Workspace

from pag.foundation.artifacts import load_weights

VARIANTS = {
    "all": {"method": "sbg", "lambda": 0.5, "classes_per_image": "all", "training_seed": 3},
    "robust": {"method": "at-l2+cm"},
    "plain": {"method": "vanilla"},
    "copy": {"method": "sbg"},
}


def about(workspace: Workspace, name: str) -> dict:
    return json.loads((workspace.folder / f"data/digits/classifiers/cnn/{name}/weights.json").read_text())


def test_a_variant_is_trained_evaluated_and_reported(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("variants", {"all": VARIANTS["all"]})
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "all") == 0
    described = about(workspace, "all")
    stated = {"lambda": 0.5, "classes_per_image": "all", "training_seed": 3, "run": "all", "method": "sbg"}
    assert {key: described[key] for key in stated} == stated
    assert workspace.run(monkeypatch, "evaluate", "digits", "cnn", "all") == 0
    metrics = json.loads((tmp_path / "results/records/digits/cnn/all.json").read_text())
    assert (metrics["classes_per_image"], metrics["seed"], metrics["alignment_weight"]) == ("all", 3, 0.5)

    for key in ("baselines", "realizations", "robust"):
        workspace.set(key, [], "params.yaml")
    workspace.set("variants", ["all"], "params.yaml")
    assert workspace.run(monkeypatch, "report") == 0
    page = (tmp_path / "results/report/report.md").read_text()
    assert "| SBG | 0.5 | all | 3 |" in page


def test_what_a_variant_does_not_state_is_the_same(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("variants", VARIANTS)
    for name, method in (("plain", "vanilla"), ("copy", "sbg")):
        assert workspace.run(monkeypatch, "train", "digits", "cnn", name) == 0
        ours, theirs = (
            load_weights(tmp_path / f"data/digits/classifiers/cnn/{run}/weights.safetensors")[0]
            for run in (f"{name}", method)
        )
        assert all(bool((ours[key] == theirs[key]).all()) for key in theirs)
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "robust") == 0
    assert about(workspace, "robust")["lambda"] == 0.2  # conf's for at+pag


@pytest.mark.parametrize(
    ("name", "variants", "expected"),
    [
        (
            "lamda-1",
            None,
            "unknown run 'lamda-1': no method, and no variant of conf/digits.yaml, did you mean 'lambda-1'?",
        ),
        ("a", {"a": {"method": "oi"}}, "oi.zarr is missing"),
    ],
)
def test_a_variant_that_cannot_run_is_refused(
    chain: Workspace,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    name: str,
    variants: dict | None,
    expected: str,
) -> None:
    workspace = chain.copy(tmp_path)
    if variants is not None:
        workspace.set("variants", variants)
    if "oi.zarr" in expected:
        (workspace.folder / "data/digits/gradients/oi.zarr").rename(workspace.folder / "elsewhere")
    before = workspace.files()
    assert workspace.run(monkeypatch, "train", "digits", "cnn", name) == 1
    assert expected in capfd.readouterr().err.splitlines()[-1]
    assert workspace.files() == before


def test_noise_levels_need_a_network_of_all_levels(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    workspace = chain.copy(tmp_path)
    assert workspace.run(monkeypatch, "noise_levels", "digits") == 1
    assert "is not trained: diffusion.noise_levels = 'single'" in capfd.readouterr().err
    workspace.set("diffusion.noise_levels", "all")
    for stage in ("train_diffusion", "distill_sbg", "noise_levels"):
        assert workspace.run(monkeypatch, stage, "digits") == 0
    with np.load(tmp_path / "results/arrays/digits/noise_levels.npz") as arrays:
        assert arrays["gradients"].shape == (2, 8, 10, 1, 8, 8)
        assert arrays["noisy"].shape == (2, 8, 1, 8, 8)
        middle = int(np.abs(arrays["alpha_bar"] - 0.5).argmin())
        shown = arrays["gradients"][0, middle]
    with np.load(tmp_path / "results/arrays/digits/realizations/sbg.npz") as arrays:
        np.testing.assert_array_equal(shown, arrays["gradients"][0])  # the level that is distilled, the same image

    for key in ("baselines", "realizations", "robust"):
        workspace.set(key, [], "params.yaml")
    workspace.set("noise_level_figures", ["digits"], "params.yaml")
    assert workspace.run(monkeypatch, "report") == 0
    assert (tmp_path / "results/report/figures/digits-noise-levels.png").exists()
