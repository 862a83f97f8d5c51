"""What a caller hands over: tensors, finite, of classes that can be. Every refusal is a ValueError of one line."""

from typing import Any

import torch
from torch import Tensor

SUM_TO_ONE = 0.01  # probabilities, as far as bfloat16 rounds them; on every image, as logits would not be


def require_tensors(**given: Any) -> None:
    """Raises ValueError for the first that is none; NumPy arrays and gradient stores are the usual ones."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            how = "use torch.as_tensor"
            if hasattr(value, "read"):
                how = "read the rows of this batch"
            elif hasattr(value, "dataset"):
                how = "concatenate the batches of the loader"
            raise ValueError(f"{name} are a {type(value).__name__}: expected a tensor, {how}")


def require_model(model: Any) -> None:
    """Raises ValueError for what is no function of images: a name, a path, the class instead of a network of it."""
    if not callable(model) or isinstance(model, type):
        kind, how = f"a {type(model).__name__}", "pag.load_classifier(folder) and timm.create_model(name) give modules"
        if isinstance(model, type):
            kind, how = f"the class {model.__name__}", f"call it: {model.__name__}(…)"
        raise ValueError(f"the model is {kind}: expected a module or a function of images; {how}")


def require_logits(logits: Tensor) -> None:
    """Raises ValueError for probabilities. logits: (B, K)."""
    if (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < SUM_TO_ONE:
        raise ValueError(
            "the model returns probabilities, whose gradient vanishes where it is sure: return what goes into the "
            "softmax, or probabilities.clamp_min(1e-12).log()"
        )


def require_finite(expected: str, **given: Tensor) -> None:
    """Raises ValueError for the first that holds NaN or infinity. expected: what to hand over instead."""
    for name, tensor in given.items():
        finite = tensor.isfinite()
        if not finite.all():
            rows = int((~finite).flatten(1).any(1).sum())
            raise ValueError(f"{rows} of {len(tensor)} {name} hold NaN or infinity: expected {expected}")


def as_classes(name: str, given: Tensor, *shape: int | str) -> Tensor:
    """`given` as int64. shape: its sizes, where a letter stands for any size.

    Raises ValueError for another shape, what is no integer, or is below 0. The upper end is the model's to check.
    """
    integers = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    fits = given.ndim == len(shape) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(given.shape, shape, strict=True)
    )
    if not integers or not fits:
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} are {given.dtype} of shape {tuple(given.shape)}: expected integers ({expected})")
    classes = given.long()  # before they are compared: PyTorch has no minimum of unsigned integers
    if classes.numel() and classes.min() < 0:
        raise ValueError(f"{name} reach down to {classes.min()}: expected classes from 0 on")
    return classes


def require_differentiable(*tensors: Tensor) -> None:
    """Raises ValueError where PyTorch computes no gradient, whoever asks for it."""
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors):
        raise ValueError(
            "torch.inference_mode() computes no gradients, nor do tensors that were made in it: use torch.no_grad()"
        )
