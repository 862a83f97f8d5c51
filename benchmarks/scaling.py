"""Time against the number of images N and of classes C: linear? The exponent of a power law fitted to each.

Distilling CM, NN (a limited candidate set per class) and SBG (a small U-Net on 8×8 images) into a store, and one
epoch of shuffled reads of one direction per image.
"""

import tempfile
from collections.abc import Callable
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


def random_images(count: int, num_classes: int, side: int) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8), np.arange(count) % num_classes)


def score_based(num_classes: int) -> Gradients:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build_unet(UNET, 1, 8, num_classes).eval()
    schedule, t = NoiseSchedule.from_config(UNET), gradient_t(UNET)
    return lambda x0, indices: score_based_gradients(model, x0, indices, schedule, t, num_classes, 1, 0)


def into_store(gradients: Gradients, split: Split, num_classes: int, path: Path) -> None:
    distill(
        gradients,
        split,
        path,
        num_classes=num_classes,
        attributes={},
        bits=8,
        batch_size=64,
        announce=lambda line: None,
    )


def epoch_of_reads(path: Path) -> None:
    store = GradientStore.open(path)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(store))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        store.read(rows, rng.integers(0, store.shape[1], (len(rows), 1)))


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log time over log size: 1 means linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def fitted(sizes: tuple[int, ...], make: Callable[[int], Callable[[], None]], repeats: int) -> dict[str, object]:
    """The exponent and the seconds at every size, measured in turn."""
    seconds = measure({str(size): make(size) for size in sizes}, repeats)
    return {"exponent": exponent(sizes, list(seconds.values())), "seconds": seconds}


@click.command()
@click.option("--json", is_flag=True, help="one JSON object on the last line")
@click.option("--repeats", default=3, show_default=True)
def main(json: bool, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store.zarr"

        def cm(count: int, num_classes: int) -> Callable[[], None]:
            split = random_images(count, num_classes, 28)
            return lambda: into_store(class_mean(split, num_classes), split, num_classes, store)

        def nn(count: int, num_classes: int) -> Callable[[], None]:
            split = random_images(count, num_classes, 28)
            return lambda: into_store(nearest_neighbour(split, num_classes, 0, CANDIDATES), split, num_classes, store)

        def sbg(count: int, num_classes: int) -> Callable[[], None]:
            split, gradients = random_images(count, num_classes, 8), score_based(num_classes)
            return lambda: into_store(gradients, split, num_classes, store)

        def reads(count: int) -> Callable[[], None]:
            split, path = random_images(count, 10, 28), Path(name) / f"reads-{count}.zarr"
            into_store(class_mean(split, 10), split, 10, path)
            return lambda: epoch_of_reads(path)

        results = {
            "images": {
                "cm": fitted(IMAGES, lambda n: cm(n, 10), repeats),
                "nn": fitted(IMAGES, lambda n: nn(n, 10), repeats),
                "sbg": fitted(SBG_IMAGES, lambda n: sbg(n, 9), repeats),
                "reads": fitted(IMAGES, reads, repeats),
            },
            "classes": {
                "cm": fitted(CLASSES, lambda c: cm(2000, c), repeats),
                "nn": fitted(CLASSES, lambda c: nn(4000, c), repeats),
                "sbg": fitted(SBG_CLASSES, lambda c: sbg(64, c), repeats),
            },
        }
    report("scaling", results, json)


if __name__ == "__main__":
    main()
