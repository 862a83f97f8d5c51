"""Layers that do not treat the images of a batch one by one, where several processes have parts of it.

BatchNorm takes the statistics of the whole batch, and dropout draws one mask for it: what a network computes of an
image, and its gradients, are those of one process.

torch.nn.SyncBatchNorm has no second derivative (pytorch #61222), which the alignment objective needs. Here the
statistics are sums over the processes whose derivative is such a sum again, any number of times.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.foundation.processes import Part


def see_whole_batch(model: nn.Module, part: Part | None) -> None:
    """Have `model` compute of this `part` of a batch what it would compute in the whole; its weights stay the same."""
    if part is None:
        return
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _BatchNorm(layer, part))
            elif isinstance(layer, nn.Dropout):
                setattr(module, name, _Dropout(layer, part))


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """In eval mode the layer that it is made from, whose parameters and buffers it takes over."""

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm, part: Part) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.part = part

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        shape = 1, -1, *[1] * (x.ndim - 2)
        dims = [0, *range(2, x.ndim)]
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        n = self.part.total * (x[0].numel() // x.shape[1])  # values of a channel, in all processes
        mean = _Sum.apply(values.sum(dims)) / n  # type: ignore[no-untyped-call]
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / n  # type: ignore[no-untyped-call]
        self._follow(mean.detach(), variance.detach() * n / (n - 1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """Σ over the processes of their x. With a loss that is a sum over them too, its derivative is the same sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # the functional form, which torch.compile can trace
        from torch.distributed._functional_collectives import all_reduce

        return all_reduce(x, "sum", torch.distributed.group.WORLD)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)  # type: ignore[no-untyped-call]


class _Dropout(nn.Module):
    """These rows of the mask of the whole batch: drawn as one process draws it, from the same generator."""

    def __init__(self, layer: nn.Dropout, part: Part) -> None:
        super().__init__()
        self.p, self.part = layer.p, part

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        layout = torch.channels_last if x.ndim == 4 and not x.is_contiguous() else torch.contiguous_format
        ones = torch.ones(self.part.total, *x.shape[1:], dtype=x.dtype, device=x.device)
        return x * F.dropout(ones.contiguous(memory_format=layout), self.p)[self.part.rows]
