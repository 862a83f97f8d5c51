"""Two processes of one thread against one of one thread, and against one of two: what does torchrun give on a CPU?

Training, diffusion, distillation and evaluation at CIFAR shapes with small networks, as the stages do them. Each round
starts every mode once and takes its seconds after a first, smaller call; start-up is not counted. `over_one` is the
time of one process of one thread divided by that of two processes, `over_threads` that of one process of two threads.
"""

import json as json_format
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.distill import NUM_CLASSES, SHAPE, UNET, random_images
from benchmarks.harness import report
from pag.classifiers import build
from pag.diffusion.model.schedule import NoiseSchedule, gradient_t
from pag.diffusion.model.unet import build_unet
from pag.diffusion.training import train as train_diffusion
from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.standard import quick
from pag.foundation.allocator import keep_freed_memory
from pag.foundation.config.section import Norm
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.processes import count, from_first, is_first, joined, wait
from pag.gradients.distillation.distill import distill
from pag.gradients.score import GROUP, score_based_gradients
from pag.images.dataset import ImageDataset
from pag.objectives.alignment.objective import Alignment
from pag.store.format import shards
from pag.training.batches import Batches
from pag.training.loop import train_classifier

CPU = torch.device("cpu")
MODES = {"one": (1, 1), "processes": (2, 1), "threads": (1, 2)}  # name → processes, threads in each
Task = Callable[[int, Path], object]  # of a size and a folder for this process alone or for all


class RandomDirections:
    shape = (10_000, NUM_CLASSES, *SHAPE)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).integers(-127, 128, (*target_classes.shape, *SHAPE)).astype(np.int8)


def train(steps: int, folder: Path) -> None:
    """One epoch of alignment with one class an image."""
    split = random_images(128 * steps)
    config = ClassifierConfig(epochs=1, batch_size=128, crop_padding=4, flip=True, compile=False)
    batches = Batches(split, config, 0, CPU, RandomDirections())  # type: ignore[arg-type]
    nothing = split.select(np.arange(0))
    train_classifier(build("rn8-silu", NUM_CLASSES, SHAPE, 0), batches, Alignment(1.0), nothing, config)


def diffusion(steps: int, folder: Path) -> None:
    split = random_images(256)
    images = ImageDataset.create("random", tuple("0123456789"), train=split, validation=split, test=split)
    train_diffusion(images, UNET.model_copy(update={"steps": steps, "batch_size": 32}), 0, CPU)


def distillation(groups: int, folder: Path) -> None:
    """Score-based gradients into shards of one group of images each."""
    shards.SHARD_BYTES, shards.MAX_SHARDS = 1, groups
    schedule, t = NoiseSchedule.from_config(UNET), gradient_t(UNET)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build_unet(UNET, SHAPE[0], SHAPE[1], NUM_CLASSES).eval()

    def gradients(x0: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return score_based_gradients(model, x0, indices, schedule, t, NUM_CLASSES, 1, 0)

    options = {"num_classes": NUM_CLASSES, "attributes": {}, "bits": 8, "batch_size": GROUP["cpu"]}
    split = random_images(groups * GROUP["cpu"])
    distill(gradients, split, folder / f"{groups}.zarr", announce=lambda line: None, **options)  # type: ignore[arg-type]


def evaluation(steps: int, folder: Path) -> None:
    """Radii at which every image survives: each meets the whole budget, as an image of a robust network does."""
    model = build("rn8-silu", NUM_CLASSES, SHAPE, 0).eval()
    images = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    radii: dict[Norm, list[float]] = {"L2": [1e-4], "Linf": [1e-6]}
    processes = min(len(radii), torch.get_num_threads())  # as the stage does where it is alone
    with torch.no_grad():
        labels = model(images).argmax(1)
    evaluate_autoattack(
        model,
        images,
        labels,
        radii,
        batch_size=8,
        seed=0,
        processes=processes,
        budget=quick(steps),  # type: ignore[arg-type]
    )


TASKS: dict[str, tuple[Task, int]] = {
    "train": (train, 8),
    "diffusion": (diffusion, 24),
    "distil": (distillation, 8),
    "evaluate": (evaluation, 8),
}


def seconds(scale: float) -> dict[str, float]:
    """Of each task, in the processes that have joined; the first one's word counts, which ends with the last."""
    keep_freed_memory()
    found = {}
    for name, (task, size) in TASKS.items():
        with tempfile.TemporaryDirectory() as own:
            folder = from_first(partial(Path, own))
            work = max(4, round(size * scale))
            task(work // 2, folder)  # memory that a process has for the first time costs page faults
            wait()
            start = time.perf_counter()
            task(work, folder)
            wait()
            found[name] = time.perf_counter() - start
    return found


def started(processes: int, threads: int, scale: float) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "benchmarks.parallel"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, "--inside", "--scale", str(scale)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json_format.loads(done.stdout.splitlines()[-1])


def ratios(rounds: int, scale: float) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODES}
    for repeat in range(rounds):
        for name, (processes, threads) in reversed(MODES.items()) if repeat % 2 else MODES.items():
            found[name].append(started(processes, threads, scale))
    results = {}
    for task in TASKS:
        median = {name: statistics.median(each[task] for each in rows) for name, rows in found.items()}
        over = {f"over_{name}": median[name] / median["processes"] for name in ("one", "threads")}
        results[task] = {**over, **{f"seconds_{name}": value for name, value in median.items()}}
    return results


@click.command()
@click.option("--json", is_flag=True, help="one JSON object on the last line")
@click.option("--rounds", default=3, show_default=True)
@click.option("--scale", default=1.0, show_default=True, help="of the work")
@click.option("--inside", is_flag=True, hidden=True, help="one of the processes that are measured")
def main(json: bool, rounds: int, scale: float, inside: bool) -> None:
    if not inside:
        report("parallel", ratios(rounds, scale), json)
        return
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with joined():
        found = seconds(scale)
        if is_first():
            print(json_format.dumps({**found, "processes": count()}), flush=True)


if __name__ == "__main__":
    main()
