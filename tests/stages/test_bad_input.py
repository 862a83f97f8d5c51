"""Bad input: one clear line on stderr, a non-zero exit, and no half-written output."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from pyautoattack.square import SquareAttack
from workspace import ROOT, Workspace

from pag.foundation.artifacts import load_json, save_json
from pag.foundation.config.conf import load_conf
from pag.foundation.config.section import ConfigError
from pag.images.dataset import ImageDataset, Split
from stages.check import require_attackable
from stages.shared.command import run_stage

Change = Callable[[Workspace], None]


def store(workspace: Workspace, name: str = "sbg"):
    return workspace.folder / f"data/digits/gradients/{name}.zarr"


def delete(path: str) -> Change:
    def change(workspace: Workspace) -> None:
        target = workspace.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def damage_store(workspace: Workspace) -> None:
    shard = max(store(workspace).rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)


def swap_store(workspace: Workspace) -> None:
    shutil.rmtree(store(workspace))
    shutil.copytree(store(workspace, "cm"), store(workspace))


def other_images(workspace: Workspace) -> None:
    path = workspace.folder / "data/digits/images/dataset.json"
    save_json(path, load_json(path, sealed=True) | {"name": "other"}, sealed=True)


def changed_weights(workspace: Workspace) -> None:
    path = workspace.folder / "data/digits/diffusion/ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def described(**changes: object) -> Change:
    """The classifier sbg with another description, sealed as if it were right."""

    def change(workspace: Workspace) -> None:
        path = workspace.folder / "data/digits/classifiers/cnn/sbg/weights.json"
        save_json(path, load_json(path, sealed=True) | changes, sealed=True)

    return change


def other_classifier(workspace: Workspace) -> None:
    folder = workspace.folder / "data/digits/classifiers/cnn"
    shutil.rmtree(folder / "sbg")
    shutil.copytree(folder / "vanilla", folder / "sbg")


def other_diffusion(workspace: Workspace) -> None:
    path = workspace.folder / "data/digits/classifiers/cnn/sbg/weights.json"
    save_json(path, load_json(path, sealed=True) | {"diffusion_sha256": "0" * 64}, sealed=True)


def own_images(workspace: Workspace) -> None:
    workspace.set("data.loader", "folder")
    workspace.set("data.root", "pictures")


def damaged_look(workspace: Workspace) -> None:
    own_images(workspace)
    save_json(workspace.folder / "data/raw_files/digits.json", {"files": 1, "seal": "0"})


def value(path: str, content: object, file: str = "conf/digits.yaml") -> Change:
    return lambda workspace: workspace.set(path, content, file)


def variant_of_eleven(workspace: Workspace) -> None:
    workspace.set("variants", {"a": {"method": "sbg", "classes_per_image": 11}})
    workspace.set("variants", ["a"], "params.yaml")


def no_note(workspace: Workspace) -> None:
    workspace.set("data", {"loader": "digits", "test_fraction": 0.2})


def several(values: dict[str, object]) -> Change:
    def change(workspace: Workspace) -> None:
        for path, content in values.items():
            workspace.set(path, content, "params.yaml")

    return change


def run_away(workspace: Workspace) -> None:
    for key, content in {"optimizer": "sgd", "lr": 10.0, "weight_decay": 10.0, "epochs": 5}.items():
        workspace.set(f"classifier.{key}", content)


CASES: list[tuple[str, tuple[str, ...], Change, str]] = [
    ("unknown dataset", ("prepare", "digit"), lambda w: None, "unknown dataset 'digit', did you mean 'digits'?"),
    ("unknown loader", ("prepare", "digits"), value("data.loader", "digts"), "did you mean 'digits'?"),
    ("unknown key", ("prepare", "digits"), value("data.lodaer", "digits"), "did you mean 'loader'?"),
    (
        "no raw files",
        ("raw", "digits"),
        own_images,
        "pictures does not exist: put the raw files there, or set data.root",
    ),
    ("no root", ("raw", "digits"), lambda w: None, "remove digits from `raw` of params.yaml"),
    ("raw files not looked at", ("prepare", "digits"), own_images, "add digits to `raw` of params.yaml, or -S 'raw=["),
    ("raw files not listed", ("validate",), own_images, "add digits to `raw` of params.yaml, or -S 'raw=[digits]' to"),
    ("damaged look", ("prepare", "digits"), damaged_look, "digits.json is damaged or was edited"),
    ("wrong type", ("train", "digits", "cnn", "vanilla"), value("classifier.epochs", "x"), "classifier.epochs"),
    (
        "unknown architecture",
        ("train", "digits", "rn81", "vanilla"),
        delete("data/digits/images/dataset.json"),
        "unknown architecture 'rn81', did you mean",
    ),
    (
        "unknown method, and nothing prepared",
        ("train", "digits", "cnn", "vanila"),
        delete("data/digits/images/dataset.json"),
        "unknown run 'vanila'",
    ),
    ("evaluate an unknown architecture", ("evaluate", "digits", "cmm", "sbg"), lambda w: None, "architecture 'cmm'"),
    ("evaluate an unknown method", ("evaluate", "digits", "cnn", "sgb"), lambda w: None, "unknown run 'sgb'"),
    ("t outside", ("distill_sbg", "digits"), value("distill.t", 5000), "outside the schedule 0..999"),
    ("t not trained", ("distill_sbg", "digits"), value("distill.t", 3), "is not trained"),
    ("negative λ", ("train", "digits", "cnn", "sbg"), value("lambda", -1.0, "params.yaml"), "lambda"),
    ("eps 0", ("evaluate", "digits", "cnn", "sbg"), value("evaluation.threat_models.L2", [0.0]), "threat_models.L2"),
    ("far curve", ("check", "digits"), value("evaluation.curve", {"L2": [1.0, 9.0]}), "curve.L2 = 9"),
    (
        "far picture",
        ("check", "digits"),
        value("evaluation.large_eps.eps", 8.5),
        "large_eps.eps = 8.5",
    ),
    ("eps 2", ("evaluate", "digits", "cnn", "sbg"), value("evaluation.threat_models.Linf", [2.0]), "at most 1"),
    (
        "a radius beyond all images",
        ("check", "digits"),
        value("evaluation.threat_models.L2", [0.5, 8.1]),
        "evaluation.threat_models.L2 = 8.1 for L2: expected above 0 and at most 8: no two images are farther apart",
    ),
    (
        "AT's radius beyond all images",
        ("check", "digits"),
        value("methods.at-l2.eps", 8.1),
        "methods.at-l2.eps = 8.1 for L2: expected above 0 and at most 8",
    ),
    (
        "crop padding of the image's side",
        ("check", "digits"),
        value("classifier.crop_padding", 8),
        "digits / vanilla: classifier.crop_padding = 8, but there are 8 pixels a side: expected fewer",
    ),
    (
        "architecture of λ",
        ("validate",),
        value("methods.sbg.lambda", {"default": 2.0, "vitmini": 1.0}),
        "methods.sbg.lambda: unknown name 'vitmini', did you mean 'vit-mini'?",
    ),
    (
        "unknown arch",
        ("validate",),
        value("archs", ["cnnn"], "params.yaml"),
        "unknown name 'cnnn', did you mean",
    ),
    (
        "unknown attack",
        ("validate",),
        value("evaluation.foolbox", {"GaussianBlurAttak": 2.0}),
        "unknown name 'GaussianBlurAttak', did you mean 'GaussianBlurAttack'?",
    ),
    ("unknown variant", ("validate",), value("variants", ["lambda-3"], "params.yaml"), "'lambda-3'"),
    (
        "variant of another λ",
        ("validate",),
        several({"variants": ["sbg-seed-1"], "lambda": 1.0}),
        "has no lambda, and the 1",
    ),
    (
        "variant without gradients",
        ("validate",),
        several({"heuristics": [], "realizations": ["sbg"], "variants": ["nn-seed-1"]}),
        "is trained on 'nn', which is not distilled: add it to heuristics",
    ),
    ("no radius", ("validate",), value("evaluation.threat_models", {}), "has no radius, expected at least one"),
    ("misspelt λ, all else up to date", ("validate",), value("lamda", 1.0, "params.yaml"), "did you mean 'lambda'?"),
    (
        "k above C",
        ("check", "digits"),
        value("alignment.classes_per_image", 20),
        "oi: alignment.classes_per_image = 20",
    ),
    (
        "k above C, by hand",
        ("train", "digits", "cnn", "sbg"),
        value("alignment.classes_per_image", 20),
        "alignment.classes_per_image = 20, but there are 10 classes: expected at most as many, or all",
    ),
    (
        "crops of nothing, by hand",
        ("train", "digits", "cnn", "vanilla"),
        value("classifier.crop_padding", 8),
        "8 pixels a side",
    ),
    (
        "far curve, by hand",
        ("evaluate", "digits", "cnn", "sbg"),
        value("evaluation.curve", {"L2": [9.0]}),
        "curve.L2 = 9",
    ),
    ("no note, which dvc.yaml names", ("validate",), no_note, "data.note: missing"),
    ("a variant's k above C", ("check", "digits"), variant_of_eleven, "digits / a: alignment.classes_per_image = 11"),
    ("side of an architecture", ("check", "digits"), value("archs", ["cnn", "vgg11"], "params.yaml"), "least 32x32"),
    ("resolution of the U-Net", ("check", "digits"), value("diffusion.attention", [16]), "has no such resolution"),
    ("heads of the U-Net", ("check", "digits"), value("diffusion.channels", 33), "does not divide the 66 channels"),
    ("level to be trained", ("check", "digits"), value("distill.t", 3), "is not trained"),
    (
        "checkpoint that is not there",
        ("check", "digits"),
        value("diffusion.checkpoint", {"path": "none.pt", "sha256": 64 * "0"}),
        "diffusion.checkpoint.path: there is no file",
    ),
    ("misspelt λ", ("report",), value("lamda", 1.0, "params.yaml"), "did you mean 'lambda'?"),
    ("no images", ("train_diffusion", "digits"), delete("data/digits/images"), "is missing: run `dvc repro`"),
    ("no diffusion", ("distill_sbg", "digits"), delete("data/digits/diffusion"), "is missing: run `dvc repro`"),
    ("changed diffusion", ("distill_sbg", "digits"), changed_weights, "is not the file"),
    ("no store", ("train", "digits", "cnn", "sbg"), delete("data/digits/gradients/sbg.zarr"), "is missing"),
    (
        "incomplete store",
        ("train", "digits", "cnn", "sbg"),
        delete("data/digits/gradients/sbg.zarr/zarr.json"),
        "is incomplete",
    ),
    ("damaged store", ("train", "digits", "cnn", "sbg"), damage_store, "is damaged"),
    ("store of another realization", ("train", "digits", "cnn", "sbg"), swap_store, "realization = 'cm'"),
    ("other images", ("train", "digits", "cnn", "sbg"), other_images, "does not match the hash"),
    ("other diffusion model", ("evaluate", "digits", "cnn", "sbg"), other_diffusion, "another diffusion model"),
    ("another run's weights", ("evaluate", "digits", "cnn", "sbg"), other_classifier, "its run is vanilla"),
    ("another arch", ("evaluate", "digits", "cnn", "sbg"), described(arch="mlp"), "its arch is mlp, expected cnn"),
    ("another data set", ("evaluate", "digits", "cnn", "sbg"), described(dataset="x"), "its dataset is x"),
    ("weights of other images", ("evaluate", "digits", "cnn", "sbg"), described(dataset_hash="0"), "its dataset_hash"),
    ("no classifier", ("evaluate", "digits", "cnn", "oi"), lambda w: None, "is missing"),
    ("no metrics", ("report",), lambda w: None, "is missing"),
    ("weights that run away", ("train", "digits", "cnn", "vanilla"), run_away, "at step"),
    ("NaN diffusion", ("train_diffusion", "digits"), value("diffusion.lr", 10.0), "at step"),
]


@pytest.mark.parametrize(("command", "change", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_one_line_and_nothing_written(
    chain: Workspace,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    command: tuple[str, ...],
    change: Change,
    expected: str,
) -> None:
    workspace = chain.copy(tmp_path)
    change(workspace)
    before = without_curves(workspace)
    assert workspace.run(monkeypatch, *command) not in (0, None)
    error = capfd.readouterr().err.strip().splitlines()
    assert expected in error[-1], error
    assert "Traceback" not in "".join(error)
    assert without_curves(workspace) == before


def without_curves(workspace: Workspace) -> dict[Path, bytes]:
    """Curves are drawn while a training runs; DVC takes them as outs of one that ended well."""
    return {path: content for path, content in workspace.files().items() if "curves" not in path.parts}


def test_an_interrupt_is_not_a_success(chain: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC records the outs of a stage that exits 0, half-written ones too."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    workspace = chain.copy(tmp_path)
    monkeypatch.setattr("stages.train.train_classifier", interrupt)
    before = workspace.files()
    assert workspace.run(monkeypatch, "train", "digits", "cnn", "vanilla") == 130
    assert workspace.files() == before


@pytest.mark.parametrize("side", [3, 6, 8, 9, 12, 14, 16, 18, 19, 24, 28, 32, 64, 96])
def test_sizes_on_which_the_square_attack_fails_are_refused_before_anything_is_trained(side: int) -> None:
    """Against the attack itself: of its start, one query."""
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    split = Split((255 * images).byte().numpy(), np.arange(2))
    dataset = ImageDataset.create("own", ("0", "1"), train=split, validation=split, test=split)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side**2, 2))
    square = SquareAttack(model, norm="L2", eps=0.1, n_queries=1, seed=0, device="cpu")
    try:
        with torch.no_grad():
            square.perturb(images, model(images).argmax(1))
        fails = False
    except (RuntimeError, ZeroDivisionError):
        fails = True
    conf = load_conf("digits", ROOT / "conf")
    with pytest.raises(ConfigError, match=f"{side}×{side} pixels") if fails else nullcontext():
        require_attackable(dataset, conf)
    without_l2 = conf.evaluation.model_copy(update={"threat_models": {"Linf": [0.1]}})
    require_attackable(dataset, conf.model_copy(update={"evaluation": without_l2}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "error: out of memory: lower the batch_size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\ntried"),
            "can't allocate memory: tried",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of memory. Tried"),
    ],
)
def test_too_little_memory_is_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command(standalone_mode: bool) -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        run_stage(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and said in line and "lower the batch_size" in line


def test_another_error_of_the_libraries_is_not_taken_for_it() -> None:
    def command(standalone_mode: bool) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="do not fit"):
        run_stage(command)


def test_what_check_writes_is_the_same_for_all_values_that_fit(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whatever waits for it would run again; and what nothing trains is not looked at."""
    workspace = chain.copy(tmp_path)
    before = (tmp_path / "data/digits/checked.json").read_bytes()
    workspace.set("alignment.classes_per_image", 7)
    workspace.set("evaluation.threat_models", {"L2": [0.3]})
    workspace.set("training_seed", 3, "params.yaml")
    workspace.set("variant_archs", ["vgg11"], "params.yaml")
    assert workspace.run(monkeypatch, "check", "digits") == 0
    assert (tmp_path / "data/digits/checked.json").read_bytes() == before
    nothing: dict[str, list[str]] = {"baselines": [], "realizations": [], "robust": [], "archs": ["vgg11"]}
    several({**nothing, "noise_level_figures": ["digits"]})(workspace)
    assert workspace.run(monkeypatch, "check", "digits") == 0


def test_check_looks_at_variants_where_they_run_alone(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = chain.copy(tmp_path)
    variant_of_eleven(workspace)
    several({"datasets": ["digits", "mnist"], "variant_datasets": ["mnist"]})(workspace)
    assert workspace.run(monkeypatch, "check", "digits") == 0
    workspace.set("variant_datasets", ["mnist", "digits"], "params.yaml")
    assert workspace.run(monkeypatch, "check", "digits") == 1
    assert "digits / a: alignment.classes_per_image = 11" in capsys.readouterr().err
