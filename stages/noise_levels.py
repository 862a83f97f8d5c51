"""noise_levels: what score-based gradients look like over the noise levels of one diffusion model (Figure 8)."""

import click
import numpy as np
import torch

from pag.diffusion.model.images import resize, to_signed
from pag.diffusion.model.images import to_unit as from_signed
from pag.diffusion.model.schedule import gradient_t
from pag.diffusion.model.trained import load_diffusion
from pag.foundation.artifacts import save_arrays
from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.seeding import generator
from pag.gradients.score import ScoreBased
from pag.images.dataset import load
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device

ALPHA_BARS = (0.999, 0.97, 0.9, 0.7, 0.5, 0.3, 0.1, 0.02)  # from hardly any noise to hardly any image
IMAGES = 2  # the first training image of each of the first classes
MAX_CLASSES_SHOWN = 10


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    seed, config, images = load_params().seed, load_conf(dataset).distill, load(paths.images(dataset))
    device = best_device()
    model = load_diffusion(paths.diffusion(dataset), device, images)
    schedule = model.schedule
    levels = [gradient_t(model.config, schedule.nearest_t(alpha_bar)) for alpha_bar in ALPHA_BARS]

    rows = np.array([np.flatnonzero(images.train.labels == label)[0] for label in range(IMAGES)])
    indices = torch.from_numpy(rows)
    height, width = images.image_shape[1:]
    x0 = images.train.unit(rows).to(device)
    signed = to_signed(x0, model.config.image_size)
    noise = torch.stack([torch.randn(signed.shape[1:], generator=generator(seed, "noise", row, 0)) for row in rows])
    shown = min(images.num_classes, MAX_CLASSES_SHOWN)
    noisy, gradients = [], []
    for t in levels:
        x_t = schedule.add_noise(signed, t, noise.to(device))
        noisy.append(resize(from_signed(x_t), (height, width)).clamp(0, 1))
        gradients.append(ScoreBased(model, t, config.noise_draws, seed)(x0, indices)[:, :shown])
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
