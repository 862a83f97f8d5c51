"""A trained classifier from its folder: weights that are what was asked for, or one line that says what they are."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pag.classifiers import build
from pag.foundation.artifacts import REMAKE, ArtifactError, load_weights
from pag.images.dataset import ImageDataset


def load_trained(
    folder: Path, images: ImageDataset, arch: str, run: str, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of `run` in eval mode and without gradients for its weights, and its description.

    Raises ArtifactError if the description is of another run, architecture or data set, or of other images; what it
    says of λ, the classes per image and the seed is compared with params.yaml by the report.
    """
    path = folder / "weights.safetensors"
    weights, about = load_weights(path)
    asked = {"dataset": images.name, "arch": arch, "method": run, "dataset_hash": images.content_hash}
    for key, value in asked.items():
        if about.get(key) != value:
            found = about.get(key, "nothing")
            raise ArtifactError(f"{path} is of other work, its {key} is {found}, expected {value}: {REMAKE}")
    model = build(arch, images.num_classes, images.image_shape, seed=0)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ArtifactError(f"{path} does not fit {arch} with {images.num_classes} classes: {REMAKE}") from None
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.requires_grad_(False).eval(), about
