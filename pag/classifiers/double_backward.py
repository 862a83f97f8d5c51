"""Convolution, BatchNorm and ReLU with a second derivative that costs what its arithmetic costs; attention with one.

PyTorch's own double backward is right but slow where a classifier spends its time. It computes a convolution's weight
gradient as a forward convolution whose kernel is as large as the feature map, a BatchNorm's from some twenty
elementwise operations that read the whole tensor, and ReLU's as zeros that are then added. Under
`fast_double_backward` they use the kernels of an ordinary backward pass. The functions are exact, work under autocast,
and AOTAutograd can trace them.
The fused kernels of attention have no second derivative at all, so it is computed from its definition.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pag.foundation.global_batch import projections_by_x

aten = torch.ops.aten


class fast_double_backward(TorchFunctionMode):  # noqa: N801 (a context manager, spelt like torch.no_grad)
    """In this context conv2d, train-mode batch_norm and relu are those of this module, and no attention is fused.

    An input gradient taken with create_graph=True treats their parameters as constants and leaves them out (an
    autograd.Function cannot know which gradients were asked for); the backward pass through it fills them in.
    A weight or bias that was computed may itself depend on the input (dynamic convolutions, as CondConv), a path that
    would be lost: such a layer stays PyTorch's own, which is slower.
    """

    def __enter__(self) -> "fast_double_backward":
        self._attention = sdpa_kernel(SDPBackend.MATH)
        self._attention.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            return _conv2d(*args, **kwargs)
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is F.relu:
            return _relu(*args, **kwargs)
        return func(*args, **kwargs)


def _computed(*parameters: Tensor | None) -> bool:
    """Whether one has a graph behind it. AOTAutograd's stand-in for a leaf has a grad_fn too, but nothing behind it."""
    return any(p is not None and p.grad_fn is not None and p.grad_fn.next_functions for p in parameters)


def _conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    # computed weights are looked at before autocast's casts, which are computed too
    if isinstance(padding, str) or input.ndim != 4 or _computed(weight, bias):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled(input.device.type):  # as autocast does for F.conv2d
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    geometry = (_pair(stride), _pair(padding), _pair(dilation), False, [0, 0], groups)  # not transposed
    return _Convolution.apply(input, weight, bias, geometry)  # type: ignore[no-untyped-call]


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class _Convolution(torch.autograd.Function):
    """y = w ∗ x + b"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.bias_sizes = geometry, None if bias is None else bias.shape
        return aten.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # the input gradient, to be differentiated again
            return _ConvolutionInputGradient.apply(gy, x, weight, ctx.geometry), None, None, None  # type: ignore[no-untyped-call]
        wanted = list(ctx.needs_input_grad[:3])
        return *aten.convolution_backward(gy, x, weight, ctx.bias_sizes, *ctx.geometry, wanted), None


class _ConvolutionInputGradient(torch.autograd.Function):
    """gx = wᵀ ∗ gy, linear in gy and in w; x lends only its shape."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, geometry: tuple) -> Tensor:
        ctx.save_for_backward(gy, weight)
        ctx.geometry = geometry
        return aten.convolution_backward(gy, x, weight, None, *geometry, [True, False, False])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gy, weight = ctx.saved_tensors
        d_gy = aten.convolution(v, weight, None, *ctx.geometry)
        _, d_weight, _ = aten.convolution_backward(gy, v, weight, None, *ctx.geometry, [False, True, False])
        return d_gy, None, d_weight, None


def _batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    one_value = input.numel() == input.shape[1]  # a channel, which has no variance: PyTorch refuses it
    if not training or weight is None or one_value or _computed(weight, bias):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)  # type: ignore[no-untyped-call]


class _BatchNorm(torch.autograd.Function):
    """y = γ·x̂ + β with x̂ = (x − μ)/σ, and μ, σ of the batch per channel. Updates the running statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
        momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        y, mean, inv_std = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, inv_std)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std = ctx.saved_tensors
        if torch.is_grad_enabled():
            gx = _BatchNormInputGradient.apply(gy, x, weight, mean, inv_std, ctx.eps)  # type: ignore[no-untyped-call]
            return gx, None, None, None, None, None, None
        wanted = list(ctx.needs_input_grad[:3])
        gradients = aten.native_batch_norm_backward(gy, x, weight, None, None, mean, inv_std, True, ctx.eps, wanted)
        return *gradients, None, None, None, None


class _BatchNormInputGradient(torch.autograd.Function):
    """gx = (γ/σ)·P gy, where P g = g − mean(g) − x̂·mean(g·x̂) is symmetric; per channel, over its n values."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, eps: float) -> Tensor:
        gx, gy_x, gy_1 = aten.native_batch_norm_backward(
            gy, x, weight, None, None, mean, inv_std, True, eps, [True, True, True]
        )  # and Σ gy·x̂, Σ gy
        ctx.save_for_backward(gy, x, weight, mean, inv_std, gy_x, gy_1)
        ctx.eps = eps
        return gx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        """The derivatives of h = ⟨v, gx⟩ = (γ/σ)·S, with S = ⟨v, P gy⟩ and ∂x̂/∂x = P/σ, ∂σ/∂x = x̂/n.

        ∂h/∂gy = (γ/σ)·P v,  ∂h/∂γ = S/σ,
        ∂h/∂x as in `projections_by_x`.
        """
        gy, x, weight, mean, inv_std, gy_x, gy_1 = ctx.saved_tensors
        d_gy, v_x, v_1 = aten.native_batch_norm_backward(
            v, x, weight, None, None, mean, inv_std, True, ctx.eps, [True, True, True]
        )
        n = x.numel() / x.shape[1]
        b, a, gy_mean, v_mean = gy_x / n, v_x / n, gy_1 / n, v_1 / n
        _, v_gy, _ = aten.native_batch_norm_backward(
            v, gy, weight, None, None, gy_mean, torch.ones_like(mean), True, ctx.eps, [False, True, False]
        )  # Σ v·(gy − mean(gy)): the kernel reads both tensors once and writes none
        S = v_gy - n * a * b
        d_x = projections_by_x(v, gy, x, weight, mean, inv_std, (a, v_mean), (b, gy_mean), S / n)
        return d_gy, d_x, S * inv_std, None, None, None


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    return _ReLU.apply(input, inplace)  # type: ignore[no-untyped-call]


class _ReLU(torch.autograd.Function):
    """y = max(x, 0)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = x.relu_() if inplace else x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _ReLUInputGradient.apply(gy, y), None  # type: ignore[no-untyped-call]


class _ReLUInputGradient(torch.autograd.Function):
    """gx = gy where y > 0; constant in y almost everywhere."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return aten.threshold_backward(gy, y, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return aten.threshold_backward(v, y, 0), None
