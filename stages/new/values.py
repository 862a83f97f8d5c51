"""The values that fit images of one's own: the small networks of this project's own studies, sized by the images.

On a CPU they are those of mnist5k, on a GPU near those that cifar10-night ran with (results/studies). They are where to
start from, not the best ones: choose λ, rates and epochs on the validation images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pag.foundation.config.data import DataConfig
from pag.images.dataset import ImageDataset


@dataclass(frozen=True)
class Scale:
    """How much a machine can do in the time that one waits for a first result."""

    arch: str
    largest_side: int
    most_images: int | None
    diffusion_steps: int
    diffusion_batch: int
    classifier_steps: int
    attacked: int


CPU = Scale("cnn", 32, 10_000, 1000, 64, 700, 200)
GPU = Scale("rn8-silu", 64, None, 4000, 256, 4000, 500)

HEURISTIC = {"cnn": 0.5, "rn8-silu": 0.15}  # λ of OI, CM and NN: what each network stood in the studies


def conf_of(images: ImageDataset, data: DataConfig, scale: Scale) -> dict[str, Any]:
    """The content of conf/<name>.yaml."""
    train, (channels, side, _), classes = len(images.train), images.image_shape, images.num_classes
    batch = min(64, train)
    radii = threat_models(channels, side)
    heuristic = {"lambda": {"default": HEURISTIC[scale.arch]}}
    return {
        "data": {**data.model_dump(exclude_defaults=True), "note": None},  # dvc.yaml asks for this key
        "diffusion": diffusion(side, min(scale.diffusion_batch, train), scale.diffusion_steps),
        "distill": {"noise_draws": 1, "bits": 8, "heldout_images": min(200, len(images.test))},
        "heuristics": {"nn_candidates": max(2, min(100, int(np.bincount(images.train.labels).min())))},
        "classifier": {
            "epochs": max(5, round(scale.classifier_steps * batch / train)),
            "batch_size": batch,
            "optimizer": "adam",
            "lr": 0.002,
            "weight_decay": 0.0,
            "lr_schedule": "cosine",
            "crop_padding": side // 8 if side >= 16 else 0,
            "flip": channels == 3,  # letters and digits are grey, and mean something else in a mirror
        },
        "alignment": {"classes_per_image": 1 if classes > 10 else min(3, classes), "gradient_of": "log_softmax"},
        "methods": {
            "vanilla": {},
            "at-l2": {"norm": "L2", "eps": radii["L2"][0]},
            "at-linf": {"norm": "Linf", "eps": radii["Linf"][0]},
            "trades-linf": {"norm": "Linf", "eps": radii["Linf"][0], "steps": 10, "beta": 6.0},
            "gradnorm": {"weight": round(0.375 * radii["Linf"][0], 4)},  # 3/255 in colour
            "noise": {"sigma": 0.12},
            **dict.fromkeys(("oi", "cm", "nn"), heuristic),
            "sbg": {"lambda": {"default": 2.0}},
            "at+pag": {"lambda": {"default": 0.2}},
            "trades+pag": {"lambda": {"default": 0.5}},
        },
        "evaluation": {
            "threat_models": radii,
            "images": scale.attacked if len(images.test) > scale.attacked else None,
            "batch_size": min(200, len(images.test)),
            "large_eps": {"eps": 8 * radii["L2"][0], "steps": 40, "images": min(6, classes)},
        },
        "variants": {},
    }


def diffusion(side: int, batch: int, steps: int) -> dict[str, Any]:
    """The U-Net halves the images down to 4 to 8 pixels and attends there; it works at a multiple of 4 pixels."""
    worked_at = -(-side // 4) * 4
    levels = 1
    while levels < 4 and worked_at % 2**levels == 0 and worked_at // 2**levels >= 4:
        levels += 1
    return {
        "schedule": "cosine",
        "timesteps": 1000,
        "learn_sigma": False,
        "noise_levels": "single",  # that of the gradients: it needs a fraction of the steps
        "alpha_bar": 0.5,
        "image_size": None if worked_at == side else worked_at,
        "channels": 32,
        "multipliers": [1, 2, 2, 2][:levels],
        "blocks": 1,
        "attention": [worked_at // 2 ** (levels - 1)],
        "head_dim": 32,
        "dropout": 0.0,
        "steps": steps,
        "batch_size": batch,
        "lr": 0.002 if batch <= 64 else 0.001,
        "ema_decay": 0.999,
    }


def threat_models(channels: int, side: int) -> dict[str, list[float]]:
    """The radii of the field for colour (CIFAR-10: 0.5 and 1, 8 and 16 of 255) and grey images (MNIST: 1 and 2, 0.1 and
    0.2), those of L2 in proportion to the side, so that they are as much for each pixel."""
    of_side = side / 32 if channels == 3 else side / 28
    l2 = max(0.25, round((0.5 if channels == 3 else 1.0) * of_side * 4) / 4)
    linf = [8 / 255, 16 / 255] if channels == 3 else [0.1, 0.2]
    return {"L2": [l2, 2 * l2], "Linf": linf}


def experiment(name: str, scale: Scale) -> dict[str, Any]:
    """What params.yaml says of it; the seeds stay as they are."""
    return {
        "lambda": None,
        "datasets": [name],
        "raw": [name],
        "archs": [scale.arch],
        "baselines": ["vanilla", "at-l2"],
        "heuristics": ["cm", "nn"],
        "realizations": ["cm", "nn", "sbg"],
        "robust": [],
        "robust_realizations": [],
        "variants": [],
        "variant_datasets": [name],
        "variant_archs": [scale.arch],
        "externals": [],
        "external_datasets": [name],
        "point_sets": [],
        "noise_level_figures": [],
    }
