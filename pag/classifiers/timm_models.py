"""Any classifier of timm (https://github.com/huggingface/pytorch-image-models) by its name, without trained weights."""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.classifiers.image_shape import require_image
from pag.foundation.config.section import ConfigError

CANNOT = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError)  # of a wrong input size


def timm_classifier(name: str, num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """timm's model `name` for such images, freshly initialised.

    Raises ConfigError, one line, if it cannot take images of this size or gives no logits.
    """
    arch = f"timm-{name}"
    channels, height, width = require_image(arch, image_shape, smallest=1)
    options: dict[str, Any] = {"in_chans": channels, "num_classes": num_classes}
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is not None and pretrained.fixed_input_size:
        options["img_size"] = (height, width)
    size = f"images of {channels}×{height}×{width}"
    try:
        network = timm.create_model(name, pretrained=False, **options).eval()
        with torch.no_grad():
            logits = network(torch.zeros(2, *image_shape))
    except CANNOT as error:
        reason = f"{str(error) or type(error).__name__}".splitlines()[0]
        raise ConfigError(f"{arch} cannot take {size}: {reason}; use cnn or rn18, or set data.image_size") from None
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, num_classes):
        raise ConfigError(f"{arch} gives {shape} for 2 {size}, expected logits (2, {num_classes}): it is no classifier")
    _twice_differentiable(network)
    return network.train()


def _twice_differentiable(network: nn.Module) -> None:
    """The same functions without the kernels that have no second derivative."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
        for name, child in module.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(module, name, HardSigmoid())


class HardSigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def names() -> list[str]:
    return timm.list_models()
