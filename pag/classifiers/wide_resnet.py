"""Wide ResNet (Zagoruyko and Komodakis, 2016, arXiv 1605.07146): WRN-34-10, the network of TRADES (arXiv 1901.08573).

Pre-activation residual blocks; three groups of (depth − 4) / 6 blocks with 16·widen, 32·widen and 64·widen channels,
the second and third at half and a quarter of the resolution; no dropout.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pag.classifiers.image_shape import require_image


class PreActivationBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))).

    Where the shape changes, a 1×1 convolution of relu(bn(x)) takes the place of the first x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        residual = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """(B, C, H, W) → logits (B, num_classes); `depth` counts the convolutions as the paper does, depth = 6n + 4."""

    def __init__(self, channels: int, num_classes: int, depth: int, widen: int) -> None:
        super().__init__()
        assert (depth - 4) % 6 == 0, depth
        blocks_per_group = (depth - 4) // 6
        width = 16
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks = []
        for group_width, group_stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            for index in range(blocks_per_group):
                blocks.append(PreActivationBlock(width, group_width, group_stride if index == 0 else 1))
                width = group_width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.bn(self.blocks(self.stem(x))))
        return self.fc(features.mean(dim=(2, 3)))


def wrn_34_10(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """46,160,474 parameters with 3 channels and 10 classes."""
    channels, _, _ = require_image("wrn-34-10", image_shape, smallest=8)
    return WideResNet(channels, num_classes, depth=34, widen=10)
