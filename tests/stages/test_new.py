"""From images of one's own to an experiment on them: what is written is valid, and fits the images."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from workspace import ROOT, Workspace

from pag.classifiers import build
from pag.diffusion.model.unet import build_unet
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.conf import load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.params import load_params
from pag.foundation.config.section import read_yaml
from pag.images.dataset import load
from stages.check import require_attackable
from stages.new.estimate import minutes
from stages.new.values import CPU, GPU, conf_of, diffusion, threat_models


def write_images(folder: Path, count: int, sides: tuple[int, ...], mode: str = "RGB", classes: str = "ab") -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            side = sides[i % len(sides)]
            pixels = rng.integers(0, 256, (side, side, 3) if mode == "RGB" else (side, side), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return Workspace(tmp_path)


def new(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return workspace.run(monkeypatch, "new.__main__", *arguments)


def keys_of_dvc() -> set[str]:
    """The keys of a data set's conf that dvc.yaml names: DVC stops a run at a missing one, after the stages before."""
    params = [entry for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values() for entry in stage.get("params", [])]
    confs = [keys for entry in params if isinstance(entry, dict) for file, keys in entry.items() if "item" in file]
    return {key for keys in confs for key in keys or () if "$" not in key}


@pytest.mark.parametrize("layout", ["classes", "parts", "archive"])
def test_what_is_written_is_an_experiment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, layout: str
) -> None:
    parts = ("train", "test") if layout == "parts" else ("",)
    for part in parts:
        write_images(workspace.folder / "pets" / part, 10, (16,))
    source = "pets"
    if layout == "archive":
        source = "pets.zip"
        with zipfile.ZipFile(workspace.folder / source, "w") as packed:
            for path in (workspace.folder / "pets").rglob("*.png"):
                packed.write(path, path.relative_to(workspace.folder))
    if layout == "parts":  # other pixels than those of train
        for path in (workspace.folder / "pets/test").rglob("*.png"):
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    if layout != "archive":  # one measurement is enough
        monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    assert new(workspace, monkeypatch, "mine", "--images", source) == 0
    printed = capsys.readouterr().out
    assert "16×16 pixels in 2 classes" in printed
    assert "minutes" in printed and printed.endswith("\n  dvc repro\n")
    fraction = 0.15 if layout == "parts" else 0.19  # of 10 images of a class, or the 8 that the test part leaves
    assert f"images (data.validation_fraction is {fraction}: the smallest class needs one there) of 16" in printed
    params, conf = load_params(), load_conf("mine")
    assert params.datasets == params.raw == ["mine"]
    assert conf.data.root == source
    assert (conf.data.test_fraction is None) == (layout == "parts")
    assert "# of the data split" in (workspace.folder / "params.yaml").read_text()  # the comments stay
    for stage in ("validate", "raw", "prepare"):
        assert workspace.run(monkeypatch, stage, *([] if stage == "validate" else ["mine"])) == 0, capsys.readouterr()
    content = read_yaml(workspace.folder / "conf/mine.yaml")
    for key in keys_of_dvc():
        section = content
        for name in key.split("."):
            assert name in section, f"dvc.yaml asks for {key}"
            section = section[name]
    known = subprocess.check_output(["git", "ls-files"], cwd=workspace.folder, text=True)
    assert "conf/mine.yaml" in known.split()  # or a queued experiment would not find it


