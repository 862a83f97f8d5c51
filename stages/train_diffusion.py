"""train_diffusion: the class-conditional DDPM with C + 1 classes → EMA weights, loss curve, a picture.

With `diffusion.checkpoint` a network of guided-diffusion is converted instead; the curve is then one point, its loss.
"""

import csv

import click
import numpy as np
import torch

from pag.diffusion.checkpoint import convert, judge
from pag.diffusion.model.images import resize
from pag.diffusion.model.trained import WEIGHTS, assemble
from pag.diffusion.sampling import denoise_once, sample
from pag.diffusion.training import TrainedDiffusion, train
from pag.foundation.artifacts import save_arrays, save_weights
from pag.foundation.atomic import atomic_directory, atomic_file
from pag.foundation.config.conf import load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.params import load_params
from pag.foundation.config.section import ConfigError
from pag.foundation.processes import is_first
from pag.foundation.scratch import Scratch
from pag.images.dataset import ImageDataset, load
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device
from stages.shared.progress import progress

CURVE_POINTS = 200  # the loss curve is averaged down to this many rows
CURVE_WRITES = 50  # while training runs
ROWS = 4  # of the picture, one column per class
SAMPLING_STEPS = 50


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    params, config, images = load_params(), load_conf(dataset).diffusion, load(paths.images(dataset))
    with paths.scratch("train_diffusion", config.model_dump(mode="json"), images.content_hash, params.seed) as scratch:
        made = converted if config.checkpoint is not None else trained_here
        trained = made(images, config, params.seed, scratch)
        if not is_first():
            return
        with atomic_directory(paths.diffusion(dataset)) as folder:
            about = {
                "diffusion": config.model_dump(mode="json"),
                "num_classes": images.num_classes,
                "image_shape": list(images.image_shape),
                "dataset_hash": images.content_hash,
                "seed": params.seed,
            }
            save_weights(folder / WEIGHTS, trained.ema_weights, about)
        save_curve(dataset, trained.losses)
        save_picture(dataset, images, trained, config, params.seed)


def trained_here(images: ImageDataset, config: DiffusionConfig, seed: int, scratch: Scratch) -> TrainedDiffusion:
    with progress(f"diffusion on {images.name}", config.steps, "steps") as told:

        def on_step(losses: list[float]) -> None:
            if len(losses) > told.done + 1:
                told.goes_on(len(losses) - 1)
            told.at(len(losses), figures=f"loss {losses[-1]:.3g}" if losses else "")
            if len(losses) % max(1, config.steps // CURVE_WRITES) == 0 and is_first():
                save_curve(images.name, losses)  # so far, for `dvc plots show`

        return train(
            images,
            config,
            seed,
            best_device(),
            on_step=on_step,
            scratch=scratch,
        )


def converted(images: ImageDataset, config: DiffusionConfig, seed: int, _: Scratch) -> TrainedDiffusion:
    weights, device = convert(config, images), best_device()
    model = assemble(weights, config, images.num_classes, images.image_shape, device, "not on disk")
    loss = judge(model, images, seed, device)
    if not loss < 1:  # NaN, too
        raise ConfigError(
            f"diffusion.checkpoint: the network predicts noise with a squared error of {loss:.4f}, and predicting "
            "nothing has 1: look at head_dim or heads, checkpoint.attention_order, rescale_timesteps and schedule"
        )
    click.echo(f"diffusion on {images.name}: converted; squared error of the noise {loss:.4f} (predicting nothing: 1)")
    return TrainedDiffusion(weights, [loss])


def save_curve(dataset: str, losses: list[float]) -> None:
    with atomic_file(paths.diffusion_curve(dataset)) as path, open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss"])
        writer.writerows(zip(*curve(losses), strict=True))


def curve(losses: list[float]) -> tuple[list[int], list[float]]:
    """Steps and the mean loss of the steps up to each, at most CURVE_POINTS of them."""
    parts = np.array_split(np.array(losses), min(CURVE_POINTS, len(losses)))
    return np.cumsum([len(part) for part in parts]).tolist(), [float(part.mean()) for part in parts]


def save_picture(
    dataset: str, images: ImageDataset, trained: TrainedDiffusion, config: DiffusionConfig, seed: int
) -> None:
    """Rows of one picture per class: samples, or noisy and denoised test images where not all levels were trained."""
    device = best_device()
    channels, height, _ = images.image_shape
    side = config.image_size or height
    model = assemble(trained.ema_weights, config, images.num_classes, images.image_shape, device, "not on disk")
    classes = torch.arange(images.num_classes, device=device)
    if config.noise_levels == "all":
        steps = min(SAMPLING_STEPS, config.timesteps)
        pictures = sample(model.network, model.schedule, classes.repeat(ROWS), (channels, side, side), steps, seed)
        kind = "samples"
    else:
        firsts = images.test.select(first_of_each_class(images, ROWS // 2))
        x0 = firsts.unit().to(device)
        x0 = resize(x0, (side, side)).clamp(0, 1) if side != height else x0
        t = model.schedule.nearest_t(config.alpha_bar)
        noisy, denoised = denoise_once(model.network, model.schedule, x0, classes.repeat(ROWS // 2), t, seed)
        pictures = torch.stack([noisy, denoised], dim=1).unflatten(0, (ROWS // 2, -1)).transpose(1, 2).flatten(0, 2)
        kind = "one-step denoising"
    steps_seen, loss = curve(trained.losses)
    arrays = {
        "steps": np.array(steps_seen),
        "loss": np.array(loss),
        "images": pictures.unflatten(0, (-1, images.num_classes)).cpu().numpy(),
        "class_names": np.array(images.class_names),
        "kind": np.array(kind),
    }
    save_arrays(paths.diffusion_preview(dataset), arrays)


def first_of_each_class(images: ImageDataset, count: int) -> np.ndarray:
    """(count · num_classes,) indices of test images, class after class in every row."""
    by_class = [np.flatnonzero(images.test.labels == y) for y in range(images.num_classes)]
    return np.array([members[row % len(members)] for row in range(count) for members in by_class])


if __name__ == "__main__":
    run_stage(main, shared=True)
