"""A checkpoint of guided-diffusion or improved-diffusion as our network, or one line that says why it cannot be one.

What can be read off the weights is compared with the conf. Not to be seen in them, and so the conf's to say, are the
heads of attention and its order, rescale_timesteps, the schedule, and that the network predicts the noise.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pag.diffusion.guided import DoesNotFit, from_guided
from pag.diffusion.model.images import to_signed
from pag.diffusion.model.schedule import timesteps_of
from pag.diffusion.model.trained import DiffusionModel
from pag.diffusion.model.unet import build_unet, eps_half
from pag.foundation.allocator import out_of_memory
from pag.foundation.artifacts import sha256
from pag.foundation.config.diffusion import CheckpointConfig, DiffusionConfig
from pag.foundation.config.section import ConfigError
from pag.foundation.repository import repository
from pag.foundation.seeding import generator
from pag.images.dataset import ImageDataset

JUDGED, BATCH = 256, 16  # validation images on which a converted network is measured, and at once


def convert(config: DiffusionConfig, images: ImageDataset) -> dict[str, Tensor]:
    """The weights of `config.checkpoint`, to be loaded into `build_unet(config, …)`.

    Raises ConfigError, one line, if the file is missing, another one than the conf says, no state dict of such a
    network, or a network that the conf does not describe or that ours cannot be.
    """
    assert config.checkpoint is not None
    path = repository() / Path(config.checkpoint.path).expanduser()
    theirs = _read(path, config.checkpoint)
    channels, side, _ = images.image_shape
    try:
        _compare(architecture(theirs, config.image_size or side), config, images)
        network = build_unet(config, channels, side, images.num_classes)
        return from_guided(theirs, network, config.checkpoint.attention_order)
    except (DoesNotFit, KeyError) as error:
        problem = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ConfigError(f"diffusion.checkpoint: {path} cannot be converted: {problem}") from None


def _read(path: Path, config: CheckpointConfig) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"diffusion.checkpoint.path: there is no file {path}")
    if (found := sha256(path)) != config.sha256:
        raise ConfigError(f"diffusion.checkpoint.sha256: {path} has {found}, the conf says {config.sha256}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        if out_of_memory(error):
            raise
        reason = type(error).__name__  # PyTorch's own text advises to unpickle whatever it is
        raise ConfigError(
            f"diffusion.checkpoint: {path} cannot be read as PyTorch weights alone ({reason}): save the network's "
            "state_dict() by itself"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ConfigError(f"diffusion.checkpoint: {path} is no state dict, expected names with tensors")
    return content


def architecture(theirs: dict[str, Tensor], side: int) -> dict[str, Any]:
    """What the weights say of the keys of `diffusion`, and of the images and classes that the network is for.

    Raises DoesNotFit, by the packages' own name for it, for what our network does not have.
    """
    if "time_embed.0.weight" not in theirs:
        raise DoesNotFit("it has no time_embed.0.weight, expected a UNetModel's state dict")
    if "label_emb.weight" not in theirs:
        raise DoesNotFit("it was trained without class_cond, expected a class-conditional network")
    inputs, outputs = (_numbers(theirs, f"{part}_blocks") for part in ("input", "output"))
    if len(inputs) != inputs[-1] + 1:
        raise DoesNotFit("conv_resample=False: our network changes the resolution by convolutions or residual blocks")
    # behind the last block of every level but the topmost, the resolution grows
    ends = [k for k in outputs if re.search(rf"^output_blocks\.{k}\.[12]\.(conv|in_layers)\.", "\n".join(theirs), re.M)]
    per_level = ends[0] + 1 if ends else len(outputs)
    levels = outputs[::-per_level]  # the last block of each, finest first
    channels = theirs["time_embed.0.weight"].shape[1]
    widths = [theirs[f"output_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in levels]
    if odd := [width for width in widths if width % channels]:
        raise DoesNotFit(f"channel_mult has {odd[0] / channels:g}: expected whole numbers")
    if widths[0] != channels:
        raise DoesNotFit(f"channel_mult begins with {widths[0] // channels}: expected 1")
    attended = [level for level, k in enumerate(levels) if f"output_blocks.{k}.1.qkv.weight" in theirs]
    in_channels, out_channels = theirs["input_blocks.0.0.weight"].shape[1], theirs["out.2.weight"].shape[0]
    return {
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks": per_level - 1,
        "attention": [side // 2**level for level in attended],
        "learn_sigma": out_channels == 2 * in_channels,
        "scale_shift_norm": theirs["middle_block.0.emb_layers.1.weight"].shape[0] == 2 * widths[-1],
        "resblock_updown": not any(".conv." in name for name in theirs) and len(levels) > 1,
        "image channels": in_channels,
        "classes": theirs["label_emb.weight"].shape[0],
    }


def _numbers(theirs: dict[str, Tensor], blocks: str) -> list[int]:
    found = sorted({int(name.split(".")[1]) for name in theirs if re.match(rf"{blocks}\.\d+\.", name)})
    if not found:
        raise DoesNotFit(f"it has no {blocks}, expected a UNetModel's state dict")
    return found


def _compare(found: dict[str, Any], config: DiffusionConfig, images: ImageDataset) -> None:
    expected = {key: getattr(config, key) for key in found if key in DiffusionConfig.model_fields}
    expected["attention"] = sorted(expected["attention"], reverse=True)
    expected |= {"image channels": images.image_shape[0], "classes": images.num_classes + 1}
    if len(config.multipliers) == 1:
        expected["resblock_updown"] = False  # nothing to see
    if differing := [key for key, value in found.items() if value != expected[key]]:
        told = ", ".join(f"{key} {found[key]} (here {expected[key]})" for key in differing)
        hint = "; the last class means none" if "classes" in differing else ""
        raise DoesNotFit(f"it has {told}{hint}")


@torch.no_grad()
def judge(model: DiffusionModel, images: ImageDataset, seed: int, device: torch.device) -> float:
    """The mean squared error of eps_pred on validation images: far below 1, that of a network that predicts nothing.

    It shows what the weights do not: a wrong number of heads, order of attention or time scale.
    """
    rng, split, channels = generator(seed, "diffusion", "checkpoint"), images.validation, images.image_shape[0]
    levels, side = timesteps_of(model.config), model.config.image_size or images.image_shape[-1]
    losses = []
    for rows in torch.randint(len(split), (JUDGED // BATCH, BATCH), generator=rng):
        x0 = to_signed(split.unit(rows.numpy()), side)
        t = levels[torch.randint(len(levels), (BATCH,), generator=rng)]
        noise = torch.randn(x0.shape, generator=rng)
        x_t, labels = model.schedule.add_noise(x0, t, noise), torch.from_numpy(split.labels)[rows]
        output = model.network(x_t.to(device), t.to(device), labels.to(device)).cpu()
        losses.append(F.mse_loss(eps_half(output, channels), noise).item())
    return sum(losses) / len(losses)
