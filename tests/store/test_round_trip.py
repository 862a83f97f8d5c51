"""Whatever is put into a store comes out: any shape, bits, batches, and any point at which the writer was killed."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from pag.foundation.scratch import Scratch
from pag.gradients.distillation.store_writer import StoreWriter
from pag.store.format import shards
from pag.store.format.quantization import quantize
from pag.store.reader import GradientStore

SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


class Killed(BaseException):
    pass


def write(folder: Path, gradients: np.ndarray, bits: int, batch: int, killed_after: int | None = None) -> None:
    """killed_after: the number of batches after which the writer dies."""
    scratch = Scratch(folder / "scratch", {})
    with StoreWriter(folder / "store", gradients.shape, {}, bits, scratch) as writer:
        rows = [(first, min(first + batch, end)) for begin, end in writer.spans for first in range(begin, end, batch)]
        for number, (first, last) in enumerate(rows):
            if number == killed_after:
                raise Killed
            writer.append(gradients[first:last])


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.sampled_from([8, 4]), st.integers(1, 13), st.integers(1, 4), st.integers(0, 4), st.data())
def test_what_is_read_is_what_was_written(shape, bits, batch, max_shards, killed_after, data) -> None:
    gradients = np.random.default_rng(shape).normal(size=shape).astype(np.float32)
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=8))
    k = data.draw(st.integers(1, shape[1]))
    classes = np.random.default_rng(k).integers(0, shape[1], (len(rows), k))
    with MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(shards, "SHARD_BYTES", 1)
        patch.setattr(shards, "MAX_SHARDS", max_shards)
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        write(whole, gradients, bits, batch)
        try:
            write(killed, gradients, bits, batch, killed_after)
        except Killed:
            write(killed, gradients, bits, batch)
        assert content(killed / "store") == content(whole / "store")
        for resident in (0, 1 << 20):
            read = GradientStore.open(whole / "store", max_resident_bytes=resident).read(rows, classes)
            expected, _ = quantize(gradients[np.array(rows)[:, None], classes].reshape(len(rows) * k, -1), bits)
            assert np.array_equal(read, expected.reshape(read.shape))
