"""Vision transformer for small images (Dosovitskiy et al., 2021, arXiv 2010.11929), timm's implementation."""

from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pag.classifiers.image_shape import patch_size, require_image


def vit(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """8×8 patches, width 384, MLP width 384, 7 layers, 12 heads, class token: 6.3 M parameters on CIFAR-10."""
    patch = patch_size("vit", image_shape)
    channels, side, _ = require_image("vit", image_shape, smallest=patch)
    network = VisionTransformer(
        img_size=side,
        patch_size=patch,
        in_chans=channels,
        num_classes=num_classes,
        embed_dim=384,
        depth=7,
        num_heads=12,
        mlp_ratio=1.0,
    )
    for module in network.modules():
        if isinstance(module, Attention):
            # the fused kernels have no second derivative, which the alignment objective needs
            module.fused_attn = False  # type: ignore[misc]
    return network
