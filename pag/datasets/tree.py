"""The files of a folder or an archive by name; an archive is read as a stream and never unpacked to disk."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pag.datasets.archive import contents, members, read_bounded
from pag.datasets.source import SourceError
from pag.datasets.unpacked import MAX_DEPTH, Unpacked, hidden

MAX_NAMES = 5_000_000  # files and folders; links can make a few of them look like any number

T = TypeVar("T")


class FileTree:
    """Everything below `root`, a folder or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive of one.

    `names` are sorted and relative, with '/' between the parts and at the end of folders. Where `train` lies in one top
    folder, names start below it. Links are followed; an archive is what unpacking it gives. Hidden files and what macOS
    adds to archives are left out. Raises SourceError for everything else that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise SourceError(
                f"{root} does not exist: put the raw images there, or say where they are (data.root, --images)"
            )
        self.root = root
        if is_folder(root):
            stored = {name: -1 for name, _ in walk(root)}
        else:
            stored = dict(_bounded(root, Unpacked(root, members(root)).walk()))
        self._top = _top_folder(stored)
        self._stored = {name.removeprefix(self._top): stored[name] for name in stored if name.startswith(self._top)}
        self._stored.pop("", None)
        self.names = sorted(self._stored)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each file, in the order in which they are stored; stops after the last one."""
        if self.root.is_dir():
            yield from ((name, _read_file(self.root / f"{self._top}{name}")) for name in sorted(names))
            return
        names_at: dict[int, list[str]] = {}
        for name in names:
            names_at.setdefault(self._stored[name], []).append(name)
        for position, content in contents(self.root, set(names_at)):
            yield from ((name, content) for name in names_at.pop(position))
        if names_at:
            raise SourceError(f"{self.root} changed while it was read: try again when it is complete")

    def read_text(self, name: str) -> str:
        if name not in self._stored:
            raise SourceError(f"{self.root} has no {name}")
        try:
            return next(self.read([name]))[1].decode()
        except UnicodeDecodeError:
            raise SourceError(f"{name} of {self.root} is no UTF-8 text") from None


def _top_folder(names: Iterable[str]) -> str:
    """'' or 'folder/', the only top folder with `train` in it."""
    firsts = {name.split("/")[0] for name in names if name.split("/")[1:2] == ["train"]}
    at_top = any(name.startswith("train/") for name in names)
    return f"{firsts.pop()}/" if len(firsts) == 1 and not at_top else ""


def is_folder(root: Path) -> bool:
    """False for a file; SourceError for what is neither."""
    if not (root.is_dir() or root.is_file()):
        raise SourceError(f"{root} is a device or pipe: set data.root to the folder or archive of the raw images")
    return root.is_dir()


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files and folders in `folder` that are not hidden, through links, by their names in FileTree."""
    return _bounded(folder, _walk(folder, "", ()))


def unreadable(path: Path | str, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read ({error.strerror}): make it readable or remove it")


def _bounded(root: Path, found: Iterable[T]) -> Iterator[T]:
    for number, each in enumerate(found):
        if number == MAX_NAMES:
            raise SourceError(f"{root} has more than {MAX_NAMES:,} files and folders, counted through links")
        yield each


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """`above`: device and inode of what `folder` lies in."""
    try:
        about = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise unreadable(folder, error) from None
    here = (about.st_dev, about.st_ino)
    if here in above or len(above) > MAX_DEPTH:
        raise SourceError(f"{folder} is a link in a circle, or lies in more than {MAX_DEPTH} folders: remove it")
    for entry in entries:
        if hidden(entry.name):
            continue
        if _is(entry.is_dir):
            yield f"{prefix}{entry.name}/", entry
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
        elif _is(entry.is_file):
            yield f"{prefix}{entry.name}", entry
        else:
            raise SourceError(f"{entry.path} is a broken link, a device, a pipe or a socket: remove it")


def _is(kind: Callable[[], bool]) -> bool:
    """`kind()` of an entry, False for links that only lead to each other."""
    try:
        return kind()
    except OSError:
        return False


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return read_bounded(file, str(path))
    except OSError as error:
        raise unreadable(path, error) from None
