"""A trained classifier from its folder: weights that are what was asked for, or one line that says what they are."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pag.classifiers import build, fastest_layout
from pag.foundation.artifacts import REMAKE, ArtifactError, folder_of, load_weights
from pag.images.dataset import ImageDataset

WHAT = (
    "a trained classifier (data/<dataset>/classifiers/<arch>/<run>; pag.interchange.classifier.load_folder reads what "
    "stages.export wrote)"
)
WEIGHTS = "weights.safetensors"
KEYS = ("dataset", "arch", "run", "method", "dataset_hash", "num_classes", "image_shape")  # of every description


def load_classifier(folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The trained classifier in `folder` (data/<dataset>/classifiers/<arch>/<run>), on `device`.

    It maps float32 images (B, C, H, W) in [0, 1] to logits (B, num_classes); in eval mode, its weights without
    gradients: `.train().requires_grad_()` to train on. Raises ArtifactError in one line when it is missing or damaged.
    """
    path = folder_of(folder, WEIGHTS, WHAT)
    return _assemble(path, *load_weights(path, KEYS), device)


def load_trained(
    folder: Path, images: ImageDataset, arch: str, run: str, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier in `folder` and its description.

    Raises ArtifactError if the description is of another run, architecture or data set, or of other images; what it
    says of λ, the classes per image and the seed is compared with params.yaml by the report.
    """
    path = folder / WEIGHTS
    weights, about = load_weights(path, KEYS)
    asked = {"dataset": images.name, "arch": arch, "run": run, "dataset_hash": images.content_hash}
    for key, value in asked.items():
        if about[key] != value:
            raise ArtifactError(f"{path} is of other work, its {key} is {about[key]}, expected {value}: {REMAKE}")
    return _assemble(path, weights, about, device), about


def _assemble(path: Path, weights: dict[str, Tensor], about: dict[str, Any], device: str | torch.device) -> nn.Module:
    arch, num_classes = about["arch"], about["num_classes"]
    model = build(arch, num_classes, tuple(about["image_shape"]), seed=0)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ArtifactError(f"{path} does not fit {arch} with {num_classes} classes: {REMAKE}") from None
    model.to(device, memory_format=fastest_layout(model))  # type: ignore[call-overload]
    return model.requires_grad_(False).eval()
