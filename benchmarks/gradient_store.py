"""The gradient store at CIFAR shapes: size, fidelity, and shuffled reads against np.memmap and other Zarr readers.

Reads: batches of 64 images in an endless shuffled order, with k = 1 random class or all k = 10, from a store whose
files the operating system holds in memory. np.memmap reads the same directions from a file without checksums. The
comparisons, each a ratio of throughputs:

- read_over_memmap: both held to a quarter of the store in memory, the store by `max_resident_bytes`, the memmap by
  returning its pages to the operating system whenever more than the bound has become resident.
- unbounded_over_memmap: both may keep all of it.
- bounded_over_unbounded_memmap: the store held to a quarter, the memmap free.
- remote_over_read (with --url): the store read from object storage, against its folder read call by call. `copied` once
  every shard is here; `from afar` when none may be; and the seconds and MB/s of copying all shards.
- computed_over_read: CM computed from the images (`heuristics.computed`) against the store that may keep all; k = 1.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import fsspec
import numpy as np

from benchmarks.harness import measure, report
from benchmarks.other_readers import BoundedMemmap, Read, libraries
from pag.gradients.distillation.store_writer import StoreWriter, required_bytes
from pag.gradients.realizations import class_mean
from pag.images.dataset import ImageDataset, Split
from pag.store.computed import open_distilled
from pag.store.format.quantization import quantize
from pag.store.format.targets import save_targets
from pag.store.reader import GradientStore

IMAGES, CLASSES, IMAGE_SHAPE = 12_000, 10, (3, 32, 32)
SHAPE = (IMAGES, CLASSES, *IMAGE_SHAPE)
PIXELS = int(np.prod(IMAGE_SHAPE))
BATCH = 64
POOL = 1000  # images of different random gradients; the store repeats them


@click.command(help=__doc__)
@click.option("--json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--url", help="a place to write a store to, such as s3://bucket/name, and to read it from; nothing else")
def main(json: bool, url: str | None) -> None:
    report("gradient_store", run() if url is None else {"remote_over_read": from_object_storage(url)}, json)


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gradients = np.random.default_rng(0).standard_normal((POOL, *SHAPE[1:]), np.float32)
        results: dict[str, Any] = {
            "bytes_per_pixel": {
                bits: required_bytes(SHAPE, int(bits)) / (IMAGES * CLASSES * PIXELS) for bits in ("8", "4")
            },
            "cosine": cosines(),
            "write": writing(folder, gradients),
        }
        for k in (1, CLASSES):
            for comparison, ratio in reading(folder, k).items():
                results.setdefault(comparison, {})[f"k={k}"] = ratio
        results["computed_over_read"] = computing(folder)
        return results


def cosines() -> dict[str, Any]:
    """Cosine of quantised with float directions of 3,072 pixels: mean and least of 2,000."""
    rng = np.random.default_rng(1)
    draws = {
        "normal": rng.standard_normal((2000, PIXELS)),
        "laplace": rng.laplace(size=(2000, PIXELS)),
        "student_t3": rng.standard_t(3, (2000, PIXELS)),
    }
    results: dict[str, Any] = {}
    for name, gradients in draws.items():
        for bits in (8, 4):
            values = quantize(gradients.astype(np.float32), bits)[1]
            results.setdefault(f"{bits} bits", {})[name] = {"mean": float(values.mean()), "min": float(values.min())}
    return results


def writing(folder: Path, gradients: np.ndarray) -> dict[str, float]:
    """Write the stores that are read afterwards, and the same directions as a plain file; in processor time."""
    flat = gradients.reshape(-1, PIXELS)

    def store(bits: int) -> None:
        with StoreWriter(folder / f"store{bits}", SHAPE, {}, bits) as writer:
            for _ in range(IMAGES // POOL):
                writer.append(gradients)

    def plain() -> None:
        """Quantise and write, with neither checksums nor index."""
        with open(folder / "plain", "wb") as file:
            for _ in range(IMAGES // POOL):
                file.write(quantize(flat, 8)[0].data)

    def raw() -> None:
        """Write directions that are there already."""
        directions = np.zeros((POOL, *SHAPE[1:]), np.int8)
        with open(folder / "raw", "wb") as file:
            for _ in range(IMAGES // POOL):
                file.write(directions.data)

    seconds = measure({"8": lambda: store(8), "plain": plain, "raw": raw}, repeats=2, clock=time.process_time)
    start = time.process_time()
    store(4)
    seconds["4"] = time.process_time() - start
    pixels = IMAGES * CLASSES * PIXELS
    return {
        "8 bits, Mpixel/s": pixels / seconds["8"] / 1e6,
        "4 bits, Mpixel/s": pixels / seconds["4"] / 1e6,
        "over_quantising_to_a_plain_file": seconds["plain"] / seconds["8"],
        "over_a_plain_file_of_int8": seconds["raw"] / seconds["8"],
    }


def reading(folder: Path, k: int) -> dict[str, Any]:
    """Throughput ratios of shuffled reads with k classes an image."""
    size = required_bytes(SHAPE, 8)
    bound = size // 4
    plain = folder / "plain"
    stores = {
        "bounded": GradientStore.open(folder / "store8", max_resident_bytes=bound),
        "unbounded": GradientStore.open(folder / "store8", max_resident_bytes=size),
        "4 bits": GradientStore.open(folder / "store4", max_resident_bytes=size),
    }
    for store in stores.values():  # the first touch of a shard verifies it
        store.read_all_classes(np.arange(0, IMAGES, store.layout.images_per_shard))
    memmap = np.memmap(plain, np.int8, "r", shape=SHAPE)
    fast: dict[str, Read] = {
        "memmap": lambda indices, classes: memmap[indices[:, None], classes],
        "bounded memmap": BoundedMemmap(plain, bound, SHAPE).read,
        **{name: store.read for name, store in stores.items()},
    }
    check_agreement({**fast, **libraries(folder / "store8")})
    # These run in one thread: processor time, system calls included, is what a busy machine does not blur.
    seconds = measure(sweeps(fast, k, batches=60), repeats=11, clock=time.process_time)
    # The libraries are slower by orders of magnitude: fewer batches, and a memmap measured beside them.
    slow = measure(sweeps({"memmap": fast["memmap"], **libraries(folder / "store8")}, k, batches=4), repeats=5)
    return {
        "read_over_memmap": seconds["bounded memmap"] / seconds["bounded"],
        "unbounded_over_memmap": seconds["memmap"] / seconds["unbounded"],
        "bounded_over_unbounded_memmap": seconds["memmap"] / seconds["bounded"],
        "4_bits_over_memmap": seconds["memmap"] / seconds["4 bits"],
        "microseconds_per_batch": {name: 1e6 * value / 60 for name, value in seconds.items()},
        "libraries_over_memmap": {name: slow["memmap"] / slow[name] for name in slow if name != "memmap"},
    }


def computing(folder: Path) -> float:
    """Throughput of directions that are computed over that of a mapped store's, 8 bits, one class an image."""
    rng = np.random.default_rng(3)
    split = Split(rng.integers(0, 256, (IMAGES, *IMAGE_SHAPE), dtype=np.uint8), np.arange(IMAGES) % CLASSES)
    images = ImageDataset.create("random", tuple("0123456789"), train=split, validation=split, test=split)
    about = {"dataset_hash": images.content_hash, "realization": "cm", "split": "train"}
    save_targets(folder / "targets", class_mean(split, CLASSES), IMAGES, about, 8)
    computed, store = open_distilled(folder / "targets", images, "cm"), GradientStore.open(folder / "store8")
    reads: dict[str, Read] = {"computed": computed.read, "store": store.read}
    seconds = measure(sweeps(reads, k=1, batches=60), repeats=11, clock=time.process_time)
    return seconds["store"] / seconds["computed"]


