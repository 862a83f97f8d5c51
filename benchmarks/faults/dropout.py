"""A classifier of one's own that draws random numbers while it is trained."""

from torch import nn

from pag.classifiers.cnn import SmallCNN


def dropout_cnn(num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.3), SmallCNN(num_classes, image_shape))
