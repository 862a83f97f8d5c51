"""What an archive holds is what unpacking it gives; the judge is GNU tar, or unzip."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pag.datasets import archive, tree
from pag.datasets.source import SourceError
from pag.datasets.tree import FileTree


def write_tar(path: Path, entries: list[tuple[str, bytes, bytes | str]]) -> Path:
    """(name, type of tarfile, content or target)."""
    with tarfile.open(path, "w") as tar:
        for name, kind, what in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            content = what if isinstance(what, bytes) else b""
            entry.linkname = what if isinstance(what, str) else ""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def read_all(root: Path) -> dict[str, bytes]:
    files = FileTree(root)
    return dict(files.read([name for name in files.names if not name.endswith("/")]))


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    """By a program that knows nothing of ours, read by the file system, which follows links."""
    folder.mkdir()
    command = ["unzip", "-qo"] if path.suffix == ".zip" else ["tar", "-xf"]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    subprocess.run([*command, path.resolve()], cwd=folder, check=True)
    found = [Path(top) / name for top, _, names in os.walk(folder, followlinks=True) for name in names]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


REG, SYM, LNK = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
SAME = {
    "hard link": [("train/a/0", REG, b"0"), ("train/a/1", LNK, "train/a/0")],
    "last of two": [("./train/a/0", REG, b"0"), ("./train/a/1", REG, b"1"), ("train/a/0", REG, b"2")],
    "hard link, then another file of the first name": [
        ("train/a/0", REG, b"0"),
        ("train/a/1", LNK, "./train/a/0"),
        ("train/a/0", REG, b"2"),
    ],
    "symlink, then another file of the first name": [
        ("train/a/0", REG, b"0"),
        ("train/a/1", SYM, "0"),
        ("train/a/0", REG, b"2"),
    ],
    "symlink before its file": [("train/a/1", SYM, "../b/0"), ("train/b/0", REG, b"0")],
    "symlink to a folder": [("pool/c/0", REG, b"0"), ("train/c", SYM, "../pool/c"), ("train/a/0", REG, b"1")],
    "symlink through a symlink": [
        ("pool/c/0", REG, b"0"),
        ("train/c", SYM, "../pool/c"),
        ("train/a/0", SYM, "../c/./0"),
    ],
    "hard link to a symlink": [
        ("train/a/0", REG, b"0"),
        ("train/b/0", REG, b"1"),
        ("train/a/1", SYM, "0"),
        ("train/b/1", LNK, "train/a/1"),
    ],
    "a file that becomes a link": [("train/a/0", REG, b"0"), ("train/a/1", REG, b"1"), ("train/a/1", SYM, "0")],
    "folders stored twice": [
        ("train/", tarfile.DIRTYPE, ""),
        ("train/a/0", REG, b"0"),
        ("./train/a/", tarfile.DIRTYPE, ""),
    ],
    "a long name": [("train/a/" + "n" * 150, REG, b"0")],
}


@pytest.mark.parametrize("case", SAME)
def test_a_tar_is_what_unpacking_gives(case: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", SAME[case])
    assert read_all(path) == unpacked(path, tmp_path / "out")


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[str, bytes, bytes | str]]:
    """Members as a packer could write them: files in folders a to c, links to what is there, names stored again."""
    files = st.tuples(st.sampled_from("abc"), st.sampled_from("012")).map("/".join)
    entries: list[tuple[str, bytes, bytes | str]] = [("a/0", REG, b"first")]
    for name in draw(st.lists(files, max_size=8)):
        target = draw(st.sampled_from([name for name, _, _ in entries]))
        if name == target:  # a link to itself
            entries.append((name, REG, draw(st.binary(max_size=3))))
        else:
            choices = [(REG, draw(st.binary(max_size=3))), (LNK, target)]
            if name[0] == target[0]:  # GNU tar makes links with '..' last, after a later file of their name
                choices.append((SYM, target[2:]))
            entries.append((name, *draw(st.sampled_from(choices))))
    if draw(st.booleans()):
        entries.insert(draw(st.integers(0, len(entries))), ("d", SYM, draw(st.sampled_from(("a", "./a/", "a/.")))))
    prefixes = draw(st.lists(st.sampled_from(("", "./", "././")), min_size=len(entries), max_size=len(entries)))
    return [(prefix + name, kind, what) for prefix, (name, kind, what) in zip(prefixes, entries, strict=True)]


@settings(max_examples=100, deadline=None)
@given(trees())
def test_any_tree_is_what_unpacking_gives(entries: list[tuple[str, bytes, bytes | str]]) -> None:
    """Links in a circle, which the file system cannot read, are refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder) / "a.tar", entries)
        try:
            theirs = unpacked(path, Path(folder) / "out")
        except OSError:  # a link in a circle
            with pytest.raises(SourceError):
                read_all(path)
        else:
            assert read_all(path) == theirs


