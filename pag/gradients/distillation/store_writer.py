"""Writing a gradient store: quantise, hash and write beside the network that makes the gradients."""

import shutil
from collections import ChainMap
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from zarr.codecs import Crc32cCodec

from pag.foundation.atomic import atomic_directory
from pag.foundation.processes import count, from_first, is_first, share, shared_out
from pag.foundation.scratch import Scratch
from pag.gradients.distillation.kept_shards import KeptShards, Opened, Written, shards_folder, spans_of
from pag.gradients.distillation.shard_writer import ShardWriter
from pag.store.format.quantization import pack, quantize
from pag.store.format.record import describe, fingerprint, save_record
from pag.store.format.shards import DIRECTIONS, Layout, Shape

MIN_COSINE = 0.9995  # mean over a store of 8-bit directions
# Float32 gradients quantised and written at once. Linux keeps what is written in large pieces in large pages, which
# shuffled reads of a mapped store are a fifth faster on than with pieces of a megabyte.
BLOCK_BYTES = 64 << 20


def required_bytes(shape: Shape, bits: int) -> int:
    """Bytes on disk of a store of this shape; its JSON files, a few kilobytes, not counted."""
    return Layout(shape, bits).total_bytes()


class StoreWriter:
    """Makes a store: ``with StoreWriter(path, shape, attributes, bits) as writer: writer.append(gradients)…``

    A thread of its own quantises, hashes and writes one batch while the caller makes the next one. The store appears at
    `path` when the block ends without an error, and is the same to the byte however the images were batched.

    `spans`: (begin, end) of the images to append. Without a scratch these are all. With one, where finished shards lie
    until the end, those that an earlier writer of the same store has not kept; of several processes, this one's share.
    """

    def __init__(
        self, path: Path, shape: Shape, attributes: Mapping[str, Any], bits: int = 8, scratch: Scratch | None = None
    ) -> None:
        """shape: (N, K, C, H, W). attributes: what the gradients are of (JSON values). bits: 8 or 4."""
        self.path, self.attributes, self.scratch = path, dict(attributes), scratch
        self.layout = Layout(shape, bits)
        self.cosine_mean = self.cosine_min = 1.0  # with the float gradients; known when the block has ended
        self._pending: Future[None] | None = None
        self._finished: dict[int, Written] = {}
        self._kept: KeptShards | None = None
        self._appended = 0
        per_image = 4 * int(np.prod(shape[1:]))
        self._block = np.empty((max(1, min(BLOCK_BYTES // per_image, shape[0])), *shape[1:]), np.float32)
        self._filled = 0

    def __enter__(self) -> "StoreWriter":
        with ExitStack() as stack:
            self._folder = from_first(lambda: stack.enter_context(atomic_directory(self.path)))
            if is_first():
                _create_array(self._folder, self.layout)
            folder = shards_folder(self.scratch, self.path) or self._folder
            own = self._take_up(folder)
            self._shards = ShardWriter(
                folder, self.layout, own, {key: kept.images for key, kept in self._opened.items()}
            )
            self.spans = spans_of(own, self.layout, self._opened)
            self._begin()
            self._thread = ThreadPoolExecutor(1, "store-writer")
            stack.callback(self._thread.shutdown)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with self._stack:  # publishes the folder only if nothing is raised in here
            if error is not None:
                raise error
            self._wait()
            self._finish()

    def _take_up(self, folder: Path) -> list[int]:
        """Find the shards that an earlier writer finished or began; which of those to write are this process's."""
        self._opened: dict[int, Opened] = {}
        if self.scratch is not None:
            self._kept = KeptShards(self.scratch, self.path, self.layout, folder)
            looks = [partial(self._kept.whole, shard) for shard in range(self.layout.num_shards)]
            self._finished = {shard: found for shard, found in enumerate(shared_out(looks)) if found is not None}
        missing = [shard for shard in range(self.layout.num_shards) if shard not in self._finished]
        own = missing[slice(*share(len(missing)))]
        if self._kept is not None:
            self._opened = {shard: found for shard in own if (found := self._kept.opened(shard)) is not None}
        return own

    def _begin(self) -> None:
        """Go on with the open shard where an earlier writer stopped."""
        opened = self._opened.get(self._shards.shard) if self._shards.left else None
        self._of_shard, self._filled = (opened.written, len(opened.block)) if opened else (Written("", [], 1.0, 0), 0)
        if opened:
            self._block[: self._filled] = opened.block

    def append(self, gradients: torch.Tensor | np.ndarray) -> None:
        """The next images' gradients, float32 (B, K, C, H, W) on any device; not to be changed afterwards.

        Raises what went wrong in the writing thread, if something did.
        """
        assert gradients.shape[1:] == self.layout.shape[1:], (gradients.shape, self.layout.shape)
        self._appended += len(gradients)
        assert self._appended <= self._expected, (self._appended, self.spans)
        self._wait()
        self._pending = self._thread.submit(self._store, gradients)

    @property
    def _expected(self) -> int:
        return sum(end - begin for begin, end in self.spans)

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _store(self, gradients: torch.Tensor | np.ndarray) -> None:
        """Regroup into blocks that do not depend on the batches, so that the mean cosine does not either."""
        array = gradients.detach().cpu().numpy() if isinstance(gradients, torch.Tensor) else gradients
        while len(array):
            size = min(len(self._block), self._shards.room)
            taken = min(size - self._filled, len(array))
            self._block[self._filled : self._filled + taken] = array[:taken]
            self._filled += taken
            array = array[taken:]
            if self._filled == size:
                self._filled = 0
                self._write(self._block[:size])
        if self._kept is not None and self._shards.left and self._kept.scratch.due(shared=False):
            of_shard = replace(self._of_shard, digest=self._shards.digest)
            opened = Opened(of_shard, self._shards.images, self._block[: self._filled])
            self._kept.keep_open(self._shards.shard, opened)

    def _write(self, block: np.ndarray) -> None:
        shape, bits = block.shape, self.layout.bits
        try:
            directions, cosines = quantize(block.reshape(shape[0] * shape[1], -1), bits)
        except FloatingPointError as error:
            raise FloatingPointError(f"{self.path}: {error}") from None
        known = self._of_shard
        zeros = ~directions[cosines == 1].any(axis=1)  # the cosine of a zero direction counts as 1
        self._of_shard = Written(
            "",
            [*known.cosine_sums, float(cosines.sum())],
            min(known.cosine_min, float(cosines.min())),
            known.zeros + int(zeros.sum()),
        )
        directions, shard = directions.reshape(shape), self._shards.shard
        digest = self._shards.append(pack(directions) if bits == 4 else directions)
        if digest is not None:
            self._finished[shard] = replace(self._of_shard, digest=digest)
            if self._kept is not None:
                self._kept.keep_whole(shard, self._finished[shard])
            self._begin()

    def _finish(self) -> None:
        """Check that all is there, then write the group's metadata: the record of completeness."""
        images, classes = self.layout.shape[:2]
        if left := self._expected - self._appended:
            raise ValueError(f"{self.path}: {images - left} images of {images} were appended: the store is not kept")
        shared = ChainMap(*shared_out([lambda: self._finished] * count()))
        finished = [shared[shard] for shard in range(self.layout.num_shards)]
        cosine_sum = 0.0
        for value in chain.from_iterable(each.cosine_sums for each in finished):
            cosine_sum += value  # `sum` rounds in another way in newer Pythons
        self.cosine_mean = cosine_sum / (images * classes)
        self.cosine_min = min(each.cosine_min for each in finished)
        if self.layout.bits == 8 and self.cosine_mean < MIN_COSINE:
            raise ValueError(
                f"{self.path}: 8 bits keep a cosine of {self.cosine_mean:.4f} with the gradients, expected "
                f"≥ {MIN_COSINE}: single pixels outshine all others, so look at the gradients and their source"
            )
        if not is_first():
            return
        if self._shards.folder != self._folder:
            for shard in range(self.layout.num_shards):
                _link(self._shards.folder / self.layout.file(shard), self._folder / self.layout.file(shard))
        sizes = map(self.layout.shard_bytes, range(self.layout.num_shards))
        content = {
            **describe(self.attributes, self.layout.shape, self.layout.bits),
            "cosine_mean": round(self.cosine_mean, 6),
            "cosine_min": round(self.cosine_min, 6),
            "zero_directions": sum(each.zeros for each in finished),  # alignment leaves them out
        }
        shards = {
            self.layout.file(shard): (size, each.digest)
            for shard, (size, each) in enumerate(zip(sizes, finished, strict=True))
        }
        save_record(self._folder, content, {DIRECTIONS: fingerprint(self._folder / DIRECTIONS), **shards})


def _link(source: Path, target: Path) -> None:
    """The file stays in the scratch folder, for the case that the stage is killed before it ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _create_array(folder: Path, layout: Layout) -> None:
    """Have zarr-python write the array's metadata; the shards are ours (see shards.py)."""
    encoding = "one signed value a byte; only the direction has a meaning"
    if layout.bits == 4:
        encoding = (
            "two signed 4-bit values a byte along the last axis, the first in the high bits; "
            f"the last axis has {layout.shape[-1]} of them; only the direction has a meaning"
        )
    zarr.create_array(
        folder / "directions",
        shape=layout.stored_shape,
        dtype="int8" if layout.bits == 8 else "uint8",
        chunks=(1, layout.chunk_classes, *layout.stored_shape[2:]),
        shards=(layout.images_per_shard, *layout.stored_shape[1:]),
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        dimension_names=("image", "class", "channel", "row", "column"),
        attributes={"bits": layout.bits, "encoding": encoding},
        zarr_format=3,
    )