def test_the_estimate_is_steps_times_their_seconds(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the steps, images or draws take twice the time, but for that of starting the stages."""
    monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    write_images(workspace.folder / "pets", 50, (16,))
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 0
    for stage in ("raw", "prepare"):
        assert workspace.run(monkeypatch, stage, "mine") == 0
    images, conf = load(Path("data/mine/images")), load_conf("mine")

    def estimated(section: str, **changes: object) -> dict[str, float]:
        """Without the time of starting: of seconds that are known, of the step of a U-Net, of a network, of a pass."""
        seconds = iter((3.0, 2.0, 0.1))
        monkeypatch.setattr("stages.new.estimate._seconds", lambda *arguments: next(seconds))
        monkeypatch.setattr("stages.new.estimate.STARTING", 0.0)
        changed = conf.model_copy(update={section: getattr(conf, section).model_copy(update=changes)})
        return minutes(images, changed, "cnn", torch.device("cpu"))

    assert conf.evaluation.images is None and len(images.test) == 20
    usual = estimated("classifier")
    assert usual["diffusion"] == conf.diffusion.steps * 3 / 60
    twice = {
        "diffusion": estimated("diffusion", steps=2 * conf.diffusion.steps),
        "gradients": estimated("distill", noise_draws=2),
        "classifiers": estimated("classifier", epochs=2 * conf.classifier.epochs),
        "AutoAttack": estimated("evaluation", threat_models={"L2": [1, 2, 3, 4], "Linf": [0.1, 0.2, 0.3, 0.4]}),
    }
    for part, found in twice.items():
        factor = 1 if part == "AutoAttack" else 2  # of which it takes norms, whose radii share the work
        assert found == pytest.approx({**usual, part: factor * usual[part]}), part
    assert estimated("evaluation", images=10)["AutoAttack"] == pytest.approx(usual["AutoAttack"] / 2)


@pytest.mark.parametrize(("modes", "channels"), [(("L",), None), (("L", "RGB"), 3), (("RGB",), 3)])
def test_one_image_in_colour_makes_all_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, modes: tuple[str, ...], channels: int | None
) -> None:
    monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    for mode, classes in zip(modes, ("ab", "c"), strict=False):
        write_images(workspace.folder / "pets", 12, (16,), mode, classes)
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 0
    assert load_conf("mine").data.channels == channels
    for stage in ("raw", "prepare"):
        assert workspace.run(monkeypatch, stage, "mine") == 0


def test_without_git_it_says_what_queues_lack(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.folder.parent))
    shutil.rmtree(workspace.folder / ".git")
    write_images(workspace.folder / "pets", 10, (16,))
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 0
    assert "conf/mine.yaml is not added to git, which queued experiments need" in capsys.readouterr().out
    assert load_params().datasets == ["mine"]


def test_an_interrupted_one_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.new.__main__.minutes", interrupted)
    write_images(workspace.folder / "pets", 10, (16,))
    before = (workspace.folder / "params.yaml").read_bytes()
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 130
    assert (workspace.folder / "params.yaml").read_bytes() == before
    assert not (workspace.folder / "conf/mine.yaml").exists()


def test_a_part_that_is_there_is_not_cut(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    rng = np.random.default_rng(1)
    for part, count in (("train", 10), ("test", 3), ("val", 3)):
        for name in "ab":
            (workspace.folder / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(workspace.folder / f"pets/{part}/{name}/{i}.png")
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 0
    printed = capsys.readouterr().out
    assert "20 train, 6 validation, 6 test" in printed and "the smallest class" not in printed


def test_images_of_several_sizes_get_one(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.new.__main__.minutes", lambda *arguments: {"all": 1.0})
    write_images(workspace.folder / "pets", 10, (40, 50, 60))
    assert new(workspace, monkeypatch, "mine", "--images", "pets") == 0
    assert load_conf("mine").data.image_size in (32, 64)  # 64 where there is a GPU
    assert new(workspace, monkeypatch, "small", "--images", "pets", "--image-size", "16") == 0
    assert load_conf("small").data.image_size == 16


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mine", "--images", "nowhere"], "nowhere does not exist"),
        (["digits", "--images", "pets"], "conf/digits.yaml exists: choose another name"),
        (["a/b", "--images", "pets"], "name 'a/b': expected letters, digits, - and _"),
        (["mine", "--images", "pets", "--image-size", "24"], "--image-size 24: AutoAttack cannot take it"),
        (["mine", "--images", "few"], "class 'a' has too few training images (3), expected at least 5"),
        (["mine", "--images", "tiny"], "images of 5 pixels a side, expected at least 8"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_changes_nothing(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    expected: str,
) -> None:
    write_images(workspace.folder / "pets", 10, (16,))
    write_images(workspace.folder / "few", 3, (16,))
    write_images(workspace.folder / "tiny", 10, (5,))
    before = (workspace.folder / "params.yaml").read_bytes()
    assert new(workspace, monkeypatch, *arguments) == 1
    assert expected in capsys.readouterr().err
    assert (workspace.folder / "params.yaml").read_bytes() == before
    assert not (workspace.folder / "conf/mine.yaml").exists()


def test_copies_and_dark_images_are_kept_where_they_are_meant(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(workspace.folder / "photos", 10, (8,))
    for file in (workspace.folder / "photos/a").glob("[0-4].png"):
        shutil.copy(file, workspace.folder / "photos/b" / f"copy of {file.name}")
    assert new(workspace, monkeypatch, "mine", "--images", "photos") == 1
    assert "(stages.new: --allow-overlap)" in capsys.readouterr().err
    assert new(workspace, monkeypatch, "mine", "--images", "photos", "--allow-overlap") == 0
    data = load_conf("mine", workspace.folder / "conf").data
    assert data.allow_overlap and not data.allow_dark


@pytest.mark.parametrize("side", [side for side in range(8, 66) if square_attack_fits(side, side)])
def test_the_networks_fit_every_side(side: int) -> None:
    config = DiffusionConfig(**diffusion(side, 8, 10) | {"channels": 32})
    with torch.device("meta"):
        build_unet(config, 3, side, 2)
    radii = threat_models(3, side)
    assert radii["L2"][0] < radii["L2"][1] < 3 * side**2


@pytest.mark.parametrize("scale", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_values_of_both_machines_are_valid(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, scale) -> None:
    from pag.datasets.preparation import prepare
    from pag.foundation.config.conf import Conf
    from pag.foundation.config.data import DataConfig
    from pag.foundation.config.section import check

    monkeypatch.chdir(workspace.folder)
    write_images(workspace.folder / "pets", 10, (28,), "L", "abcdefghijkl")
    data = DataConfig(loader="folder", root="pets", test_fraction=0.2, validation_fraction=0.2)
    images = prepare("mine", data, 0)
    conf = check(Conf, conf_of(images, data, scale), "conf/mine.yaml")
    require_attackable(images, conf)
    assert conf.alignment.classes_per_image == 1
    assert not conf.classifier.flip  # grey images may be of letters
    build(scale.arch, images.num_classes, images.image_shape, 0)


def test_a_queued_experiment_without_its_conf_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    copy = workspace.folder / ".dvc/tmp/exps/copy"
    shutil.copytree(workspace.folder / "conf", copy / "conf")
    shutil.copy(workspace.folder / "params.yaml", copy)
    shutil.copy(workspace.folder / "conf/digits.yaml", workspace.folder / "conf/mine.yaml")
    inside = Workspace(copy)
    inside.set("datasets", ["mine"], "params.yaml")
    monkeypatch.setenv("DVC_ROOT", str(workspace.folder))
    assert inside.run(monkeypatch, "validate") == 1
    assert "conf/mine.yaml is not in this experiment's copy of the repository" in capsys.readouterr().err
    assert read_yaml(copy / "params.yaml")["datasets"] == ["mine"]
