"""A trained diffusion model as the stages after it see it: network, configuration, and whose gradients it gives."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.unet import build_unet
from pag.foundation.artifacts import ArtifactError, load_weights
from pag.foundation.config.conf import DiffusionConfig
from pag.images.dataset import ImageDataset

WEIGHTS = "ema.safetensors"


@dataclass(frozen=True)
class DiffusionModel:
    """eps_pred(x_t, t, y) with the null class num_classes."""

    network: nn.Module
    config: DiffusionConfig
    num_classes: int
    sha256: str  # of its weights; what is made with them records it

    @cached_property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.from_config(self.config)


def load_diffusion(folder: Path, images: ImageDataset, device: torch.device) -> DiffusionModel:
    """The EMA weights in `folder`, on `device`, in eval mode.

    Raises ArtifactError when they are missing, damaged or were trained on other images than these.
    """
    weights, about = load_weights(folder / WEIGHTS, keys=("dataset_hash", "diffusion"))
    if about["dataset_hash"] != images.content_hash:
        raise ArtifactError(f"{folder} was trained on other images of {images.name}: run `dvc repro`")
    return assemble(weights, DiffusionConfig.model_validate(about["diffusion"]), images, device, about["sha256"])


def assemble(
    weights: dict[str, Tensor], config: DiffusionConfig, images: ImageDataset, device: torch.device, sha256: str
) -> DiffusionModel:
    """The network for such images with these weights, on `device`, in eval mode."""
    channels, height, _ = images.image_shape
    network = build_unet(config, channels, height, images.num_classes)
    network.load_state_dict(weights)
    if device.type == "cuda":  # slower on a CPU
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiffusionModel(network.to(device).eval(), config, images.num_classes, sha256)
