"""A diffusion model of ours as guided-diffusion loads it: a state dict, and the arguments of its two constructors."""

from pathlib import Path
from typing import Any

import torch

from pag.diffusion.guided import to_guided
from pag.diffusion.model.trained import DiffusionModel
from pag.diffusion.model.unet import ClassConditionalUNet
from pag.foundation.artifacts import save_json
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.section import ConfigError

GROUPS = 32  # of every GroupNorm of theirs


def export(folder: Path, model: DiffusionModel, image_shape: tuple[int, ...]) -> None:
    """Write ema.pt, and arguments.json with the keyword arguments of UNetModel and of create_gaussian_diffusion.

    The weights are on the CPU in the legacy order of attention, which improved-diffusion has too. Raises ConfigError,
    one line, for a network that theirs cannot be.
    """
    config = model.config
    if config.channels % GROUPS:
        raise ConfigError(f"diffusion.channels = {config.channels}: their normalisation needs a multiple of {GROUPS}")
    if config.multipliers[0] != 1:
        raise ConfigError(f"diffusion.multipliers = {config.multipliers}: their time embedding needs a 1 at first")
    assert isinstance(model.network, ClassConditionalUNet)
    torch.save(to_guided(model.network), folder / "ema.pt")
    save_json(folder / "arguments.json", arguments(config, image_shape, model.num_classes))


def arguments(config: DiffusionConfig, image_shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    channels, height, _ = image_shape
    side = config.image_size or height
    heads = {"num_head_channels": config.head_dim} if config.heads is None else {"num_heads": config.heads}
    return {
        "UNetModel": {
            "image_size": side,
            "in_channels": channels,
            "model_channels": config.channels,
            "out_channels": channels * (2 if config.learn_sigma else 1),
            "num_res_blocks": config.blocks,
            "attention_resolutions": [side // resolution for resolution in config.attention],
            "dropout": config.dropout,
            "channel_mult": config.multipliers,
            "num_classes": num_classes + 1,  # the last means no class
            **heads,
            "use_scale_shift_norm": config.scale_shift_norm,
            "resblock_updown": config.resblock_updown,
        },
        "create_gaussian_diffusion": {
            "steps": config.timesteps,
            "learn_sigma": config.learn_sigma,
            "noise_schedule": config.schedule,
            "rescale_timesteps": config.rescale_timesteps,
        },
    }