def from_object_storage(url: str) -> dict[str, Any]:
    """Throughput of shuffled reads from `url` over that of a folder, one class an image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gradients = np.random.default_rng(0).standard_normal((POOL, *SHAPE[1:]), np.float32)
        with StoreWriter(folder / "store", SHAPE, {}, 8) as writer:
            for _ in range(IMAGES // POOL):
                writer.append(gradients)
        files, root = fsspec.url_to_fs(url)
        files.put(f"{folder}/store/", f"{root}/", recursive=True)
        stores = {
            "folder": GradientStore.open(folder / "store", max_resident_bytes=0),
            "copied": GradientStore.open(url, cache=folder / "copies"),
            "from afar": GradientStore.open(url, cache=folder / "nothing", max_cached_bytes=0),
        }
        start = time.perf_counter()
        everywhere = np.arange(0, IMAGES, stores["copied"].layout.images_per_shard)
        stores["copied"].read_all_classes(everywhere)
        copying = time.perf_counter() - start
        stores["folder"].read_all_classes(everywhere)
        near: dict[str, Read] = {key: stores[key].read for key in ("folder", "copied")}
        seconds = measure(sweeps(near, k=1, batches=60), repeats=11, clock=time.process_time)
        far: dict[str, Read] = {key: stores[key].read for key in ("folder", "from afar")}
        slow = measure(sweeps(far, k=1, batches=1), repeats=3)
        return {
            "copied": seconds["folder"] / seconds["copied"],
            "from afar": slow["folder"] / slow["from afar"],
            "milliseconds per batch": {name: 1000 * value for name, value in slow.items()},
            "copying": {"seconds": copying, "MB/s": stores["copied"].layout.total_bytes() / copying / 1e6},
        }


def sweeps(reads: dict[str, Read], k: int, batches: int) -> dict[str, Callable[[], None]]:
    """One call of each reads its next `batches` batches; all readers see the same order."""

    def sweep(read: Read, order: Iterator[tuple[np.ndarray, np.ndarray]]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(batches):
                read(*next(order))

        return call

    return {name: sweep(read, shuffled(k)) for name, read in reads.items()}


def shuffled(k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    while True:
        order = rng.permutation(IMAGES)[: IMAGES // BATCH * BATCH].reshape(-1, BATCH)
        for indices in order:
            yield indices, np.argsort(rng.random((BATCH, CLASSES)), axis=1)[:, :k]


def check_agreement(reads: dict[str, Read]) -> None:
    """All readers of 8 bits give the same directions."""
    indices, classes = next(shuffled(2))
    expected = reads["memmap"](indices, classes)
    for name, read in reads.items():
        assert name == "4 bits" or np.array_equal(np.asarray(read(indices, classes)), expected), name


if __name__ == "__main__":
    main()
