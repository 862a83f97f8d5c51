"""A store in object storage: any address that fsspec knows (s3://…, gs://…, sftp://…), read-only.

A shard is copied when the first image of it is read, compared with its recorded SHA-256, and stays for the next process
of this machine, in <cache>/<hash of the record>/ with the names that it has in the store. Where the bound or the disk
leaves no room for a shard, its directions are read one by one from there. Shuffled reads come to every shard equally
often, so none is dropped for another.

What is read one by one is compared with the CRC-32C that follows every chunk: it tells a damaged direction, and not a
shard of another store.
"""

import hashlib
import os
import shutil
import weakref
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import google_crc32c
import numpy as np

from pag.foundation.artifacts import ArtifactError, sha256
from pag.foundation.atomic import atomic_file, locked, write_bytes
from pag.store.format.record import GROUP, Record, load_record
from pag.store.format.shards import CRC_BYTES, DIRECTIONS, Layout, StreamedShards, close

COPIES_AT_ONCE = 8  # a connection to object storage gives some 100 MB/s
KEPT_FREE = 2 << 30  # bytes of the disk that no shard takes


def is_remote(path: str | Path) -> bool:
    return "://" in str(path)


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pag/stores"


class Remote:
    """The files of the store at `url`, and the folder that their copies go to."""

    def __init__(self, url: str, cache: str | Path | None = None, max_cached_bytes: int | None = None) -> None:
        """max_cached_bytes: of all copied shards; None: as many as the disk has room for."""
        self.url, self.max_cached_bytes = url.rstrip("/"), max_cached_bytes
        record = self.read(GROUP)
        cache = default_cache() if cache is None else Path(cache)
        self.folder = cache / hashlib.sha256(record).hexdigest()[:16]
        try:
            if not (self.folder / GROUP).exists():
                write_bytes(self.folder / GROUP, record)
        except OSError as error:
            raise ArtifactError(f"cache {cache}: copies cannot be written there ({error.strerror})") from error

    def record(self, expect: Mapping[str, Any] | None) -> Record:
        """The store's record; its files are not looked at. Raises ArtifactError as `load_record` does."""
        try:
            record = load_record(self.folder, expect, present=False)
            if DIRECTIONS in record.files:
                self.copy(DIRECTIONS, record)
            return record
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(self.folder), self.url)) from None

    def read(self, name: str) -> bytes:
        with self._one_line(name) as (files, root):
            return files.cat_file(f"{root}/{name}")

    def read_ranges(self, names: list[str], starts: list[int], length: int) -> list[bytes]:
        """Raises ArtifactError in one line for a file that cannot be read, and for more bytes than were asked for."""
        with self._one_line(names[0]) as (files, root):
            ends = [start + length for start in starts]
            found = files.cat_ranges([f"{root}/{name}" for name in names], starts, ends, on_error="return")
        for name, content in zip(names, found, strict=True):
            with self._one_line(name):
                if isinstance(content, Exception):
                    raise content
            if len(content) > length:
                raise ArtifactError(
                    f"{self.url}: its server sends whole files where {length} bytes are asked for: "
                    "leave room for copies (cache, max_cached_bytes) or serve the store otherwise"
                )
        return found

    def copy(self, name: str, record: Record) -> Path:
        """The file `name`, here and as it was recorded. Other processes of this machine wait for a copy."""
        path, (_, digest) = self.folder / name, record.files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f"{path.name}.lock"), "w") as lock:
            locked(lock.fileno(), wait=True)
            if path.exists() and sha256(path) == digest:
                return path
            with atomic_file(path) as partial, self._one_line(name) as (files, root):
                files.get_file(f"{root}/{name}", str(partial))
                if sha256(partial) != digest:
                    raise ArtifactError(f"{self.url}/{name} is damaged or of another store: copy the store there again")
        return path

    def room(self, size: int, cached: int) -> bool:
        """Whether another shard of `size` bytes may be copied beside those of `cached` bytes in all."""
        within = self.max_cached_bytes is None or cached + size <= self.max_cached_bytes
        return within and shutil.disk_usage(self.folder).free >= size + KEPT_FREE

    @contextmanager
    def _one_line(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and its name of the store. Made anew for each use: an instance is of one process."""
        try:
            yield fsspec.url_to_fs(self.url)
        except ArtifactError:
            raise
        except FileNotFoundError:
            raise ArtifactError(f"{self.url} has no {name}: expected the address of a whole gradient store") from None
        except (OSError, ImportError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ArtifactError(f"{self.url}/{name} cannot be read: {reason}") from error


class RemoteShards(StreamedShards):
    """Shards that are copied when they are first needed; see the module's text."""

    def __init__(self, remote: Remote, record: Record, layout: Layout) -> None:
        self._remote, self._record, self._layout, self._folder = remote, record, layout, remote.folder
        self._files = np.full(layout.num_shards, -1)  # open files of the shards that are here
        self._opened: list[int] = []
        weakref.finalize(self, close, self._opened)

    def fetch(self, shards: Collection[int]) -> None:
        """Have `shards` here as far as there is room. Raises ArtifactError when one is not as it was recorded."""
        layout = self._layout
        copied = {n for n in range(layout.num_shards) if (self._folder / layout.file(n)).exists()}
        cached, wanted = sum(map(layout.shard_bytes, copied)), []
        for shard in sorted(shards):
            if shard not in copied:
                if not self._remote.room(layout.shard_bytes(shard), cached):
                    continue
                cached += layout.shard_bytes(shard)
            wanted.append(shard)
        pool = ThreadPoolExecutor(COPIES_AT_ONCE, "store-copy")
        try:
            copies = [pool.submit(self._remote.copy, layout.file(shard), self._record) for shard in wanted]
            for shard, copy in zip(wanted, copies, strict=True):
                self._opened.append(os.open(copy.result(), os.O_RDONLY))
                self._files[shard] = self._opened[-1]
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupted or failed one does not wait for the whole store

    def gather(self, indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The directions (B, k, direction_bytes) of images `indices` (B,) and `classes` (B, k)."""
        self._layout.check_range(indices, classes)
        here = self._files[indices // self._layout.images_per_shard] >= 0
        if here.all():
            return super().gather(indices, classes)
        directions = np.empty((*classes.shape, self._layout.direction_bytes), np.uint8)
        if here.any():
            directions[here] = super().gather(indices[here], classes[here])
        directions[~here] = self._from_afar(indices[~here], classes[~here])
        return directions

    def _from_afar(self, indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """One request for each direction, all at a time."""
        layout, length = self._layout, self._layout.chunk_bytes + CRC_BYTES
        shards, images = np.divmod(indices, layout.images_per_shard)
        chunks, places = np.divmod(classes, layout.chunk_classes)
        starts = (images * layout.image_bytes)[:, None] + chunks * length
        names = [layout.file(shard) for shard in shards.repeat(classes.shape[1])]
        directions = np.empty((classes.size, layout.direction_bytes), np.uint8)
        contents = self._remote.read_ranges(names, starts.ravel().tolist(), length)
        for row, (content, place) in enumerate(zip(contents, places.ravel(), strict=True)):
            chunk, checksum = content[:-CRC_BYTES], int.from_bytes(content[-CRC_BYTES:], "little")
            if len(content) != length or google_crc32c.value(chunk) != checksum:
                raise ArtifactError(f"{self._remote.url}/{names[row]} is damaged: copy the store there again")
            begin = place * layout.direction_bytes
            directions[row] = np.frombuffer(chunk[begin : begin + layout.direction_bytes], np.uint8)
        return directions.reshape(*classes.shape, -1)
