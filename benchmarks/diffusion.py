"""Training throughput of the class-conditional diffusion model: what do memory layout, bfloat16 and compilation give?

CIFAR shapes (3×32×32, 10 classes), random pixels. Every side takes the steps that training takes, from the draw of the
noise to the moving average of the weights, and is compared with plain float32 in PyTorch's default memory layout;
`over_plain` is the ratio of the throughputs. The small network keeps the run short on a CPU, where training itself
uses the default layout; `--network cifar10` is the one of conf/cifar10.yaml, for a GPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch

from benchmarks.harness import measure, report
from pag.diffusion.training import Trainer
from pag.foundation.config.conf import load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.images.dataset import ImageDataset, Split
from stages.shared.device import best_device

NUM_CLASSES, SHAPE, IMAGES = 10, (3, 32, 32), 1000
SMALL = DiffusionConfig(channels=32, multipliers=[1, 2, 2], blocks=1, attention=[8], head_dim=32, batch_size=32)


@dataclass(frozen=True)
class Variant:
    """One way to run the same training step."""

    channels_last: bool = False
    bf16: bool = False
    compile: bool = False


VARIANTS = {
    "plain": Variant(),
    "channels_last": Variant(channels_last=True),
    "bf16": Variant(bf16=True),
    "channels_last+bf16": Variant(channels_last=True, bf16=True),
    "compile": Variant(compile=True),
    "channels_last+bf16+compile": Variant(channels_last=True, bf16=True, compile=True),
}


def trainer(config: DiffusionConfig, variant: Variant, device: torch.device) -> Trainer:
    """A training that has not begun, on random images; all variants start from the same weights."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8), np.arange(IMAGES) % NUM_CLASSES)
    classes = tuple(map(str, range(NUM_CLASSES)))
    dataset = ImageDataset.create("random", classes, train=split, validation=split, test=split)
    changes = {"precision": "bf16" if variant.bf16 else "float32", "compile": variant.compile}
    return Trainer(dataset, config.model_copy(update=changes), 0, device, channels_last=variant.channels_last)


class Steps:
    """Calls that each take the next `count` steps of one training."""

    def __init__(self, training: Trainer, count: int) -> None:
        self.training, self.count, self.taken = training, count, 0

    def __call__(self) -> None:
        for _ in range(self.count):
            self.training.step(self.taken)
            self.taken += 1
        if self.training.device.type == "cuda":
            torch.cuda.synchronize()


def throughput(
    config: DiffusionConfig, variants: dict[str, Variant], steps: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Images per second of each variant, and relative to the one named plain."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # trainings seed it
        trainings = {name: trainer(config, variant, device) for name, variant in variants.items()}
        first = {name: seconds_of(Steps(training, 1)) for name, training in trainings.items()}
        click.echo("seconds of the first step: " + ", ".join(f"{name} {value:.1f}" for name, value in first.items()))
        seconds = measure({name: Steps(training, steps) for name, training in trainings.items()}, repeats)
    return {
        "images_per_second": {name: steps * config.batch_size / value for name, value in seconds.items()},
        "over_plain": {name: seconds["plain"] / value for name, value in seconds.items() if name != "plain"},
        "first_step_seconds": first,  # in which a compiler does its work
        "batch_size": config.batch_size,
        "parameters": sum(weight.numel() for weight in trainings["plain"].values),
    }


def seconds_of(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@click.command()
@click.option("--network", type=click.Choice(["small", "cifar10"]), default="small", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), help="32 for the small network, 128 for CIFAR-10's")
@click.option("--steps", type=click.IntRange(min=1), default=4, show_default=True, help="in one timed call")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--compile", is_flag=True, help="torch.compile too; on a CPU it compiles for minutes")
@click.option("--json", is_flag=True, help="one JSON object on the last line")
def main(network: str, batch_size: int | None, steps: int, repeats: int, compile: bool, json: bool) -> None:
    config = SMALL if network == "small" else load_conf("cifar10").diffusion
    config = config.model_copy(update={"batch_size": batch_size or config.batch_size})
    variants = {name: variant for name, variant in VARIANTS.items() if compile or not variant.compile}
    results = throughput(config, variants, steps, repeats, best_device())
    report("diffusion", {"network": network, "steps": steps, "repeats": repeats, **results}, json)


if __name__ == "__main__":
    main()
