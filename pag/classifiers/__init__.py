"""The architectures: every one maps [0,1] images (B, C, H, W), or points (B, D), to logits (B, num_classes).

A new architecture is one small file with ``(num_classes, image_shape) -> nn.Module`` and one line in ARCHITECTURES. Its
network sees pixels in [-1,1]; the scaling is added here, so that everything outside speaks [0,1].
"""

from pkgutil import resolve_name

import torch
from torch import nn

from pag.classifiers.scaling import ScaledInput
from pag.foundation.config.section import ConfigError, nearest
from pag.foundation.seeding import derive_seed

# name → "module:constructor"; a module is imported when its architecture is built
ARCHITECTURES: dict[str, str] = {
    "cnn": "pag.classifiers.cnn:SmallCNN",
    "mlp": "pag.classifiers.mlp:mlp",
    "rn18": "pag.classifiers.resnet:resnet18",
    "wrn-34-10": "pag.classifiers.wide_resnet:wrn_34_10",
    "vgg11": "pag.classifiers.vgg:vgg11",
    "vgg13": "pag.classifiers.vgg:vgg13",
    "vgg16": "pag.classifiers.vgg:vgg16",
    "vit": "pag.classifiers.vit:vit",
    "vit-mini": "pag.classifiers.vit:vit_mini",
    "mixer": "pag.classifiers.mixer:mixer",
}


def build(arch: str, num_classes: int, image_shape: tuple[int, ...], seed: int, **options: int) -> nn.Module:
    """A freshly initialised classifier on the CPU; its weights depend on `seed` and `arch` alone.

    image_shape: (C, H, W), or (D,) for points, which are not scaled. options go to the constructor (``hidden`` of mlp).
    Raises ConfigError if the architecture is unknown or cannot take such images.
    """
    if arch not in ARCHITECTURES:
        raise ConfigError(f"unknown architecture '{arch}'{nearest(arch, list(ARCHITECTURES))}")
    constructor = resolve_name(ARCHITECTURES[arch])
    # torch's and timm's initialisers draw from the global generator: lend it to them, and put it back. Only the CPU's
    # is seeded (torch.manual_seed would also reseed every GPU), because weights are drawn there on every machine.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "initial weights", arch))
        network = constructor(num_classes, image_shape, **options)
    return ScaledInput(network) if len(image_shape) == 3 else network
