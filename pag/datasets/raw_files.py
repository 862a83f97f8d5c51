"""What the raw files of a data set are, found out cheaply: only those that changed since the last look are read.

A file whose size, mtime, ctime and inode are those of the last look has the content that was read then.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pag.datasets.source import SourceError, raw_root
from pag.datasets.tree import is_folder, unreadable, walk
from pag.foundation.artifacts import ArtifactError, load_arrays, save_arrays
from pag.foundation.config.data import DataConfig

# What torchvision reads of `data.root`, where more may lie, and which other loader fetches what is missing.
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
FETCHED = {*FOLDERS, "tinyimagenet"}
DIGEST_BYTES = 32


State = tuple[int, int, int, int]  # bytes, mtime and ctime in nanoseconds, inode
Seen = dict[str, tuple[State, bytes]]  # relative name → state and SHA-256; b"" for a folder, whose name ends with '/'


@dataclass(frozen=True)
class RawFiles:
    """One look at the raw files: how many, their bytes, a SHA-256 over all names and contents; and what it took."""

    files: int
    bytes: int
    content: str
    read: int  # files whose content was read in this look
    seen: Seen


def location(config: DataConfig) -> Path:
    """The file or folder that the loader reads."""
    return raw_root(config) / FOLDERS.get(config.loader, "")


def look(config: DataConfig, before: Seen) -> RawFiles:
    """The raw files as they are; those that are as `before` are not read.

    Links are followed and hidden files left out, as the loaders do. Raises SourceError, one line, for what is not there
    or cannot be read. Files that `data.download` is yet to fetch are none.
    """
    root = location(config)
    if not root.exists():
        if config.download and config.loader in FETCHED:
            return _summary({}, 0)
        fetch = " or data.download to true" if config.loader in FETCHED else ""
        raise SourceError(f"{root} does not exist: put the raw files there, or set data.root{fetch}")
    if not is_folder(root):
        return _look_at([(root.name, root)], before)
    return _look_at(walk(root), before)


def _look_at(entries: Iterable[tuple[str, os.DirEntry[str] | Path]], before: Seen) -> RawFiles:
    seen: Seen = {}
    read = 0
    for name, entry in entries:
        if name.endswith("/"):
            seen[name] = (0, 0, 0, 0), b""
            continue
        about = entry.stat()  # before its content is read: a change meanwhile is seen the next time
        state = about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino & (2**63 - 1)
        known, digest = before.get(name, (None, b""))
        if known != state:
            digest = _sha256(entry)
            read += 1
        seen[name] = state, digest
    return _summary(seen, read)


def load_seen(path: Path) -> Seen:
    """What `save_seen` kept; nothing where there is none, or none that is whole: then everything is read again."""
    try:
        arrays = load_arrays(path)
        names = [os.fsdecode(name) for name in arrays["names"].tobytes().split(b"\0")[:-1]]
        states = map(tuple, arrays["states"].tolist())
        digests = arrays["digests"].tobytes()
        starts = range(0, len(digests), DIGEST_BYTES)
        return {
            name: (state, b"" if name.endswith("/") else digests[start : start + DIGEST_BYTES])
            for name, state, start in zip(names, states, starts, strict=True)
        }
    except (ArtifactError, KeyError, TypeError, ValueError):
        return {}


def save_seen(path: Path, seen: Seen) -> None:
    names = b"".join(os.fsencode(name) + b"\0" for name in seen)
    digests = b"".join(digest.ljust(DIGEST_BYTES, b"\0") for _, digest in seen.values())
    save_arrays(
        path,
        {
            "names": np.frombuffer(names, dtype=np.uint8),
            "states": np.array([state for state, _ in seen.values()], dtype=np.int64).reshape(-1, 4),
            "digests": np.frombuffer(digests, dtype=np.uint8),
        },
    )


def _summary(seen: Seen, read: int) -> RawFiles:
    content = hashlib.sha256()
    for name in sorted(seen):
        content.update(os.fsencode(name) + b"\0" + seen[name][1])
    files = [state for name, (state, _) in seen.items() if not name.endswith("/")]
    return RawFiles(len(files), sum(size for size, *_ in files), content.hexdigest(), read, seen)


def _sha256(entry: os.DirEntry[str] | Path) -> bytes:
    try:
        with open(entry, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise unreadable(os.fspath(entry), error) from None
