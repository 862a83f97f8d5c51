"""Raw files that change after a run: DVC would run prepare again, and not without a change. The stage raw runs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from test_edits import change

from benchmarks.miniature import ROOT, copy_repository
from pag.foundation.config.section import read_yaml

LISTS = ("heuristics", "realizations", "robust", "robust_realizations", "point_sets")
ONLY_MINE = {"datasets": ["digits", "mine"], "raw": ["mine"], **{key: [] for key in LISTS}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("raw")
    copy_repository(folder)
    (folder / "dvc.lock").unlink()
    stages = read_yaml(folder / "dvc.yaml")["stages"]
    YAML().dump({"stages": {name: stages[name] for name in ("raw", "prepare")}}, folder / "dvc.yaml")
    change(folder / "params.yaml", ONLY_MINE)
    conf = (folder / "conf/cifar10-jpeg.yaml").read_text()
    (folder / "conf/mine.yaml").write_text(conf)
    change(folder / "conf/mine.yaml", {"data.root": "data/raw/mine"})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
        yield folder


@pytest.fixture
def images(folder: Path) -> Path:
    path = folder / "data/raw/mine/train/cat/1.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    looked_at(folder)
    for dataset in ("digits", "mine"):
        out = folder / f"data/{dataset}/images"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(dataset)
    with Repo(str(folder)) as repo:
        repo.commit("prepare", force=True)
    return path


def looked_at(folder: Path) -> set[str]:
    """Which stages are to run after a look, of those that prepare images."""
    with Repo(str(folder)) as repo:
        repo.reproduce("raw@mine")
        return set(repo.status(["prepare@mine", "prepare@digits"]))


def test_untouched_images_are_not_prepared_again(folder: Path, images: Path) -> None:
    assert looked_at(folder) == set()
    images.touch()
    assert looked_at(folder) == set()


@pytest.mark.parametrize("content", [b"an Image", b"another image"])
def test_replaced_images_are_prepared_again(folder: Path, images: Path, content: bytes) -> None:
    images.write_bytes(content)
    assert "prepare@mine" in looked_at(folder)
    images.write_bytes(b"an image")
    assert looked_at(folder) == set()


def test_a_link_that_leads_elsewhere(folder: Path, images: Path) -> None:
    root = folder / "data/raw/mine"
    root.rename(folder / "data/raw/first")
    root.symlink_to(folder / "data/raw/first")
    assert looked_at(folder) == set()  # the same images
    root.unlink()
    (folder / "data/raw/second/train/cat").mkdir(parents=True)
    (folder / "data/raw/second/train/cat/1.png").write_bytes(b"AN IMAGE")
    root.symlink_to(folder / "data/raw/second")
    assert "prepare@mine" in looked_at(folder)
    root.unlink()
    (folder / "data/raw/first").rename(root)


def test_a_look_does_not_wait_for_pytorch() -> None:
    loaded = "import sys, stages.raw; sys.exit(sorted({'torch', 'torchvision', 'scipy'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=True)


def test_without_raw_files_there_is_nothing_to_look_at() -> None:
    """What DVC says of digits in `git clone`: a stage that always runs is never up to date."""
    with Repo(str(ROOT)) as repo:
        assert not [stage.addressing for stage in repo.index.stages if stage.always_changed]
    assert read_yaml(ROOT / "params.yaml")["raw"] == []
