"""Archives as their unpacked folders would be, read as streams: what each name is, and the bytes of the files."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from pag.datasets.source import SourceError

MAX_FILE = 256 * 2**20  # bytes of one file that is read
MAX_BYTES, MAX_RATIO = 4 * 2**30, 200  # an archive may unpack to 4 GiB, or to 200 times its size where that is more
MAX_HEADER = 2**20  # bytes of a long name and of whatever else a tar says of one entry
PIECE = 4096  # bytes read at once: bzip2 and LZMA unpack whole pieces, whatever they become

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,  # what tarfile and zipfile raise for numbers that are none
)
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # headers that tarfile takes into memory before it names an entry
FOLDER, FILE, SYMLINK, HARD_LINK = "folder", "file", "symlink", "hard link"


class Member(NamedTuple):
    """One entry; `target` is where a link leads, as it is stored."""

    name: str
    kind: str
    target: str = ""


def members(path: Path) -> Iterator[Member]:
    """All entries in the order of the archive; SourceError at the first that cannot be unpacked or is too large."""
    bound = max(MAX_BYTES, MAX_RATIO * path.stat().st_size)
    total = 0
    with _one_line(path):
        for member, size in _zip_members(path) if _is_zip(path) else _tar_members(path):
            total += size
            if total > bound:
                raise SourceError(
                    f"{path} unpacks to more than {bound / 2**30:.3g} GiB ({member.name}): if that is right, unpack it "
                    "and set data.root to the folder"
                )
            yield member


def contents(path: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of the entries at the positions `wanted`, in their order; reads no further than the last."""
    with _one_line(path):
        yield from _zip_contents(path, wanted) if _is_zip(path) else _tar_contents(path, wanted)


def read_bounded(file: IO[bytes], name: str) -> bytes:
    """All of `file`; SourceError when that is more than one image can be."""
    content = bytearray()
    while piece := file.read(PIECE):
        content += piece
        if len(content) > MAX_FILE:
            raise SourceError(f"{name} has more than {MAX_FILE // 2**20} MiB, too large for an image: remove it")
    return bytes(content)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except DAMAGED as error:
        raise SourceError(
            f"{path} cannot be read as a .zip or .tar(.gz, .bz2, .xz) archive: {' '.join(str(error).split())}"
        ) from None


def _zip_members(path: Path) -> Iterator[tuple[Member, int]]:
    """Unlike zipfile, links as links, as unzip makes them."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise SourceError(f"{entry.filename} of {path} is encrypted: unpack it and set data.root to the folder")
            if "\\" in entry.filename or entry.filename[1:2] == ":":
                raise SourceError(f"{entry.filename} of {path} is no relative name with '/': pack the folder again")
            mode = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
            if mode == stat.S_IFLNK:
                with archive.open(entry) as file:
                    target = file.read(PIECE).decode(errors="surrogateescape")
                yield Member(entry.filename, SYMLINK, target), entry.file_size
            elif mode in (0, stat.S_IFREG, stat.S_IFDIR):
                yield Member(entry.filename, FOLDER if entry.is_dir() else FILE), entry.file_size
            else:
                raise _special(entry.filename, path)


def _tar_members(path: Path) -> Iterator[tuple[Member, int]]:
    with _open_tar(path) as archive:
        for entry in archive:
            if not (entry.isdir() or entry.isfile() or entry.issym() or entry.islnk()):
                raise _special(entry.name, path)
            kind = FOLDER if entry.isdir() else SYMLINK if entry.issym() else HARD_LINK if entry.islnk() else FILE
            yield Member(entry.name, kind, entry.linkname), entry.size if kind == FILE else 0
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header that it has read


def _special(name: str, path: Path) -> SourceError:
    return SourceError(f"{name} of {path} is no file, folder or link: pack the folder without it")


def _zip_contents(path: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for position, entry in enumerate(archive.infolist()):
            if position in wanted:
                with archive.open(entry) as file:
                    yield position, read_bounded(file, entry.filename)


def _tar_contents(path: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    last = max(wanted, default=-1)
    with _open_tar(path) as archive:
        for position, entry in enumerate(archive):
            if position in wanted and (file := archive.extractfile(entry)):
                yield position, read_bounded(file, entry.name)
            if position >= last:
                return


def _open_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r|*", tarinfo=_CheckedHeader)


class _CheckedHeader(tarfile.TarInfo):
    """tarfile takes a damaged header for the end of the archive, and a long name of any length into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_CheckedHeader":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):  # the empty block that ends an archive
                raise
            raise tarfile.ReadError(f"it is none, damaged or cut off ({error})") from None
        if header.type in EXTENDED and header.size > MAX_HEADER:
            raise tarfile.ReadError(f"it has a header of {header.size} bytes, expected at most {MAX_HEADER}")
        return header
