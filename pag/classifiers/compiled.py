"""Functions of a classifier's input gradient, whether or not the classifier went through torch.compile."""

import functools
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

Differentiable = Callable[..., tuple[Tensor, ...]]  # (network, *tensors, **options); differentiates network(images)


def in_one_graph(
    function: Differentiable, model: nn.Module | Callable[[Tensor], Tensor], *inputs: Tensor, **options: Hashable
) -> tuple[Tensor, ...]:
    """``function(model, *inputs, **options)``; one compiled graph where `model` went through torch.compile.

    function: of a module; it may call autograd.grad(create_graph=True) on what it computes.
    """
    if isinstance(model, OptimizedModule):
        parts = tuple((type(part), part.training) for part in model._orig_mod.modules())
        return _compiled(function, model._orig_mod, parts, **options)(*inputs)
    return function(model, *inputs, **options)


def partly_compiled(model: nn.Module) -> bool:
    """Whether compiled code is inside, which has no second derivative there and which `in_one_graph` does not see."""
    whole = model._orig_mod if isinstance(model, OptimizedModule) else model
    return any(isinstance(part, OptimizedModule) or part._compiled_call_impl is not None for part in whole.modules())


@functools.lru_cache(maxsize=8)  # a few models, each in training and in evaluation
def _compiled(
    function: Differentiable, model: nn.Module, parts: tuple[tuple[type, bool], ...], **options: Any
) -> Callable[..., tuple[Tensor, ...]]:
    """The same function as one compiled graph, for this model with these parts, each in this mode.

    Dynamo cannot follow autograd.grad(create_graph=True), and a compiled forward pass has no second derivative. So
    Dynamo is told not to look inside; AOTAutograd then traces the operators with both derivatives. For that every
    tensor has to be an argument: those of the model too, whose buffers are updated in place.
    """
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]

    @torch.compiler.allow_in_graph
    def untraced(inputs: tuple[Tensor, ...], tensors: list[Tensor]) -> tuple[Tensor, ...]:
        state = dict(zip(names, tensors, strict=True))
        with torch.autograd.set_multithreading_enabled(False):  # a tracer knows the thread it was started in
            return function(lambda images: torch.func.functional_call(model, state, (images,)), *inputs, **options)

    def graph(inputs: tuple[Tensor, ...], tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return untraced(inputs, tensors)

    # Dynamo finds its graphs by the code object and does not see what `untraced` closes over: with the same one
    # another model of equal shapes, or the other mode, would be given this model's graph.
    own = FunctionType(graph.__code__.replace(), graph.__globals__, closure=graph.__closure__)
    compiled = torch.compile(own, fullgraph=True)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        return compiled(inputs, [*model.parameters(), *model.buffers()])

    return call
