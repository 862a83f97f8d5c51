"""Distillation against the bare network: what do batching, quantising, hashing and writing cost on top?

SBG at CIFAR shapes (3×32×32, 10 classes) with a small U-Net; `over_forward` is the throughput of the whole distillation
divided by that of the network's forward passes alone, on passes of the same size. The heuristics are compared
with copying their float gradients once in memory, `over_copy`.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.harness import measure, report
from pag.diffusion.model.schedule import NoiseSchedule, gradient_t
from pag.diffusion.model.unet import build_unet
from pag.foundation.config.diffusion import DiffusionConfig
from pag.gradients.distillation.distill import Gradients, distill
from pag.gradients.realizations import class_mean, nearest_neighbour, one_image
from pag.gradients.score import GROUP, score_based_gradients
from pag.images.dataset import Split

NUM_CLASSES, SHAPE = 10, (3, 32, 32)
UNET = DiffusionConfig(
    channels=32, multipliers=[1, 2, 2], blocks=1, attention=[8], head_dim=32, learn_sigma=False, noise_levels="single"
)


def random_images(count: int) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8), np.arange(count) % NUM_CLASSES)


def into_store(gradients: Gradients, split: Split, folder: Path, device: torch.device) -> None:
    distill(
        gradients,
        split,
        folder / "store.zarr",
        num_classes=NUM_CLASSES,
        attributes={},
        bits=8,
        batch_size=2 * GROUP[device.type],
        device=device,
        announce=lambda line: None,
    )


def score_based(split: Split, folder: Path, device: torch.device, repeats: int) -> dict[str, float]:
    schedule, t = NoiseSchedule.from_config(UNET), gradient_t(UNET)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build_unet(UNET, SHAPE[0], SHAPE[1], NUM_CLASSES).to(device).eval()
    group = GROUP[device.type]
    samples = group * (NUM_CLASSES + 1)
    x_t = torch.rand(samples, *SHAPE, device=device)
    labels = torch.arange(samples, device=device) % (NUM_CLASSES + 1)

    @torch.no_grad()
    def forward() -> None:
        for _ in range(len(split) // group):
            output = model(x_t, torch.full_like(labels, t), labels)
        float(output.sum())  # waits for a GPU

    def gradients(x0: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return score_based_gradients(model, x0, indices, schedule, t, NUM_CLASSES, 1, 0)

    seconds = measure({"forward": forward, "distill": lambda: into_store(gradients, split, folder, device)}, repeats)
    return {
        "over_forward": seconds["forward"] / seconds["distill"],
        "images_per_second": len(split) / seconds["distill"],
    }


def heuristics(train: Split, folder: Path, device: torch.device, repeats: int) -> dict[str, dict[str, float]]:
    sources: dict[str, Gradients] = {
        "oi": one_image(train, NUM_CLASSES, 0),
        "cm": class_mean(train, NUM_CLASSES),
        "nn": nearest_neighbour(train, NUM_CLASSES, 0, 1000),
    }
    floats = np.ones((len(train), NUM_CLASSES, *SHAPE), np.float32)
    copy = np.empty_like(floats)
    calls = {name: lambda g=g: into_store(g, train, folder, device) for name, g in sources.items()}
    seconds = measure({"copy": lambda: np.copyto(copy, floats), **calls}, repeats)
    return {
        name: {"over_copy": seconds["copy"] / seconds[name], "images_per_second": len(train) / seconds[name]}
        for name in sources
    }


@click.command()
@click.option("--json", is_flag=True, help="one JSON object on the last line")
@click.option("--images", default=64, show_default=True, help="for SBG; a multiple of the images in a pass")
@click.option("--repeats", default=3, show_default=True)
def main(json: bool, images: int, repeats: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "sbg": score_based(random_images(images), folder, device, repeats),
            **heuristics(random_images(4000), folder, device, repeats),
        }
    report("distill", results, json)


if __name__ == "__main__":
    main()
