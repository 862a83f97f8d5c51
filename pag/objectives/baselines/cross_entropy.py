"""Plain training."""

from torch import Tensor, nn
from torch.nn import functional as F

from pag.training.batch import Batch


def cross_entropy(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """CE(f(x), y)"""
    return {"cross_entropy": F.cross_entropy(model(batch.images), batch.labels)}
