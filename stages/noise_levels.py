"""noise_levels: what score-based gradients look like over the noise levels of one diffusion model (Figure 8)."""

import click
import numpy as np
import torch

from pag.checkpoint import save_arrays
from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.datasets.base import load, to_unit
from pag.diffusion.images import resize, to_signed
from pag.diffusion.images import to_unit as from_signed
from pag.diffusion.schedule import NoiseSchedule, gradient_t
from pag.seeding import generator
from stages import paths
from stages.command import run_stage
from stages.device import best_device
from stages.distill_sbg import score_based, trained_diffusion

ALPHA_BARS = (0.999, 0.97, 0.9, 0.7, 0.5, 0.3, 0.1, 0.02)  # from hardly any noise to hardly any image
IMAGES = 2  # the first training image of each of the first classes
MAX_CLASSES_SHOWN = 10


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    seed, config, images = load_params().seed, load_conf(dataset).distill, load(paths.images(dataset))
    weights, diffusion, _ = trained_diffusion(images)
    schedule = NoiseSchedule.from_config(diffusion)
    levels = [gradient_t(diffusion, schedule.nearest_t(alpha_bar)) for alpha_bar in ALPHA_BARS]

    device = best_device()
    rows = np.array([np.flatnonzero(images.train.labels == label)[0] for label in range(IMAGES)])
    indices = torch.from_numpy(rows)
    height, width = images.image_shape[1:]
    x0 = to_unit(images.train.images[rows], images.levels).to(device)
    signed = to_signed(x0, diffusion.image_size)
    noise = torch.stack([torch.randn(signed.shape[1:], generator=generator(seed, "noise", row, 0)) for row in rows])
    shown = min(images.num_classes, MAX_CLASSES_SHOWN)
    noisy, gradients = [], []
    for t in levels:
        x_t = schedule.add_noise(signed, t, noise.to(device))
        noisy.append(resize(from_signed(x_t), (height, width)).clamp(0, 1))
        gradients.append(score_based(weights, diffusion, images, t, config, seed, device)(x0, indices)[:, :shown])
    arrays = {
        "images": x0.cpu().numpy(),
        "labels": images.train.labels[rows],
        "t": np.array(levels),
        "alpha_bar": schedule.alpha_bar[levels].numpy(),
        "noisy": torch.stack(noisy, dim=1).cpu().numpy(),  # (images, levels, C, H, W)
        "gradients": torch.stack(gradients, dim=1).cpu().numpy(),  # (images, levels, K, C, H, W)
        "class_names": np.array(images.class_names[:shown]),
    }
    save_arrays(paths.RESULTS / "arrays" / dataset / "noise_levels.npz", arrays)


if __name__ == "__main__":
    run_stage(main)