HOSTILE = {
    "a member that leaves the folder": ([("../x", REG, b"")], "../x of"),
    "an absolute member": ([("/x", REG, b"")], "/x of"),
    "a symlink that leaves": ([("train/a", SYM, "../../x")], "train/a of"),
    "an absolute symlink": ([("train/a", SYM, "/etc/passwd")], "train/a of"),
    "a hard link that leaves": ([("train/a", LNK, "../x")], "train/a of"),
    "a hard link to nothing": ([("train/a", LNK, "train/b")], "train/a of"),
    "a hard link to a folder": ([("train/b/", tarfile.DIRTYPE, ""), ("train/a", LNK, "train/b")], "train/a of"),
    "a symlink to nothing": ([("train/a", SYM, "b")], "train/a of"),
    "a symlink through a file": ([("train/b", REG, b""), ("train/a", SYM, "b/c")], "train/a of"),
    "links to each other": ([("train/a", SYM, "b"), ("train/b", SYM, "a")], "leads through more than 40 links"),
    "a link to its folder": ([("train/a", SYM, ".")], "train/a of"),
    "links that double": (
        [("t/0/x", REG, b"")] + [(f"t/{i}", SYM, f"{i - 1}/../{i - 1}") for i in range(1, 60)],
        "leads through more than 40 links",
    ),
    "a member below a link": ([("train/a", SYM, "../b"), ("train/a/x", REG, b"")], "train/a/x of"),
    "a folder that is a file": ([("train/a", REG, b""), ("train/a/", tarfile.DIRTYPE, "")], "train/a of"),
    "a pipe": ([("train/a", tarfile.FIFOTYPE, "")], "train/a of"),
    "a device": ([("train/a", tarfile.CHRTYPE, "")], "train/a of"),
    "many folders": ([("a/" * 101 + "x", REG, b"")], "lies in more than 100 folders"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_unpacked_is_refused_by_name(case: str, tmp_path: Path) -> None:
    entries, message = HOSTILE[case]
    with pytest.raises(SourceError) as error:
        FileTree(write_tar(tmp_path / "a.tar", entries))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_names_that_links_multiply_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_NAMES", 1000)
    links = [(f"d{i}/{name}", SYM, f"../d{i + 1}") for i in range(50) for name in "xy"]
    with pytest.raises(SourceError, match="has more than 1,000 files and folders"):
        FileTree(write_tar(tmp_path / "a.tar", [*links, ("d50/z", REG, b"")]))


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "..\\x.png", "train\\a\\x.png", "C:/x.png"])
def test_zip_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(name, b"")
    with pytest.raises(SourceError) as error:
        FileTree(tmp_path / "a.zip")
    assert str(error.value).startswith(f"{name} of ")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_is_what_unpacking_gives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("./train/a/0", b"first")
        zipped.writestr("train/a/1", bytes(10_000))
        zipped.writestr("train/a/0", b"last")
        for name, target in (("train/a/2", "0"), ("train/b", "a")):
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            zipped.writestr(link, target)
    assert read_all(tmp_path / "a.zip") == unpacked(tmp_path / "a.zip", tmp_path / "out")


def test_encrypted_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("train/x", b"")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag of the central directory
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(SourceError, match=r"^train/x of .*a\.zip is encrypted: unpack it"):
        FileTree(tmp_path / "a.zip")


def pack_zeros(path: Path, size: int) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as zipped:
            zipped.writestr("train/x", bytes(size))
    else:
        with tarfile.open(path, f"w:{path.suffix[1:]}") as tar:
            entry = tarfile.TarInfo("train/x")
            entry.size = size
            tar.addfile(entry, io.BytesIO(bytes(size)))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    pack_zeros(path, 2**22)
    assert FileTree(path).names == ["train/", "train/x"]
    monkeypatch.setattr(archive, "MAX_FILE", 2**20)
    with pytest.raises(SourceError, match="train/x has more than 1 MiB, too large for an image"):
        list(FileTree(path).read(["train/x"]))
    monkeypatch.setattr(archive, "MAX_BYTES", 2**20)
    with pytest.raises(SourceError, match=r"unpacks to more than .* GiB \(train/x\)"):
        FileTree(path)


def test_no_header_is_larger_than_a_name(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(SourceError, match="it has a header of 1099511627776 bytes, expected at most 1048576"):
        FileTree(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:1024] + b"?" + raw[1025:], lambda raw: raw[:1024], lambda raw: raw[:1100]]
)
def test_a_damaged_header_is_not_the_end(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("train/a/0", REG, b"0"), ("train/a/1", REG, b"1")])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match="it is none, damaged or cut off"):
        FileTree(path)
