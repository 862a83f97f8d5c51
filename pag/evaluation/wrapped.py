"""Models as the attacks take them: a function of images as a module, and logits of a scale that hides no gradient."""

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pag.classifiers.given import require_differentiable, require_model


class Rescaled(nn.Module):
    """`model` with its logits divided by a power of two, which is exact."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) / self.by

    def extra_repr(self) -> str:
        return f"by={self.by}"


class Function(nn.Module):
    """A function from images to logits, as the attacks' libraries want it; its mode is the caller's to set.

    Raises ValueError if it is none, or visibly calls a module in training mode, which nobody but the caller can put in
    eval mode.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        require_model(function)
        super().__init__()
        for module in _modules_of(function):
            if module.training:
                raise ValueError(
                    f"the model is a function of a {type(module).__name__} in training mode: call its .eval() first, "
                    "or pass the module itself"
                )
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def parts_of(model: nn.Module) -> list[nn.Module]:
    """The model, and the modules that a function visibly calls, which are no parts of its own."""
    return [model, *(_modules_of(model.function) if isinstance(model, Function) else ())]


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """Those of its parts. Raises ValueError in one line where they were made in inference mode, without a gradient."""
    parameters = [parameter for part in parts_of(model) for parameter in part.parameters()]
    require_differentiable(*parameters)
    return parameters


def _modules_of(value: Any, depth: int = 3) -> Iterator[nn.Module]:
    """The modules that a function, a bound method, a partial or a callable object holds, in containers too."""
    if isinstance(value, nn.Module):
        yield value
        return
    held: list[Any] = [getattr(value, "__self__", None)]
    if inspect.isfunction(value):
        # not getclosurevars' globals, among which is whatever has the name of an attribute
        names = {each.argval for each in dis.get_instructions(value) if each.opname == "LOAD_GLOBAL"}
        held += inspect.getclosurevars(value).nonlocals.values()
        held += [value.__globals__[name] for name in names if name in value.__globals__]
    elif isinstance(value, partial):
        held += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, Mapping):
        held += value.values()
    elif isinstance(value, (list, tuple, set)):
        held += value
    elif not isinstance(value, (type, ModuleType)):
        held += getattr(value, "__dict__", {}).values()
    for each in held if depth else ():
        yield from _modules_of(each, depth - 1)
