"""The architectures: every one maps [0,1] images (B, C, H, W), or points (B, D), to logits (B, num_classes).

A new architecture is one small file with ``(num_classes, image_shape) -> nn.Module`` and one line in ARCHITECTURES. Its
network sees pixels in [-1,1]; the scaling is added here, so that everything outside speaks [0,1].

Where a name ends in an activation, its constructor is given it; without one it has its own. `timm-` before a name of
timm is that architecture, from random weights.
"""

from collections.abc import Iterable
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
from torch import nn

from pag.classifiers.scaling import ScaledInput
from pag.foundation.config.section import ConfigError, nearest, without_activation
from pag.foundation.seeding import derive_seed

# name → "module:constructor"; a module is imported when its architecture is built
ARCHITECTURES: dict[str, str] = {
    "cnn": "pag.classifiers.cnn:SmallCNN",
    "cnn-relu": "pag.classifiers.cnn:SmallCNN",
    "mlp": "pag.classifiers.mlp:mlp",
    "rn8": "pag.classifiers.pre_activation:rn8",
    "rn8-silu": "pag.classifiers.pre_activation:rn8",
    "rn14": "pag.classifiers.pre_activation:rn14",
    "rn14-silu": "pag.classifiers.pre_activation:rn14",
    "rn18": "pag.classifiers.resnet:resnet18",
    "rn18-silu": "pag.classifiers.resnet:resnet18",
    "wrn-34-10": "pag.classifiers.pre_activation:wrn_34_10",
    "wrn-34-10-silu": "pag.classifiers.pre_activation:wrn_34_10",
    "vgg11": "pag.classifiers.vgg:vgg11",
    "vgg13": "pag.classifiers.vgg:vgg13",
    "vgg16": "pag.classifiers.vgg:vgg16",
    "vit": "pag.classifiers.vit:vit",
    "vit-mini": "pag.classifiers.vit:vit_mini",
    "mixer": "pag.classifiers.mixer:mixer",
}
TIMM = "timm-"
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}  # that a name may end in


def known_architectures(names: Iterable[str]) -> list[str]:
    """Every architecture; timm's, which take seconds to list, only where one of `names` is meant to be among them."""
    if not any(name.startswith(TIMM) for name in names):
        return list(ARCHITECTURES)
    from pag.classifiers import timm_models

    return [*ARCHITECTURES, *(f"{TIMM}{name}" for name in timm_models.names())]


def require_known(arch: str) -> None:
    """Raises ConfigError for an unknown architecture, with the nearest one."""
    if arch not in (known := known_architectures([arch])):
        raise ConfigError(f"unknown architecture '{arch}'{nearest(arch, known)}")


def build(arch: str, num_classes: int, image_shape: tuple[int, ...], seed: int, **options: Any) -> nn.Module:
    """A freshly initialised classifier on the CPU; its weights depend on `seed` and `arch` alone.

    Not on the activation: networks that differ in nothing else start from the same weights, as a comparison wants it.

    image_shape: (C, H, W), or (D,) for points, which are not scaled. options go to the constructor (``hidden`` of mlp).
    Raises ConfigError if the architecture is unknown or cannot take such images.
    """
    require_known(arch)
    base = without_activation(arch)
    if arch.startswith(TIMM):
        constructor = partial(resolve_name("pag.classifiers.timm_models:timm_classifier"), arch.removeprefix(TIMM))
    else:
        constructor = resolve_name(ARCHITECTURES[arch])
    if base != arch:
        options["activation"] = ACTIVATIONS[arch.removeprefix(f"{base}-")]
    # torch's and timm's initialisers draw from the global generator: lend it to them, and put it back. Only the CPU's
    # is seeded (torch.manual_seed would also reseed every GPU), because weights are drawn there on every machine.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "initial weights", base))
        network = constructor(num_classes, image_shape, **options)
    return ScaledInput(network) if len(image_shape) == 3 else network


def fastest_layout(model: nn.Module) -> torch.memory_format:
    """Channels last, which gains on a GPU; a ViT, whose one convolution cuts patches, loses by it on a CPU in bfloat16
    (docs/benchmarks.md)."""
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolutions > 1 else torch.contiguous_format
