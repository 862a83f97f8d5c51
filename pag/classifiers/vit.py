"""Vision transformers for small images (Dosovitskiy et al., 2021, arXiv 2010.11929), timm's implementation."""

from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pag.classifiers.image_shape import patch_size, require_image


def vit(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """8×8 patches, width 384, MLP width 384, 7 layers, 12 heads, class token: 6.3 M parameters on CIFAR-10."""
    return _transformer("vit", num_classes, image_shape, grid=8, width=384, depth=7, heads=12, mlp_ratio=1.0)


def vit_mini(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """4×4 patches, width 64, MLP width 128, 3 layers, 2 heads: 0.1 M parameters, a transformer for digits and CPUs."""
    return _transformer("vit-mini", num_classes, image_shape, grid=4, width=64, depth=3, heads=2, mlp_ratio=2.0)


def _transformer(
    arch: str, num_classes: int, image_shape: tuple[int, ...], grid: int, width: int, depth: int, heads: int,
    mlp_ratio: float,
) -> nn.Module:  # fmt: skip
    channels, side, _ = require_image(arch, image_shape, smallest=grid)
    network = VisionTransformer(
        img_size=side,
        patch_size=patch_size(arch, image_shape, most=grid),
        in_chans=channels,
        num_classes=num_classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
    )
    for module in network.modules():
        if isinstance(module, Attention):
            # the fused kernels have no second derivative, which the alignment objective needs
            module.fused_attn = False  # type: ignore[misc]
    return network
