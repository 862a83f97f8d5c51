"""A small convolutional network for small grey images (8×8 digits, 28×28 MNIST): cheap enough to attack on a CPU."""

from torch import Tensor, nn

from pag.classifiers.image_shape import require_image

WIDTHS_AND_STRIDES = ((32, 1), (32, 2), (64, 1), (64, 2))


class SmallCNN(nn.Module):
    """Four 3×3 convolutions, the second and fourth with stride 2, and a linear layer on the flattened features.

    0.6 million multiply-adds and 67,562 parameters for 1×8×8 and 10 classes. No BatchNorm: an example's gradient
    depends on that example alone. SiLU, because the alignment objective fits the input gradient: with ReLU a logit's
    gradient is piecewise constant in the image, and its fit sees nothing of where the pieces meet.
    """

    def __init__(self, num_classes: int, image_shape: tuple[int, ...], activation: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        width, image_height, image_width = require_image("cnn", image_shape, smallest=4)
        layers: list[nn.Module] = []
        for out_width, stride in WIDTHS_AND_STRIDES:
            layers += [nn.Conv2d(width, out_width, 3, stride, padding=1), activation()]
            image_height, image_width = -(-image_height // stride), -(-image_width // stride)  # rounded up
            width = out_width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width * image_height * image_width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(start_dim=1))
