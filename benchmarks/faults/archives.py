"""Hostile archives and folders: refused by name, in bounded time and memory."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.bench import LOST, PASSED, Bench, Case, Finding, refused
from benchmarks.faults.forks import run
from benchmarks.faults.workspace import Workspace


def _picture(shade: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(content, "png")
    return content.getvalue()


GOOD: list[tuple[str, bytes]] = [
    (
        f"{part}/{label}/{number}.png",
        _picture(20 * number + (100 if label == "dog" else 0) + (9 if part == "test" else 0)),
    )
    for part in ("train", "test")
    for label in ("cat", "dog")
    for number in range(5)
]
# name → a further tar entry: its name, type and where it leads
TAR: dict[str, tuple[str, bytes, str]] = {
    "absolute path": ("/etc/evil.png", tarfile.REGTYPE, ""),
    "path that leaves": ("train/../../evil.png", tarfile.REGTYPE, ""),
    "symlink that leaves": ("train/cat/9.png", tarfile.SYMTYPE, "../../../secret.png"),
    "absolute symlink": ("train/cat/9.png", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link that leaves": ("train/cat/9.png", tarfile.LNKTYPE, "../../secret.png"),
    "hard link to nothing": ("train/cat/9.png", tarfile.LNKTYPE, "train/cat/77.png"),
    "symlink to itself": ("train/cat/9.png", tarfile.SYMTYPE, "9.png"),
    "folder in a circle": ("train/cat/again", tarfile.SYMTYPE, ".."),
    "fifo": ("train/cat/9.png", tarfile.FIFOTYPE, ""),
    "device": ("train/cat/9.png", tarfile.CHRTYPE, ""),
}


def cases() -> Iterator[Case]:
    expected = "refused in one line that names the entry or the archive"
    for name, entry in TAR.items():
        yield Case("archive", f"tar with {name}", expected, partial(_packed, partial(_tar, entry), "raw.tar"))
    for name, make in (("tar", _tar_bomb), ("zip", _zip_bomb)):
        yield Case("archive", f"{name} bomb", expected, partial(_packed, make, f"raw.{name}"))
    for path in ("../evil.png", "/evil.png", "train/cat\\..\\evil.png"):
        yield Case("archive", f"zip with {path}", expected, partial(_packed, partial(_zip, path), "raw.zip"))
    for name, make in (("tar", _cut_tar), ("zip", _cut_zip)):
        yield Case("archive", f"{name} that ends early", expected, partial(_packed, make, f"raw.{name}"))
    yield Case("archive", "folder in a circle on disk", expected, partial(_packed, _circle, "raw"))
    yield Case("archive", "fifo in a folder", expected, partial(_packed, _fifo, "raw"))
    yield Case("archive", "nothing wrong with it", "prepared", partial(_packed, _whole, "raw.tar"))


def _packed(make: Callable[[Path], None], name: str, _: Bench, workspace: Workspace) -> Finding:
    raw = workspace.folder / "own" / name
    raw.parent.mkdir()
    make(raw)
    changes = {
        "loader": "folder",
        "root": f"own/{name}",
        "train_limit": None,
        "test_limit": None,
        "test_fraction": None,
    }
    for key, value in {**changes, "validation_fraction": 0.4, "allow_overlap": True, "allow_dark": True}.items():
        workspace.set(f"data.{key}", value)
    workspace.set("raw", ["digits"], "params.yaml")
    outcome = run(workspace.folder, "raw digits")
    if outcome.code == 0:
        outcome = run(workspace.folder, "prepare digits")
    if make is _whole:
        return Finding(f"exit {outcome.code}", LOST if outcome.code else PASSED)
    return refused(outcome, (f"own/{name}", "train/cat/bomb.png"))


def _tar(entry: tuple[str, bytes, str] | None, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in GOOD:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if entry is not None:
            info = tarfile.TarInfo(entry[0])
            info.type, info.linkname = entry[1:]
            archive.addfile(info, io.BytesIO())


def _whole(path: Path) -> None:
    _tar(None, path)


def _zip(entry: str, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in [*GOOD, (entry, GOOD[0][1])]:
            archive.writestr(name, content)


def _tar_bomb(path: Path) -> None:
    """A last entry of a terabyte, by its header."""
    _whole(path)
    info = tarfile.TarInfo("train/cat/bomb.png")
    info.size = 2**40
    with open(path, "r+b") as file:
        file.seek(-10240 if path.stat().st_size > 10240 else 0, os.SEEK_END)
        file.write(info.tobuf())


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in GOOD:
            archive.writestr(name, content)
        archive.writestr("train/cat/bomb.png", bytes(300 << 20))


def _cut_tar(path: Path) -> None:
    _whole(path)
    os.truncate(path, 1200)


def _cut_zip(path: Path) -> None:
    _zip("train/cat/9.png", path)
    os.truncate(path, path.stat().st_size // 2)


def _folder(path: Path) -> None:
    for name, content in GOOD:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _circle(path: Path) -> None:
    _folder(path)
    (path / "train/cat/again").symlink_to("..")


def _fifo(path: Path) -> None:
    _folder(path)
    os.mkfifo(path / "train/cat/9.png")
