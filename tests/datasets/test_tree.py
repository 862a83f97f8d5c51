import tarfile
from pathlib import Path

import pytest
from image_trees import pack

from pag.datasets.source import SourceError, raw_root
from pag.datasets.tree import FileTree
from pag.foundation.config.conf import DataConfig
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


def test_leading_dot_and_links(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    archive = tmp_path / "dots.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "a.txt", "./train/x/a.txt")
        link = tarfile.TarInfo("./train/x/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        tar.addfile(link)
    assert FileTree(archive).names == ["train/x/a.txt"]


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
    with pytest.raises(SourceError, match="nowhere does not exist: put the folder or archive"):
        FileTree(tmp_path / "nowhere")


def test_relative_root_starts_at_the_repository(monkeypatch, tmp_path):
    config = DataConfig(loader="folder", root="data/raw")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert raw_root(config) == Path("data/raw")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # what DVC sets for a queued experiment in a temporary copy
    assert raw_root(config) == tmp_path / "data/raw"
    assert raw_root(DataConfig(loader="folder", root="/elsewhere")) == Path("/elsewhere")
    with pytest.raises(ConfigError, match=r"data\.root: loader 'folder' needs"):
        raw_root(DataConfig(loader="folder"))
