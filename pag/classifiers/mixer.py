"""MLP-Mixer for small images (Tolstikhin et al., 2021, arXiv 2105.01601), timm's implementation."""

from timm.models.mlp_mixer import MlpMixer
from torch import nn

from pag.classifiers.image_shape import patch_size, require_image

WIDTH = 128
TOKEN_WIDTH = 64  # hidden width of the MLPs across patches
CHANNEL_WIDTH = 512  # hidden width of the MLPs across channels


def mixer(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """8 blocks of width 128 on 8×8 patches, MLP widths 64 (tokens) and 512 (channels): 1.13 M parameters on CIFAR-10.

    These are the defaults of the CIFAR implementation that the paper names (github.com/omihub777/MLP-Mixer-CIFAR).
    """
    patch = patch_size("mixer", image_shape)
    channels, side, _ = require_image("mixer", image_shape, smallest=patch)
    network = MlpMixer(
        num_classes=num_classes,
        img_size=side,
        in_chans=channels,
        patch_size=patch,
        num_blocks=8,
        embed_dim=WIDTH,
        mlp_ratio=(TOKEN_WIDTH / WIDTH, CHANNEL_WIDTH / WIDTH),
    )
    # timm starts the head at zero, where every input gradient is zero and has no direction to align
    assert isinstance(network.head, nn.Linear)
    network.head.reset_parameters()
    return network
