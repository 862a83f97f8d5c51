"""The stages one after the other, in one process, on a few steps of everything."""

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from workspace import Workspace

from pag.diffusion.model.trained import load_diffusion
from pag.foundation.artifacts import load_arrays, load_json
from pag.foundation.config.section import read_yaml
from pag.foundation.seeding import derive_seed
from pag.gradients.score import ScoreBased
from pag.images.dataset import load
from pag.store.reader import GradientStore


@pytest.mark.usefixtures("two_threads")
def test_the_chain_ends_in_metrics_and_a_report(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = chain.copy(tmp_path)
    lists = {"baselines": ["vanilla", "at-l2"], "realizations": ["sbg"]}
    for key, value in lists.items():
        workspace.set(key, value, "params.yaml")
    for method in ("sbg", "vanilla", "at-l2", "at-l2+sbg"):
        assert workspace.run(monkeypatch, "evaluate", "digits", "cnn", method) == 0
        torch.set_num_threads(1)  # two processes attacked SBG, one norm each: they take seconds to start
    metrics = json.loads((tmp_path / "results/records/digits/cnn/sbg.json").read_text())
    assert set(metrics["robust_accuracy"]) == {"L2", "Linf"}
    assert (
        0 <= metrics["robust_accuracy"]["L2"]["0.5"] <= metrics["clean_accuracy"] + 1e-9 or metrics["n_examples"] < 40
    )
    assert -1 <= metrics["alignment"] <= 1
    assert metrics["n_examples"] == 10
    assert metrics["alignment_weight"] == 2.0
    assert metrics["classes_per_image"] == 3

    assert metrics["run"] == metrics["method"] == "sbg" and metrics["dataset"] == "digits"
    outcomes = load_arrays(tmp_path / "results/arrays/digits/outcomes/cnn/sbg.npz")
    test = load(tmp_path / "data/digits/images").test
    assert outcomes["labels"].tolist() == test.labels[outcomes["rows"]].tolist()
    assert outcomes["clean_correct"].mean() == metrics["clean_accuracy"]
    assert outcomes["clean_correct"][outcomes["rows"]].mean() == metrics["attacked_clean_accuracy"]
    for norm, radii in metrics["robust_accuracy"].items():
        for eps, value in radii.items():
            assert (outcomes[f"radius_{norm}"] > float(eps)).mean() == value

    assert workspace.run(monkeypatch, "report") == 0
    assert (tmp_path / "results/report/report.md").stat().st_size > 1000


@pytest.mark.usefixtures("few_iterations")
def test_a_curve_and_sanity_checks_are_made_where_they_are_asked_for(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = chain.copy(tmp_path)
    for key, value in {"curve": {"L2": [0.25, 8.0]}, "sanity": 4, "threat_models": {"L2": [0.5]}, "images": 5}.items():
        workspace.set(f"evaluation.{key}", value)
    assert workspace.run(monkeypatch, "evaluate", "digits", "cnn", "vanilla") == 0
    metrics = json.loads((tmp_path / "results/records/digits/cnn/vanilla.json").read_text())
    assert len(metrics["sanity"]) == 4 and {"name", "passed", "detail"} == set(metrics["sanity"][0])
    outcomes = load_arrays(tmp_path / "results/arrays/digits/outcomes/cnn/vanilla.npz")
    assert outcomes["curve_eps_L2"].tolist() == [0.25, 8.0]
    assert np.isfinite(outcomes["curve_radius_L2"]).all()  # 8 is the diameter of a cube of 64 pixels
    assert ((outcomes["curve_radius_L2"] == 0) == ~outcomes["clean_correct"][outcomes["rows"]]).all()


def test_validation_images_are_counted_noted_and_not_measured_against_test_images(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("evaluation.split", "validation")
    assert workspace.run(monkeypatch, "evaluate", "digits", "cnn", "vanilla") == 0
    metrics = json.loads((tmp_path / "results/records/digits/cnn/vanilla.json").read_text())
    assert metrics["alignment"] is None  # the held-out directions are of test images
    labels = load(tmp_path / "data/digits/images").validation.labels
    assert metrics["n_clean"] == len(labels)
    assert metrics["chance_accuracy"] == max((labels == y).mean() for y in range(10))
    assert metrics["data_note"].endswith(", validation images")


def test_the_held_out_directions_keep_their_precision(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What alignment is measured with is the same whatever the classifiers are trained with."""

    def files(name: str) -> dict[Path, bytes]:
        folder = tmp_path / f"data/digits/gradients/{name}.zarr"
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    workspace = chain.copy(tmp_path)
    before = {name: files(name) for name in ("heldout", "sbg")}
    workspace.set("distill.bits", 4)
    assert workspace.run(monkeypatch, "distill_sbg", "digits") == 0
    assert files("heldout") == before["heldout"]
    assert files("sbg") != before["sbg"]


def test_the_held_out_images_have_noise_of_their_own(chain: Workspace) -> None:
    """Image i of the test part and image i of the training part are not seen through the same noise."""
    images = load(chain.folder / "data/digits/images")
    model = load_diffusion(chain.folder / "data/digits/diffusion", "cpu", images)
    store = GradientStore.open(chain.folder / "data/digits/gradients/heldout.zarr")
    x = images.test.unit(np.array(store.attributes["rows"]))
    stored = torch.from_numpy(store.read_all_classes(np.arange(len(x)))).flatten(2).float()

    def cosine(seed: int) -> float:
        made = ScoreBased(model, store.attributes["t"], store.attributes["noise_draws"], seed)(x, torch.arange(len(x)))
        return torch.nn.functional.cosine_similarity(made.flatten(2), stored, dim=2).mean().item()

    seed = store.attributes["seed"]
    assert cosine(derive_seed(seed, "heldout")) > 0.999
    assert cosine(seed) < 0.99


def test_the_toy_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.create(tmp_path)
    assert workspace.run(monkeypatch, "prepare_toy") == 0
    assert workspace.run(monkeypatch, "toy") == 0
    metrics = json.loads((tmp_path / "results/records/toy.json").read_text())
    assert len(metrics["nn"]["pgd"]["values"]) == metrics["seeds"] == 2


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("train_diffusion", ("digits",)),
        ("distill_sbg", ("digits",)),
        ("train", ("digits", "cnn", "sbg")),
        ("train", ("digits", "cnn", "at-l2+sbg")),
    ],
)
def test_a_stage_gives_the_same_bytes_again(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch, stage: str, arguments: tuple[str, ...]
) -> None:
    workspace = chain.copy(tmp_path)
    before = workspace.files()
    assert workspace.run(monkeypatch, stage, *arguments) == 0
    changed = {path for path, content in workspace.files().items() if before[path] != content}
    assert {path.parts[1] for path in changed} <= {"timings"}


def test_the_distilled_bytes_do_not_depend_on_the_batch_size(
    chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("distill.batch_size", 7)
    before = workspace.files()
    assert workspace.run(monkeypatch, "distill_sbg", "digits") == 0
    assert workspace.run(monkeypatch, "distill", "digits", "nn") == 0
    assert workspace.files() == before


def test_lambda_of_params_overrides_conf(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("lambda", 0.25, "params.yaml")
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "cm") == 0
    about = json.loads((tmp_path / "data/digits/classifiers/cnn/cm/weights.json").read_text())
    assert about["lambda"] == 0.25


def test_lambda_zero_is_vanilla_training(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With λ = 0 the alignment run takes the very steps of the vanilla run: same order, same augmentation."""
    workspace = chain.copy(tmp_path)
    workspace.set("lambda", 0.0, "params.yaml")
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "sbg") == 0
    curves = [
        (tmp_path / f"results/curves/digits/cnn/{method}.csv").read_text().splitlines()[1].split(",")
        for method in ("vanilla", "sbg")
    ]
    assert float(curves[0][1]) == pytest.approx(float(curves[1][1]), rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "key", "curve", "stops"),
    [
        (("train", "digits", "cnn", "vanilla"), "classifier.epochs", "cnn/vanilla.csv", "pag.training.loop.accuracy"),
        (("train_diffusion", "digits"), "diffusion.steps", "diffusion.csv", "pag.diffusion.training.diffusion_loss"),
    ],
    ids=["classifier", "diffusion"],
)
def test_a_curve_is_there_while_training_runs(
    stage: tuple[str, ...],
    key: str,
    curve: str,
    stops: str,
    chain: Workspace,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set(key, 4)
    path = tmp_path / "results/curves/digits" / curve
    path.unlink()
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")

    def fails_at_the_fourth(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise OSError("stopped in here")
        return whole(*arguments)

    with monkeypatch.context() as patch:
        calls: list[int] = []
        whole = resolve_name(stops)
        patch.setattr(stops, fails_at_the_fourth)
        assert workspace.run(monkeypatch, *stage) == 1
    so_far = path.read_text()
    assert len(so_far.splitlines()) >= 3  # the header and two points
    monkeypatch.setattr(f"stages.{stage[0]}.hardware", lambda device: "another machine", raising=False)
    assert workspace.run(monkeypatch, *stage) == 0
    if stage[0] == "train":
        timings = load_json(tmp_path / "results/timings/digits/cnn/vanilla.json", sealed=True)
        assert timings["train_hardware"].endswith(", then another machine")
        assert timings["seconds_per_step"] is None
    assert path.read_text().startswith(so_far) and len(path.read_text().splitlines()) == 5


def test_previews_hold_one_gradient_per_shown_class(chain: Workspace) -> None:
    with np.load(chain.folder / "results/arrays/digits/realizations/sbg.npz") as arrays:
        assert arrays["gradients"].shape == (10, 10, 1, 8, 8)


def test_what_the_chain_was_run_with_is_valid(chain: Workspace) -> None:
    assert read_yaml(chain.folder / "conf/digits.yaml")["classifier"]["epochs"] == 1


def test_a_note_changes_no_image(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `dvc repro` carries it into the numbers without training anything (tests/pipeline/test_edits.py)."""
    workspace = chain.copy(tmp_path)
    before = workspace.files()
    workspace.set("data.note", "a note")
    assert workspace.run(monkeypatch, "prepare", "digits") == 0
    assert workspace.files() == before
