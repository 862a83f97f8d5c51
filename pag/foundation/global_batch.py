"""Layers that do not treat the images of a batch one by one, where several processes have parts of it.

BatchNorm takes the statistics of the whole batch, and dropout draws one mask for it: what a network computes of an
image, and its gradients, are those of one process.

torch.nn.SyncBatchNorm has no second derivative (pytorch #61222), which the alignment objective needs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pag.foundation.config.section import ConfigError
from pag.foundation.processes import Part, count, gathered

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
RANDOM = "DropPath", "StochasticDepth"  # of timm and torchvision: they draw for the images that they see


def see_whole_batch(model: nn.Module, part: Part | None) -> None:
    """Have `model` compute of this `part` of a batch what it would compute in the whole; its weights stay the same.

    Raises ConfigError in one line for a layer that has no counterpart here.
    """
    if part is None:
        return
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) in BATCH_NORMS:
                setattr(module, name, _BatchNorm(layer, part))
            elif type(layer) is nn.Dropout:
                setattr(module, name, _Dropout(layer, part))
            elif isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)) or (
                type(layer).__name__ in RANDOM
            ):
                # more than its base class: timm's BatchNormAct2d has an activation in it
                raise ConfigError(
                    f"the network has a {type(layer).__name__}, which several processes would compute otherwise than "
                    "one: train it in one process"
                )


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
        own = self.part.end - self.part.begin
        n = self.part.total * x.numel() // (x.shape[1] * own)  # values of a channel, in all processes
        ones = x.new_ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        weight, bias = (self.weight, self.bias) if self.affine else (ones, 0 * ones)
        y, mean, variance = _Normalization.apply(x, weight, bias, n, self.eps)  # type: ignore[no-untyped-call]
        self._follow(mean, variance * n / (n - 1))
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Normalization(torch.autograd.Function):
    """y = γ·x̂ + β with x̂ = (x − μ)/σ, and μ, σ² of all processes' values per channel, which are returned too.

    As in pag.classifiers.double_backward, where the derivatives stand, but the sums in them are over all processes.
    With a loss that is such a sum, each has the gradients of its own rows, and its own part of those of γ and β.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, n: int, eps: float) -> tuple[Tensor, ...]:
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x  # the statistics have their precision
        of_channel, own_n = [0, *range(2, x.ndim)], x.numel() // x.shape[1]
        own_mean = values.sum(of_channel) / own_n
        centred = values - _per_channel(own_mean, x)
        rest = centred.sum(of_channel)  # what rounding of the mean has left: it counts where the mean is large
        own = [torch.full_like(rest, own_n), own_mean, rest, centred.square_().sum(of_channel)]
        n_i, mean_i, rest_i, squares_i = _of_all(torch.stack(own)).unbind(1)
        shift_i = mean_i - mean_i[0] + rest_i / n_i  # of each process's mean, from the first one's
        shift = (n_i * shift_i).sum(0) / n
        mean = mean_i[0] + shift
        variance = (squares_i - rest_i.square() / n_i + n_i * (shift_i - shift).square()).sum(0) / n
        y = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.n = n
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std = ctx.saved_tensors
        if torch.is_grad_enabled():  # the input gradient, to be differentiated again
            gx = _NormalizationInputGradient.apply(gy, x, weight, mean, inv_std, ctx.n)  # type: ignore[no-untyped-call]
            return gx, None, None, None, None
        gy_x, gy_1 = _sums(gy, x, mean, inv_std)
        of_all = _sum(torch.stack([gy_x, gy_1])) / ctx.n
        return _projected(gy, x, weight, mean, inv_std, *of_all), gy_x.to(weight), gy_1.to(weight), None, None


class _NormalizationInputGradient(torch.autograd.Function):
    """gx = (γ/σ)·P gy, where P g = g − mean(g) − x̂·mean(g·x̂)."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, n: int) -> Tensor:
        b, gy_mean = _sum(torch.stack(_sums(gy, x, mean, inv_std))) / n
        ctx.save_for_backward(gy, x, weight, mean, inv_std, b, gy_mean)
        ctx.n = n
        return _projected(gy, x, weight, mean, inv_std, b, gy_mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gy, x, weight, mean, inv_std, b, gy_mean = ctx.saved_tensors
        v_x, v_1 = _sums(v, x, mean, inv_std)
        v_gy, _ = _sums(v, gy, gy_mean, torch.ones_like(mean))
        own_S = v_gy - b * v_x
        a, v_mean, S_mean = _sum(torch.stack([v_x, v_1, own_S])) / ctx.n
        d_x = projections_by_x(v, gy, x, weight, mean, inv_std, (a, v_mean), (b, gy_mean), S_mean)
        d_gy = _projected(v, x, weight, mean, inv_std, a, v_mean)
        return d_gy, d_x, (own_S * inv_std).to(weight), None, None, None


def projections_by_x(
    v: Tensor, gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, of_v: tuple[Tensor, Tensor],
    of_gy: tuple[Tensor, Tensor], S_mean: Tensor,
) -> Tensor:  # fmt: skip
    """∂/∂x of ⟨v, gx⟩ = (γ/σ)·S with S = ⟨v, P gy⟩: −(γ/σ²)·(mean(gy·x̂)·P v + mean(v·x̂)·P gy + x̂·mean S).

    v, gy, x: (N, C, ...), the result too; γ (weight), mean, inv_std (1/σ) and all means: (C,), over the whole batch.
    of_v: the means of v·x̂ and v. of_gy: of gy·x̂ and gy. S_mean: of S. Linear in v, gy and x channel by channel.
    """
    (a, v_mean), (b, gy_mean) = of_v, of_gy
    scale = -weight * inv_std.square()
    of_x = scale * inv_std * (S_mean - 2 * a * b)
    constant = -scale * (b * v_mean + a * gy_mean) - of_x * mean
    d_x = torch.addcmul(_per_channel(constant, x), v, _per_channel(scale * b, x))
    return d_x.addcmul_(gy, _per_channel(scale * a, x)).addcmul_(x, _per_channel(of_x, x)).to(x.dtype)


@torch.library.custom_op("pag::of_all_processes", mutates_args=())
def _of_all(x: Tensor) -> Tensor:
    """The x of every process, (processes, *x.shape). An operator of its own, which compiled code leaves as it is."""
    return gathered(x)


@_of_all.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(count(), *x.shape)


def _sum(x: Tensor) -> Tensor:
    """Σ over the processes of their x. For so few values all_gather, and a sum in each, waits less than all_reduce."""
    return _of_all(x).sum(0)


def _sums(g: Tensor, x: Tensor, mean: Tensor, inv_std: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g·x̂ and Σ g of each channel, over this process's values: read once, nothing as large is written."""
    _, g_x, g_1 = torch.ops.aten.native_batch_norm_backward(
        g, x, torch.ones_like(mean), None, None, mean, inv_std, True, 0.0, [False, True, True]
    )
    return g_x, g_1


def _projected(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, g_x_mean: Tensor, g_mean: Tensor
) -> Tensor:
    """(γ/σ)·(g − mean(g) − x̂·mean(g·x̂))"""
    scale = weight * inv_std
    of_x = -scale * inv_std * g_x_mean
    constant = -scale * g_mean - of_x * mean
    return (
        torch.addcmul(_per_channel(constant, x), g, _per_channel(scale, x))
        .addcmul_(x, _per_channel(of_x, x))
        .to(x.dtype)
    )


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) → (1, C, 1, …), to broadcast against `like` (B, C, …)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


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
