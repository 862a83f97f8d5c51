"""Time against the number of images N and of classes C: linear? The exponent of a power law fitted to each.

Then peak memory against N and C, each in a process of its own: does `distill.batch_size` bound it?

Distilling CM, NN (a limited candidate set per class) and SBG (a small U-Net on 8×8 images) into a store, and one
epoch of shuffled reads of one direction per image.
"""

import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.harness import measure, report
from pag.diffusion.model.schedule import NoiseSchedule, gradient_t
from pag.diffusion.model.unet import build_unet
from pag.foundation.config.diffusion import DiffusionConfig
from pag.gradients.distillation.distill import Gradients, distill
from pag.gradients.realizations import class_mean, nearest_neighbour
from pag.gradients.score import score_based_gradients
from pag.images.dataset import Split
from pag.store.reader import GradientStore

UNET = DiffusionConfig(
    channels=16, multipliers=[1, 2], blocks=1, attention=[4], head_dim=16, learn_sigma=False, noise_levels="single"
)
IMAGES, CLASSES = (1000, 2000, 4000, 8000), (5, 10, 20, 40)
SBG_IMAGES, SBG_CLASSES = (32, 64, 128, 256), (4, 9, 19, 39)  # plus the null class: 5, 10, 20, 40 passes
CANDIDATES = 100
BATCH = 64
MEMORY = {"cm": IMAGES[1:], "nn": IMAGES[1:], "sbg": (256, 512, 1024), "reads": IMAGES[1:]}
FIRST = 2 * BATCH  # images that warm a process up


def random_images(count: int, num_classes: int, side: int) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8), np.arange(count) % num_classes)


def score_based(num_classes: int) -> Gradients:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build_unet(UNET, 1, 8, num_classes).eval()
    schedule, t = NoiseSchedule.from_config(UNET), gradient_t(UNET)
    return lambda x0, indices: score_based_gradients(model, x0, indices, schedule, t, num_classes, 1, 0)


def into_store(gradients: Gradients, split: Split, num_classes: int, path: Path, batch: int) -> None:
    distill(
        gradients,
        split,
        path,
        num_classes=num_classes,
        attributes={},
        bits=8,
        batch_size=batch,
        announce=lambda line: None,
    )


def cm(count: int, num_classes: int, store: Path, batch: int = BATCH) -> Callable[[], None]:
    split = random_images(count, num_classes, 28)
    return lambda: into_store(class_mean(split, num_classes), split, num_classes, store, batch)


def nn(count: int, num_classes: int, store: Path, batch: int = BATCH) -> Callable[[], None]:
    split = random_images(count, num_classes, 28)
    return lambda: into_store(nearest_neighbour(split, num_classes, 0, CANDIDATES), split, num_classes, store, batch)


def sbg(count: int, num_classes: int, store: Path, batch: int = BATCH) -> Callable[[], None]:
    split, gradients = random_images(count, num_classes, 8), score_based(num_classes)
    return lambda: into_store(gradients, split, num_classes, store, batch)


def reads(count: int, num_classes: int, store: Path, batch: int = BATCH) -> Callable[[], None]:
    """An epoch of a store of its own, which is not mapped."""
    path = store.with_name(f"reads-{count}-{num_classes}.zarr")
    cm(count, num_classes, path)()
    return lambda: epoch_of_reads(path, batch)


WORK = {"cm": cm, "nn": nn, "sbg": sbg, "reads": reads}


def epoch_of_reads(path: Path, batch: int) -> None:
    store = GradientStore.open(path, max_resident_bytes=0)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(store))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        store.read(rows, rng.integers(0, store.shape[1], (len(rows), 1)))


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log time over log size: 1 means linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def fitted(sizes: tuple[int, ...], make: Callable[[int], Callable[[], None]], repeats: int) -> dict[str, object]:
    """The exponent and the seconds at every size, measured in turn."""
    seconds = measure({str(size): make(size) for size in sizes}, repeats)
    return {"exponent": exponent(sizes, list(seconds.values())), "seconds": seconds}


def peaks(name: str, sizes: list[tuple[int, int, int]], folder: Path) -> dict[str, object]:
    """The exponent of the peak memory, and its MB beside all that was there before, for (images, classes, batch)."""
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:  # before any thread has started
        jobs = [pool.apply_async(peak, (name, *size, folder / "store.zarr")) for size in sizes]
        megabytes = [job.get() / 1e6 for job in jobs]
    varied = tuple(size[0] if sizes[0][0] != sizes[-1][0] else size[1] for size in sizes)
    return {"exponent": exponent(varied, megabytes), "MB": dict(zip(map(str, varied), megabytes, strict=True))}


def peak(name: str, count: int, num_classes: int, batch: int, store: Path) -> int:
    """Bytes that `name` takes at most, in a process of its own."""
    torch.set_num_threads(1)
    # What is used for the first time and stays (thread pools, a library's buffers) is no part of it.
    WORK[name](FIRST, num_classes, store, batch)()
    call = WORK[name](count, num_classes, store, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory("VmRSS")
    call()
    return max(1 << 20, _memory("VmHWM") - before)  # less than a megabyte is noise


def _memory(key: str) -> int:
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


@click.command()
@click.option("--json", is_flag=True, help="one JSON object on the last line")
@click.option("--repeats", default=3, show_default=True)
@click.option("--memory", is_flag=True, help="peak memory alone, without the times")
def main(json: bool, repeats: int, memory: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store.zarr"
        of_images = {name: peaks(name, [(n, 10, BATCH) for n in sizes], folder) for name, sizes in MEMORY.items()}
        # as many gradients a batch: that is what distill.batch_size bounds
        of_classes = {
            name: peaks(name, [(4000, c, 10 * BATCH // c) for c in CLASSES], folder) for name in ("cm", "nn", "reads")
        }
        times = (
            {}
            if memory
            else {
                "images": {
                    "cm": fitted(IMAGES, lambda n: cm(n, 10, store), repeats),
                    "nn": fitted(IMAGES, lambda n: nn(n, 10, store), repeats),
                    "sbg": fitted(SBG_IMAGES, lambda n: sbg(n, 9, store), repeats),
                    "reads": fitted(IMAGES, lambda n: reads(n, 10, store), repeats),
                },
                "classes": {
                    "cm": fitted(CLASSES, lambda c: cm(2000, c, store), repeats),
                    "nn": fitted(CLASSES, lambda c: nn(4000, c, store), repeats),
                    "sbg": fitted(SBG_CLASSES, lambda c: sbg(64, c, store), repeats),
                },
            }
        )
        results = {**times, "memory": {"images": of_images, "classes": of_classes}}
    report("scaling", results, json)


if __name__ == "__main__":
    main()
