"""ResNet-18 for small images (He et al., 2016, arXiv 1512.03385), built from torchvision's blocks."""

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from pag.classifiers.image_shape import require_image


def resnet18(num_classes: int, image_shape: tuple[int, ...], activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """The CIFAR form: a 3×3 stem with stride 1 and no max-pool keep the full resolution up to the second stage.

    11,173,962 parameters with 3 channels and 10 classes. Global average pooling takes any image from 8×8 on.
    """
    channels, _, _ = require_image("rn18", image_shape, smallest=8)
    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as ResNet does its own
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    if activation is not nn.ReLU:  # torchvision's is in place
        for module in network.modules():
            if isinstance(module, ResNet | BasicBlock):
                module.relu = activation()  # type: ignore[assignment]
    return network
