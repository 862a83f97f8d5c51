"""Pre-activation residual networks (He et al., 2016, arXiv 1603.05027): wide ones, and small ones for a CPU.

A 3×3 stem and three groups of blocks, the second and third at half and a quarter of the resolution; no dropout.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pag.classifiers.image_shape import require_image

SMALL_WIDTHS = (32, 64, 128)


class PreActivationBlock(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))).

    Where the shape changes, a 1×1 convolution of act(bn(x)) takes the place of the first x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if in_channels != out_channels else None
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(self.bn1(x))
        residual = self.conv2(self.activation(self.bn2(self.conv1(activated))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


class PreActivationResNet(nn.Module):
    """(B, C, H, W) → logits (B, num_classes).

    stem_width: channels of the stem. widths: channels of the three groups, of blocks_per_group blocks each.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        stem_width: int,
        widths: Sequence[int],
        blocks_per_group: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        width = stem_width
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks = []
        for group_width, group_stride in zip(widths, (1, 2, 2), strict=True):
            for index in range(blocks_per_group):
                blocks.append(PreActivationBlock(width, group_width, group_stride if index == 0 else 1, activation))
                width = group_width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(width)
        self.activation = activation()
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.activation(self.bn(self.blocks(self.stem(x))))
        return self.fc(features.mean(dim=(2, 3)))


def wrn_34_10(num_classes: int, image_shape: tuple[int, ...], activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """The network of TRADES (arXiv 1901.08573): a Wide ResNet (Zagoruyko and Komodakis, 2016, arXiv 1605.07146).

    46,160,474 parameters with 3 channels and 10 classes.
    """
    channels, _, _ = require_image("wrn-34-10", image_shape, smallest=8)
    return PreActivationResNet(channels, num_classes, 16, (160, 320, 640), 5, activation)


def rn8(num_classes: int, image_shape: tuple[int, ...], activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """One block per group: 8 layers on the longest path and 308,266 parameters with 3 channels and 10 classes."""
    channels, _, _ = require_image("rn8", image_shape, smallest=8)
    return PreActivationResNet(channels, num_classes, SMALL_WIDTHS[0], SMALL_WIDTHS, 1, activation)


def rn14(num_classes: int, image_shape: tuple[int, ...], activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Two blocks per group: 14 layers on the longest path and 696,234 parameters with 3 channels and 10 classes."""
    channels, _, _ = require_image("rn14", image_shape, smallest=8)
    return PreActivationResNet(channels, num_classes, SMALL_WIDTHS[0], SMALL_WIDTHS, 2, activation)
