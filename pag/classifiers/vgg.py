"""VGG-11/13/16 with BatchNorm for small images (Simonyan and Zisserman, 2014, arXiv 1409.1556).

The usual CIFAR form: five stages of 3×3 convolutions, each ended by a max-pool, and one linear layer in place of the
three wide ones of ImageNet. The repository that the paper names (chengyangfu/pytorch-vgg-cifar10) has three linear
layers of 512 with dropout instead, and models with and without BatchNorm; the paper does not say which it used.
9,231,114 / 9,416,010 / 14,728,266 parameters with 3 channels and 10 classes.
"""

from torch import nn

from pag.classifiers.image_shape import require_image

STAGE_WIDTHS = (64, 128, 256, 512, 512)
STAGE_CONVOLUTIONS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}


def _vgg(arch: str, num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    width, _, _ = require_image(arch, image_shape, smallest=2 ** len(STAGE_WIDTHS))  # each stage halves the image
    layers: list[nn.Module] = []
    for stage_width, convolutions in zip(STAGE_WIDTHS, STAGE_CONVOLUTIONS[arch], strict=True):
        for _ in range(convolutions):
            convolution = nn.Conv2d(width, stage_width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(stage_width), nn.ReLU()]
            width = stage_width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def vgg11(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return _vgg("vgg11", num_classes, image_shape)


def vgg13(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return _vgg("vgg13", num_classes, image_shape)


def vgg16(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return _vgg("vgg16", num_classes, image_shape)
