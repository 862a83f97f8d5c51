"""What the chain trained, through the command: a diffusion model that comes back the same, a folder, refusals."""

import json
from pathlib import Path

import pytest
import torch
from workspace import Workspace

from pag.foundation.artifacts import load_json, load_weights, save_json, sha256
from pag.images.dataset import load
from pag.interchange.classifier import load_folder


def with_wide_network(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Their networks have a multiple of 32 channels."""
    for key in ("channels", "head_dim"):
        workspace.set(f"diffusion.{key}", 32)
    assert workspace.run(monkeypatch, "train_diffusion", "digits") == 0
    return workspace


def test_a_diffusion_model_that_went_out_comes_back_the_same(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Exported, then named by the conf as its checkpoint: the same weights, and so the same gradients."""
    workspace = with_wide_network(chain.copy(tmp_path), monkeypatch)
    trained, _ = load_weights(tmp_path / "data/digits/diffusion/ema.safetensors")
    assert workspace.run(monkeypatch, "export", "guided-diffusion", "digits", "out") == 0
    workspace.set("diffusion.checkpoint", {"path": "out/ema.pt", "sha256": sha256(Path("out/ema.pt"))})
    assert workspace.run(monkeypatch, "train_diffusion", "digits") == 0
    assert "digits: converted; squared error of the noise" in capfd.readouterr().out
    back, _ = load_weights(tmp_path / "data/digits/diffusion/ema.safetensors")
    assert back.keys() == trained.keys() and all(torch.equal(back[name], trained[name]) for name in back)
    assert (tmp_path / "results/curves/digits/diffusion.csv").read_text().startswith("step,loss\n1,")

    weights = torch.load("out/ema.pt", weights_only=True)
    torch.save({**weights, "out.2.weight": -weights["out.2.weight"]}, "out/wrong.pt")  # it predicts −eps
    workspace.set("diffusion.checkpoint", {"path": "out/wrong.pt", "sha256": sha256(Path("out/wrong.pt"))})
    assert workspace.run(monkeypatch, "train_diffusion", "digits") == 1
    assert "and predicting nothing has 1: look at head_dim or heads" in capfd.readouterr().err

    workspace.set("diffusion.checkpoint", {"path": "out/ema.pt", "sha256": sha256(Path("out/ema.pt"))})
    workspace.set("diffusion.channels", 64)
    assert workspace.run(monkeypatch, "train_diffusion", "digits") == 1
    assert "out/ema.pt cannot be converted: it has channels 32 (here 64)" in capfd.readouterr().err


def test_the_arguments_are_those_of_the_packages_constructors(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = pytest.importorskip("guided_diffusion.unet", reason="guided-diffusion-sdk is not installed")
    scripts = pytest.importorskip("guided_diffusion.script_util")
    workspace = with_wide_network(chain.copy(tmp_path), monkeypatch)
    assert workspace.run(monkeypatch, "export", "guided-diffusion", "digits", "out") == 0
    arguments = json.loads(Path("out/arguments.json").read_text())
    theirs = unet.UNetModel(**arguments["UNetModel"])
    theirs.load_state_dict(torch.load("out/ema.pt", weights_only=True))
    diffusion = scripts.create_gaussian_diffusion(**arguments["create_gaussian_diffusion"])
    images = load(tmp_path / "data/digits/images")
    assert theirs(torch.zeros(2, *images.image_shape), torch.tensor([0, 5]), torch.tensor([0, 10])).shape[0] == 2
    assert diffusion.original_num_steps == 1000


def test_a_classifier_goes_out_with_its_numbers(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    workspace = chain.copy(tmp_path)
    assert workspace.run(monkeypatch, "export", "huggingface", "digits", "cnn", "sgb", "out") == 1
    assert "no classifier digits cnn sgb was trained here, did you mean 'digits cnn sbg'?" in capfd.readouterr().err
    command = "export", "huggingface", "digits", "cnn", "sbg", "out"
    assert workspace.run(monkeypatch, *command) == 1
    assert "records/digits/cnn/sbg.json is missing: run `dvc repro`" in capfd.readouterr().err
    about = load_json(tmp_path / "data/digits/classifiers/cnn/sbg/weights.json", sealed=True)
    metrics = {
        "weights_sha256": about["sha256"],
        "clean_accuracy": 0.9,
        "robust_accuracy": {"L2": {"0.5": 0.5}},
        "n_clean": 40,
        "n_examples": 10,
        "split": "test",
        "attack": None,
        "data_note": None,
    }
    save_json(tmp_path / "results/records/digits/cnn/sbg.json", metrics, sealed=True)
    assert workspace.run(monkeypatch, *command) == 0
    assert "out: README.md, config.json, model.safetensors" in capfd.readouterr().out
    assert load_folder(Path("out"))(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    card = Path("out/README.md").read_text()
    assert "- lambda: 2.0" in card and "license: mit" in card
    monkeypatch.setattr("stages.export.PUBLISHED", ())  # as if these images were somebody's own
    assert workspace.run(monkeypatch, *command[:-1], "theirs") == 0
    assert "The weights have no licence" in Path("theirs/README.md").read_text()

    assert workspace.run(monkeypatch, *command) == 1
    assert "error: out exists: name a new folder" in capfd.readouterr().err
    assert workspace.run(monkeypatch, "export", "robustbench", "digits", "cnn", "sbg", "new") == 1
    assert "RobustBench has cifar10 and cifar100 at 32×32: digits is neither" in capfd.readouterr().err
    assert not Path("new").exists() and not list(tmp_path.glob(".partial-*"))
