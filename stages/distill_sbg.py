"""distill_sbg: score-based gradients for every training image and class, and for held-out images to measure against."""

from typing import Any

import click
import torch
from torch import Tensor

from pag.checkpoint import ArtifactError, load_weights
from pag.config.conf import DiffusionConfig, DistillConfig, load_conf
from pag.config.params import load_params
from pag.datasets.balance import balanced
from pag.datasets.base import ImageDataset, load
from pag.diffusion.schedule import NoiseSchedule, gradient_t
from pag.diffusion.unet import build_unet
from pag.gradients.distill import Gradients
from pag.gradients.score import score_based_gradients
from pag.seeding import derive_seed
from stages import paths
from stages.command import run_stage
from stages.device import best_device
from stages.distillation import write_preview, write_store


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    params, config, images = load_params(), load_conf(dataset).distill, load(paths.images(dataset))
    weights, diffusion, about = trained_diffusion(images)
    t = gradient_t(diffusion, config.t)
    attributes = {
        "realization": "sbg",
        "t": t,
        "alpha_bar": float(NoiseSchedule.from_config(diffusion).alpha_bar[t]),
        "noise_draws": config.noise_draws,
        "diffusion_sha256": about["sha256"],
        "seed": params.seed,
    }

    device = best_device()
    gradients = score_based(weights, diffusion, images, t, config, params.seed, device)
    store = paths.gradients(dataset, "sbg")
    write_store(gradients, images, images.train, store, config, {**attributes, "split": "train"}, device)
    write_preview(gradients, images, "sbg", device)

    rows = balanced(images.test.labels, config.heldout_images)
    heldout_seed = derive_seed(params.seed, "heldout")  # the training images' noise is theirs
    heldout = score_based(weights, diffusion, images, t, config, heldout_seed, device)
    attributes |= {"split": "test", "rows": rows.tolist()}
    heldout_path = paths.gradients(dataset, "heldout")
    ruler = config.model_copy(update={"bits": 8})  # the same for every precision of the training images' directions
    write_store(heldout, images, images.test.select(rows), heldout_path, ruler, attributes, device)


def trained_diffusion(images: ImageDataset) -> tuple[dict[str, Tensor], DiffusionConfig, dict[str, Any]]:
    """EMA weights, configuration and description of the network that was trained on these very images."""
    folder = paths.diffusion(images.name)
    weights, about = load_weights(folder / "ema.safetensors")
    if about["dataset_hash"] != images.content_hash:
        raise ArtifactError(f"{folder} was trained on other images of {images.name}: run `dvc repro`")
    return weights, DiffusionConfig.model_validate(about["diffusion"]), about


def score_based(
    weights: dict[str, Tensor],
    diffusion: DiffusionConfig,
    images: ImageDataset,
    t: int,
    config: DistillConfig,
    seed: int,
    device: torch.device,
) -> Gradients:
    """SBG of the trained network at noise level t."""
    channels, height, _ = images.image_shape
    model = build_unet(diffusion, channels, height, images.num_classes)
    model.load_state_dict(weights)
    if device.type == "cuda":  # slower on a CPU
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.to(device).eval()
    schedule = NoiseSchedule.from_config(diffusion)

    def gradients(x0: Tensor, indices: Tensor) -> Tensor:
        return score_based_gradients(
            model,
            x0,
            indices,
            schedule,
            t,
            images.num_classes,
            config.noise_draws,
            seed,
            image_size=diffusion.image_size,
            precision=diffusion.precision,
        )

    return gradients


if __name__ == "__main__":
    run_stage(main)
