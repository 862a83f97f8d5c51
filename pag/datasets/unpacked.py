"""Which files the unpacked folder of an archive would have: links followed, of members of one name the last."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path, PurePosixPath

from pag.datasets.archive import FOLDER, HARD_LINK, SYMLINK, Member
from pag.datasets.source import SourceError

MAX_DEPTH = 100  # folders in each other
MAX_LINKS = 40  # that one name may lead through, as on Linux

# A folder is the dict of its entries; a file is the position of its member, a symlink the text of its target.
Folder = dict[str, "Folder | int | str"]
Place = tuple[Folder, ...]  # a folder with all that it lies in, from the top


def hidden(name: str) -> bool:
    """Whether an entry is left out: hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


class Unpacked:
    """What unpacking `entries` of `archive` would make.

    Raises SourceError, in `walk` too, for names and links that leave the archive or cannot be unpacked or followed.
    """

    def __init__(self, archive: Path, entries: Iterable[Member]) -> None:
        self._archive = archive
        self._top: Folder = {}
        for position, entry in enumerate(entries):
            parts = self._parts(entry.name, entry.name)
            if not parts:  # "./", the top folder itself
                continue
            if entry.kind == HARD_LINK:
                self._put(parts, self._linked(entry), entry.name)
            elif entry.kind == SYMLINK:
                self._put(parts, entry.target, entry.name)
            else:
                self._put(parts, {} if entry.kind == FOLDER else position, entry.name)

    def walk(self) -> Iterator[tuple[str, int]]:
        """(name, position of the member) of all that is not hidden; of folders, whose names end with '/', -1."""
        return self._walk((self._top,), "", (self._top,))

    def _walk(self, place: Place, prefix: str, above: Place) -> Iterator[tuple[str, int]]:
        """`above`: the folders through which the walk came, which are others than `place` behind a link."""
        for name in place[-1]:
            if hidden(name):
                continue
            inside, node = self._follow(place, (name,), prefix + name, repeat(None, MAX_LINKS))
            if isinstance(node, int):
                yield prefix + name, node
                continue
            if any(node is folder for folder in above) or len(above) > MAX_DEPTH:
                raise self._refused(prefix + name, f"leads in a circle, or through more than {MAX_DEPTH} folders")
            yield f"{prefix}{name}/", -1
            yield from self._walk(inside, f"{prefix}{name}/", (*above, node))

    def _follow(
        self, place: Place, parts: Iterable[str], name: str, links_left: Iterator[None]
    ) -> tuple[Place, Folder | int]:
        """Where `parts` lead from `place`: a folder and its place, or a file; for `name` in messages."""
        node: Folder | int = place[-1]
        for part in parts:
            found = node.get(part, -1) if isinstance(node, dict) and part not in ("..", "/") else -1
            if part == "/" or (part == ".." and len(place) == 1):
                raise self._refused(name, "is a link that leaves the archive")
            if part == ".." and isinstance(node, dict):
                place = place[:-1]
                node = place[-1]
            elif isinstance(found, str):
                if next(links_left, "none") == "none":
                    raise self._refused(name, f"leads through more than {MAX_LINKS} links")
                place, node = self._follow(place, PurePosixPath(found).parts, name, links_left)
            elif found == -1:
                raise self._refused(name, "is a link to something that is not in the archive")
            else:
                node = found
                place = (*place, node) if isinstance(node, dict) else place
        return place, node

    def _linked(self, entry: Member) -> int | str:
        """What the first name of a hard link stands for when it is unpacked; a later member does not change it."""
        parts = self._parts(entry.target, entry.name)
        folder: Folder | int | str | None = self._top
        for part in parts:
            folder = folder.get(part) if isinstance(folder, dict) else None
        if folder is None or isinstance(folder, dict):
            raise self._refused(entry.name, f"is a link to {entry.target}, which is no file before it")
        return folder

    def _parts(self, path: str, name: str) -> tuple[str, ...]:
        parts = PurePosixPath(path).parts
        if ".." in parts or parts[:1] in (("/",), ("//",)):
            raise self._refused(name, "leaves the archive" if path == name else f"is a link to {path} outside of it")
        if len(parts) > MAX_DEPTH:
            raise self._refused(name[:80] + "…", f"lies in more than {MAX_DEPTH} folders")
        return parts

    def _put(self, parts: tuple[str, ...], node: Folder | int | str, name: str) -> None:
        folder = self._top
        for part in parts[:-1]:
            inner = folder.setdefault(part, {})
            if not isinstance(inner, dict):
                raise self._refused(name, "lies in what another entry says is a file or a link")
            folder = inner
        before = folder.get(parts[-1])
        if before is not None and isinstance(before, dict) != isinstance(node, dict):
            raise self._refused(name, "is stored both as a folder and as a file or link")
        if not isinstance(before, dict):
            folder[parts[-1]] = node

    def _refused(self, name: str, why: str) -> SourceError:
        return SourceError(f"{name} of {self._archive} {why}: pack the folder again without it")
