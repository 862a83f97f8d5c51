"""The files of a folder or an archive by name; an archive is read as a stream and never unpacked to disk."""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pag.datasets.source import SourceError

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError)


class FileTree:
    """Everything below `root`, a folder or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive.

    `names` are sorted and relative, with '/' between the parts and at the end of folders. Where `train` lies in one top
    folder, names start below it. Hidden files and what macOS adds to archives are left out. Raises SourceError.
    """

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise SourceError(
                f"{root} does not exist: put the folder or archive of the raw images there, or set data.root"
            )
        self.root = root
        self._original: dict[str, str] = {}  # our name -> the name in the folder or archive
        for original in self._list():
            parts = [part for part in PurePosixPath(original).parts if part != "."]
            if parts and not any(part.startswith(".") or part == "__MACOSX" for part in parts):
                self._original.setdefault("/".join(parts) + "/" * original.endswith("/"), original)
        top = self._top_folder()
        self._original = {name[len(top) :]: self._original[name] for name in self._original if name.startswith(top)}
        self._original.pop("", None)
        self.names = sorted(self._original)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each file, in the order in which they are stored; stops after the last one."""
        wanted = {self._original[name]: name for name in names}
        for original, content in self._contents(set(wanted)):
            yield wanted[original], content

    def read_text(self, name: str) -> str:
        if name not in self._original:
            raise SourceError(f"{self.root} has no {name}")
        return next(self.read([name]))[1].decode()

    def _top_folder(self) -> str:
        """'' or 'folder/', the only top folder with `train` in it."""
        with_train = {name.split("/")[0] for name in self._original if name.split("/")[1:2] == ["train"]}
        at_top = any(name.startswith("train/") for name in self._original)
        return f"{with_train.pop()}/" if len(with_train) == 1 and not at_top else ""

    def _list(self) -> list[str]:
        if self.root.is_dir():
            return [name for folder in os.walk(self.root, followlinks=True) for name in self._names_in(*folder)]
        try:
            if self.root.suffix == ".zip":
                with zipfile.ZipFile(self.root) as archive:
                    return archive.namelist()
            with tarfile.open(self.root, "r|*") as archive:
                return [entry.name + "/" * entry.isdir() for entry in archive if entry.isfile() or entry.isdir()]
        except DAMAGED as error:
            raise self._unreadable(error) from None

    def _names_in(self, folder: str, folders: list[str], files: list[str]) -> list[str]:
        here = Path(folder).relative_to(self.root)
        return [(here / name).as_posix() + "/" for name in folders] + [(here / name).as_posix() for name in files]

    def _contents(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        if self.root.is_dir():
            yield from ((name, (self.root / name).read_bytes()) for name in sorted(wanted))
            return
        try:
            if self.root.suffix == ".zip":
                with zipfile.ZipFile(self.root) as archive:
                    yield from ((name, archive.read(name)) for name in sorted(wanted))
                return
            with tarfile.open(self.root, "r|*") as archive:
                for entry in archive:
                    if entry.name in wanted and (file := archive.extractfile(entry)):
                        yield entry.name, file.read()
                        wanted.remove(entry.name)
                    if not wanted:
                        return
        except DAMAGED as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self.root} cannot be read as a .zip or .tar(.gz, .bz2, .xz) archive: {' '.join(str(error).split())}"
        )
