"""Files and folders that are whole or absent.

Everything is written under a unique name beside its place, flushed to the disk and renamed. A writer holds a lock on
its unfinished file; what a killed one left has none, and the next writer of the same path removes it.
"""

import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial-"  # how unfinished files and folders begin
CANNOT_WRITE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block succeeds; a failure leaves nothing behind.

    Raises OSError with one line that names `path` where the disk, a limit or a permission is in the way.
    """

    def make(partial: Path) -> int:
        partial.mkdir()
        return os.open(partial, os.O_RDONLY)

    def flush(partial: Path) -> None:
        for file in partial.rglob("*"):
            _flush(file)

    with _atomic(path, make, flush) as partial:
        yield partial


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to that becomes `path` when the block succeeds; the suffix is kept. Errors as above."""
    with _atomic(path, lambda partial: os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), _flush) as partial:
        yield partial


@contextmanager
def _atomic(path: Path, make: Callable[[Path], int], flush: Callable[[Path], None]) -> Iterator[Path]:
    """make: creates what is written to, and opens it. flush: has the system write its content to the disk."""
    partial = _unique(path)
    with _one_line(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        descriptor = _make_locked(partial, make)
        try:
            yield partial
            flush(partial)
            _replace(partial, path)
            _flush(path.parent)
        finally:
            os.close(descriptor)
            remove(partial)


def _make_locked(partial: Path, make: Callable[[Path], int]) -> int:
    while True:
        descriptor = make(partial)
        with suppress(OSError):  # a file system without locks: leftovers stay there
            locked(descriptor, wait=True)
        if partial.exists():
            return descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


def _unique(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")


def _replace(partial: Path, path: Path) -> None:
    """A folder cannot be renamed over another one: the older steps aside, whole, until the new one is in its place."""
    if path.is_symlink() or not path.is_dir():
        os.replace(partial, path)
        return
    older = _unique(path)
    os.replace(path, older)
    os.replace(partial, path)
    remove(older)


def _remove_leftovers(path: Path) -> None:
    """Of writers of `path` that were killed: nobody holds a lock on those."""
    for leftover in path.parent.glob(f"{PARTIAL}????????-{glob.escape(path.name)}"):
        with suppress(OSError):  # its writer has just finished, or the folder is read-only
            descriptor = os.open(leftover, os.O_RDONLY)
            try:
                if locked(descriptor):
                    remove(leftover)
            finally:
                os.close(descriptor)


@contextmanager
def _one_line(path: Path, partial: Path) -> Iterator[None]:
    """What the system says when it cannot write `path` or something in `partial`, as one line about `path`."""
    try:
        yield
    except OSError as error:
        where = str(path.parent if error.filename is None else error.filename)
        if error.errno in CANNOT_WRITE and where.startswith(str(path.parent)):
            kept = "; what was there before is untouched" if path.exists() else ""
            raise OSError(f"{path} cannot be written: {os.strerror(error.errno)}{kept}") from error
        if str(partial) in str(error):  # of a file inside
            raise OSError(str(error).replace(str(partial), str(path))) from error
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all. Serialising first and writing here makes every failure an OSError: the
    libraries that write files themselves have errors of their own for a full disk."""
    with atomic_file(path) as partial, open(partial, "wb") as file:
        file.write(content)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def locked(descriptor: int, wait: bool = False) -> bool:
    """Whether this process now holds the lock of an open file, until it closes it or ends. Raises OSError where the
    file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
