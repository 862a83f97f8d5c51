import errno
import os
import socket
import tarfile
from pathlib import Path

import pytest
from image_trees import pack

from pag.datasets.source import SourceError, raw_root
from pag.datasets.tree import FileTree
from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import ConfigError


@pytest.mark.parametrize("suffix", [None, "zip", "tar.xz"])
def test_names_start_below_the_top_folder(tree, tmp_path, suffix):
    root = pack(tree, tmp_path / f"pets.{suffix}") if suffix else tree.parent
    files = FileTree(root)
    assert files.names[:2] == ["README.md", "test/"]
    assert "train/cat/0.PNG" in files.names
    assert not [name for name in files.names if "/." in name], "hidden files are left out"
    assert files.read_text("README.md") == "about pets"
    with pytest.raises(SourceError, match=r"has no words\.txt"):
        files.read_text("words.txt")


def test_reading_stops_after_the_last_wanted_file(tree, tmp_path):
    """A damaged rest of an archive does not matter to who needs only its beginning."""
    archive = pack(tree, tmp_path / "pets.tar")
    files = FileTree(archive)
    first = next(name for name in files.names if name.endswith(".PNG"))
    with tarfile.open(archive) as tar:
        end = next(e.offset_data + e.size for e in tar if e.name.endswith(first))
    archive.write_bytes(archive.read_bytes()[: end + 512])
    assert [name for name, _ in files.read([first])] == [first]


@pytest.mark.parametrize(
    ("name", "content"), [("x.zip", b"no zip"), ("x.tar.xz", b"no tar"), ("x.png", b"\x89PNG"), ("x.tar", b"")]
)
def test_unreadable_archive_is_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name} cannot be read as a .zip or .tar") as caught:
        FileTree(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_cut_archive_is_one_line(tree, tmp_path):
    archive = pack(tree, tmp_path / "pets.tar.xz")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"pets\.tar\.xz cannot be read"):
        FileTree(archive)


def test_missing_root(tmp_path):
    with pytest.raises(SourceError, match="nowhere does not exist: put the raw images"):
        FileTree(tmp_path / "nowhere")


def test_relative_root_starts_at_the_repository(monkeypatch, tmp_path):
    config = DataConfig(loader="folder", root="data/raw")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert raw_root(config) == Path("data/raw")
    copy = tmp_path / ".dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # what DVC sets for a queued experiment in a temporary copy …
    assert raw_root(config) == Path("data/raw")  # … and a stage of it passes on, to whatever it runs elsewhere
    monkeypatch.chdir(copy)
    assert raw_root(config) == tmp_path / "data/raw"
    assert raw_root(DataConfig(loader="folder", root="/elsewhere")) == Path("/elsewhere")
    with pytest.raises(ConfigError, match=r"data\.root: loader 'folder' needs"):
        raw_root(DataConfig(loader="folder"))


def break_link(folder: Path) -> None:
    (folder / "x").symlink_to("nothing")


def link_to_itself(folder: Path) -> None:
    (folder / "x").symlink_to("x")


def link_in_a_circle(folder: Path) -> None:
    (folder / "x").symlink_to("..")


def bind_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "x"))


@pytest.mark.parametrize(
    "make", [break_link, link_to_itself, link_in_a_circle, lambda folder: os.mkfifo(folder / "x"), bind_socket]
)
def test_what_is_no_file_is_refused_by_name(make, tmp_path, monkeypatch):
    (tmp_path / "train/cat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make(Path("train/cat"))
    with pytest.raises(SourceError, match=r"train/cat/x is a .*: remove it") as caught:
        FileTree(Path())
    assert "\n" not in str(caught.value)


def test_root_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(SourceError, match=r"x\.tar is a device or pipe: set data\.root"):
        FileTree(tmp_path / "x.tar")


def deny(*args, **kwargs):
    raise PermissionError(errno.EACCES, "Permission denied")  # root, as whom tests may run, may read everything


def test_unreadable_folder_and_file_are_named(tree, monkeypatch):
    files = FileTree(tree)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(SourceError, match=r"train/cat/0\.PNG cannot be read \(Permission denied\): make it readable"):
        list(files.read(["train/cat/0.PNG"]))
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(SourceError, match=r"pets cannot be read \(Permission denied\)"):
        FileTree(tree)


def test_archive_that_changed(tree, tmp_path):
    archive = pack(tree, tmp_path / "pets.tar")
    files = FileTree(archive)
    pack(tree / "test", archive)
    with pytest.raises(SourceError, match=r"pets\.tar changed while it was read"):
        list(files.read(files.names[-1:]))


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SourceError, match=r"words\.txt of .* is no UTF-8 text"):
        FileTree(tmp_path).read_text("words.txt")
