"""The two-layer perceptron of the two-dimensional toy experiment (paper, appendix G.1)."""

from torch import nn

from pag.foundation.config.section import ConfigError


def mlp(num_classes: int, image_shape: tuple[int, ...], hidden: int = 32) -> nn.Module:
    """D - hidden - num_classes with ReLU. Points (B, D) are unbounded and enter as they are."""
    if len(image_shape) != 1:
        raise ConfigError(f"mlp takes points (D,), got shape {image_shape}: for images use cnn or rn18")
    return nn.Sequential(nn.Linear(image_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
