"""What counts as a change of raw files, and that nothing is read again without one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv

from pag.datasets import tree
from pag.datasets.raw_files import FETCHED, FOLDERS, RawFiles, load_seen, look, save_seen
from pag.datasets.source import SourceError
from pag.foundation.artifacts import save_arrays
from pag.foundation.config.conf import load_conf
from pag.foundation.config.data import DataConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a link to a file and one to a folder, both outside."""
    folder = tmp_path / "images"
    for name in ("images/train/cat/1.png", "images/train/cat/2.png", "images/test/cat/1.png", "other/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (folder / "train/dog").symlink_to(tmp_path / "other")
    (folder / "test/cat/linked.png").symlink_to(tmp_path / "other/1.png")
    return folder


def see(root: Path, before: RawFiles | None = None, **data: object) -> RawFiles:
    config = DataConfig(**{"loader": "folder", "root": str(root), **data})
    return look(config, before.seen if before else {})


def test_untouched_files_are_not_read_again(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = see(images)
    assert (first.files, first.read) == (5, 5)
    assert first.bytes == sum(len(path.read_bytes()) for path in images.rglob("*.png")) + len("other/1.png")
    monkeypatch.setattr("pag.datasets.raw_files._sha256", None)
    again = see(images, first)
    assert again.read == 0
    assert again.content == first.content


def rewrite(path: Path) -> None:
    """Another content of the same size; the time is set back, as by copying with times."""
    before = path.stat()
    path.write_bytes(bytes(len(path.read_bytes())))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def replace(path: Path) -> None:
    """Another file of the same size and time."""
    before = path.stat()
    other = path.with_name("new")
    other.write_bytes(bytes(before.st_size))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


def relink(path: Path) -> None:
    other = path.parents[2] / "elsewhere"
    (other / "other").mkdir(parents=True)
    (other / "other/1.png").write_bytes(b"others/1.png")
    path.unlink()
    path.symlink_to(other / "other")


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {  # what is done, and how many files are read for it
    "other content, size and name the same": (lambda folder: rewrite(folder / "train/cat/1.png"), 1),
    "another file of the same size and time": (lambda folder: replace(folder / "train/cat/1.png"), 1),
    "behind two links": (lambda folder: rewrite(folder / "../other/1.png"), 2),
    "a link that leads elsewhere": (lambda folder: relink(folder / "train/dog"), 1),
    "a new file": (lambda folder: (folder / "train/cat/3.png").write_bytes(b""), 1),
    "a file less": (lambda folder: (folder / "train/cat/2.png").unlink(), 0),
    "another name": (lambda folder: (folder / "train/cat/2.png").rename(folder / "train/cat/3.png"), 1),
    "another class": (lambda folder: (folder / "train/cat").rename(folder / "train/cow"), 2),
    "an empty class": (lambda folder: (folder / "train/cow").mkdir(), 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(images: Path, name: str) -> None:
    first = see(images)
    change, read = CHANGES[name]
    change(images)
    second = see(images, first)
    assert second.content != first.content
    assert second.read == read
    assert see(images).content == second.content  # the same as without the first look


def test_it_is_the_content_that_counts(images: Path, tmp_path: Path) -> None:
    """Times, places, hidden files and whether something is a link do not; the images are the same."""
    first = see(images)
    os.utime(images / "train/cat/1.png", ns=(0, 0))
    touched = see(images, first)
    assert (touched.read, touched.content) == (1, first.content)
    (images / ".DS_Store").write_bytes(b"x")
    copy = shutil.copytree(images, tmp_path / "copy")
    (tmp_path / "link").symlink_to(copy)
    assert see(copy).content == see(tmp_path / "link").content == first.content


def test_a_root_that_is_a_link_or_an_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.zip").write_bytes(name.encode())
    root = tmp_path / "link.zip"
    root.symlink_to(tmp_path / "a.zip")
    first = see(root)
    assert first.files == first.bytes == 1
    root.unlink()
    root.symlink_to(tmp_path / "b.zip")
    second = see(root, first)
    assert second.content != first.content
    rewrite(tmp_path / "b.zip")
    assert see(root, second).content not in (first.content, second.content)


def test_what_cannot_be_looked_at_is_one_line(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"nowhere does not exist: put the raw files there, or set data\.root$"):
        see(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"cifar-10-batches-py does not exist: .* data\.root or data\.download to"):
        see(tmp_path, loader="cifar10")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="is a device or pipe"):
        see(tmp_path / "pipe")
    monkeypatch.setattr(tree, "MAX_NAMES", 8)
    with pytest.raises(SourceError, match="has more than 8 files and folders"):
        see(images)
    monkeypatch.undo()
    (images / "train/circle").symlink_to(images)
    with pytest.raises(SourceError, match="is a link in a circle"):
        see(images)


def test_what_is_yet_to_be_fetched_is_nothing(tmp_path: Path) -> None:
    before = see(tmp_path, loader="cifar10", download=True)
    assert (before.files, before.bytes, before.read) == (0, 0, 0)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(b"x")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    after = see(tmp_path, before, loader="cifar10", download=True)
    assert after.files == 1  # what lies beside it is another data set's
    assert after.content != before.content
    with pytest.raises(SourceError, match="does not exist"):
        see(tmp_path / "nowhere", download=True)  # a folder of images is never fetched


def test_the_folders_are_those_that_torchvision_reads() -> None:
    assert {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100, "stl10": tv.STL10}.keys() == FOLDERS.keys()
    for name, kind in (("cifar10", tv.CIFAR10), ("cifar100", tv.CIFAR100), ("stl10", tv.STL10)):
        assert FOLDERS[name] == kind.base_folder
    confs = [load_conf(path.stem, ROOT / "conf").data for path in (ROOT / "conf").glob("*.yaml") if path.stem != "toy"]
    assert {conf.loader for conf in confs if conf.download} == FETCHED


def test_the_last_look_is_kept(images: Path, tmp_path: Path) -> None:
    (images / "train/cat" / os.fsdecode(b"\xff\n.png")).write_bytes(b"x")
    for found in (see(images), see(tmp_path, loader="cifar10", download=True)):
        save_seen(tmp_path / "look.npz", found.seen)
        assert load_seen(tmp_path / "look.npz") == found.seen


def test_a_last_look_that_is_damaged_is_none(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    assert load_seen(path) == {}
    save_seen(path, see(images).seen)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_seen(path) == {}
    save_arrays(path, {"names": np.zeros(3)})
    assert load_seen(path) == {}
