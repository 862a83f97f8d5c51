"""A cut of the miniature: a figure of the paper and a training step on real images, in this process."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from workspace import Workspace

from benchmarks import miniature
from benchmarks.miniature_data import CIFAR10_JPEG, SHARED, provide
from pag.datasets.preparation import prepare
from pag.foundation.config.conf import load_conf
from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import read_yaml
from stages.preset import load_preset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / CIFAR10_JPEG).is_file(), reason=f"{SHARED} has no {CIFAR10_JPEG}: set PAG_SHARED")
def test_figure_8_and_a_training_step_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conf", "presets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    miniature.shrink_paper(tmp_path, ["cifar10"])
    workspace = Workspace(tmp_path)
    for key, value in load_preset("figure8", tmp_path / "presets").values().items():
        workspace.set(key, value, "params.yaml")
    for stage in ("raw", "prepare", "train_diffusion", "distill_sbg", "noise_levels"):
        assert workspace.run(monkeypatch, stage, "cifar10") == 0
    assert workspace.run(monkeypatch, "train", "cifar10", "rn18", "sbg") == 0
    assert workspace.run(monkeypatch, "report") == 0
    assert "figures/cifar10-noise-levels.png" in (tmp_path / "results/report/report.md").read_text()
    images = np.load(tmp_path / "data/cifar10/images/train_images.npy")
    assert images.shape == (20, 3, 32, 32)
    assert 20 < images.std() < 100  # pictures, not noise or a plain colour


@pytest.mark.parametrize(("dataset", "classes", "side", "train"), [("stl10", 10, 96, 20), ("cifar100", 100, 32, 100)])
def test_generated_images_stand_in_for_a_download(
    dataset: str, classes: int, side: int, train: int, tmp_path: Path
) -> None:
    config = load_conf(dataset, ROOT / "conf").data.model_copy(update=provide(dataset, tmp_path))
    prepared = prepare(dataset, config, seed=0)
    assert prepared.image_shape == (3, side, side)
    assert [len(split) for _, split in prepared.splits()] == [train, classes, classes]
    assert config.note == "generated images"


def test_tiny_imagenet_is_generated_where_the_real_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.miniature_data.SHARED", tmp_path / "nowhere")
    config = load_conf("tinyimagenet", ROOT / "conf").data.model_copy(update=provide("tinyimagenet", tmp_path))
    assert isinstance(config, DataConfig)
    prepared = prepare("tinyimagenet", config, seed=0)
    assert [len(split) for _, split in prepared.splits()] == [20, 20, 20]


def test_presets_that_share_datasets_share_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: dict[tuple[str, ...], list[str]] = {}
    monkeypatch.setattr(miniature, "_run_group", lambda datasets, presets: groups.update({datasets: presets}))
    miniature.run_presets(["table3", "table4", "figure6", "table7", "table6", "toy", "runtime", "table2"])
    assert groups == {
        ("cifar10",): ["table3", "table6"],
        ("tinyimagenet",): ["table7"],
        (): ["toy", "runtime"],
        ("stl10", "cifar100"): ["table2", "figure6"],
    }


def test_a_shrunk_conf_keeps_the_radii_of_the_paper(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    before = read_yaml(ROOT / "conf/stl10.yaml")["evaluation"]["threat_models"]
    miniature.shrink_paper(tmp_path, ["stl10"])
    conf = load_conf("stl10", tmp_path / "conf")
    assert conf.evaluation.threat_models == before
    assert (conf.methods.at_l2.steps, conf.methods.at_l2.eps) == (1, 0.5)
