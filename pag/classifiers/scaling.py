"""The boundary between [0,1] images and networks that see pixels centred on zero."""

from torch import Tensor, nn


class ScaledInput(nn.Module):
    """``network(2·images − 1)``: images in [0,1], so that attacks and gradients are in pixel units, logits out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(2 * images - 1)
