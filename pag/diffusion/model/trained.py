"""A trained diffusion model as the stages after it see it: network, configuration, and whose gradients it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.unet import build_unet
from pag.foundation.artifacts import ArtifactError, folder_of, load_weights
from pag.foundation.config.diffusion import DiffusionConfig
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


def load_diffusion(
    folder: str | Path, device: str | torch.device = "cpu", images: ImageDataset | None = None
) -> DiffusionModel:
    """The trained model in `folder` (data/<dataset>/diffusion): its EMA weights, on `device`, in eval mode.

    Its network takes noisy images (B, C, H, W) of pixels in [-1, 1], timesteps (B,) and classes (B,), of which
    num_classes means "no class"; `pag.gradients.score` makes gradients of it.
    images: what it must have been trained on.
    Raises ArtifactError in one line when it is missing, damaged or was trained on other images.
    """
    path = Path(folder) / WEIGHTS
    if images is None:  # no stage asks
        folder_of(folder, WEIGHTS, "a trained diffusion model (data/<dataset>/diffusion)")
    weights, about = load_weights(path, ("dataset_hash", "diffusion", "num_classes", "image_shape"))
    if images is not None and about["dataset_hash"] != images.content_hash:
        raise ArtifactError(f"{folder} was trained on other images of {images.name}: run `dvc repro`")
    config = DiffusionConfig.model_validate(about["diffusion"])
    return assemble(weights, config, about["num_classes"], about["image_shape"], device, about["sha256"])


def assemble(
    weights: dict[str, Tensor],
    config: DiffusionConfig,
    num_classes: int,
    image_shape: Sequence[int],
    device: str | torch.device,
    sha256: str,
) -> DiffusionModel:
    """The network for images (C, H, W) of so many classes with these weights, on `device`, in eval mode."""
    channels, height, _ = image_shape
    device = torch.device(device)
    network = build_unet(config, channels, height, num_classes)
    network.load_state_dict(weights)
    if device.type == "cuda":  # slower on a CPU
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiffusionModel(network.to(device).eval(), config, num_classes, sha256)
