"""The paper's objective (Eq. 4): L = CE(f(x), y) + λ · Σ_{y'} (1 − cos(∇_x log p(y'|x), g(x, y')))."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pag.classifiers.compiled import in_one_graph, partly_compiled
from pag.classifiers.double_backward import fast_double_backward
from pag.classifiers.given import (
    as_classes,
    require_differentiable,
    require_finite,
    require_logits,
    require_model,
    require_tensors,
)
from pag.classifiers.input_gradients import cosine, input_gradients
from pag.foundation.config.section import GradientOf, is_number
from pag.training.batch import Batch

LOOKED_AT = 8  # images: fewer may have logits that sum to 1 by chance, once in a long training


@dataclass(frozen=True)
class Alignment:
    """Cross-entropy plus gradient alignment, both from one forward pass.

    weight: λ, in the convention of the full sum over all C classes. With k target classes per image the sum over them
        carries the factor C/k, which makes it an unbiased estimate of that.
    gradient_of: the score whose gradient is aligned, log-softmax or logit.

    Counted in convolution passes F, where a plain training step takes 3: one forward, and for each of the k classes an
    input gradient (1) and its double backward (2), and one ordinary backward (2): 3 + 3k. A model that went through
    torch.compile gets all of this in one graph.
    """

    weight: float
    gradient_of: GradientOf = "log_softmax"

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert batch.target_classes is not None and batch.class_gradients is not None
        inputs = (batch.images, batch.labels, batch.target_classes, batch.class_gradients)
        cross_entropy, misaligned, logits = in_one_graph(_terms, model, *inputs, gradient_of=self.gradient_of)
        return {"cross_entropy": cross_entropy, "alignment": self.weight * logits.shape[1] * misaligned}

    def term(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The alignment term alone, at the clean images: what is added to a robust objective."""
        return {"alignment": self(model, batch)["alignment"]}


def alignment_loss(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    target_classes: Tensor,
    class_gradients: Tensor,
    *,
    weight: float,
    gradient_of: GradientOf = "log_softmax",
) -> dict[str, Tensor]:
    """The two terms of the paper's objective (Eq. 4) for a training loop of one's own; their sum is the loss:

        CE(f(x), y) + λ · C/k · Σ_{y' of k classes} (1 − cos(∇_x log p(y'|x), g(x, y')))

    model: from images to logits (B, C), as it is trained: its mode and its weights are the caller's.
    images: (B, …) floats of the model's precision, of any range; labels: (B,) integers.
    target_classes: (B, k) classes, drawn at random: so the sum is an unbiased estimate of that over all C.
    class_gradients: (B, k, …) g of these images towards these classes, of any scale, moved as the images were moved
        (crops, flips); what is zero everywhere counts for nothing.
    weight: λ ≥ 0. gradient_of: the score whose input gradient is aligned, log-softmax or logit. The log-softmax's is
        taken as that of the log-odds, which has the same direction: under BatchNorm in training mode, where an image's
        gradient depends on the others' scores, it is slightly another one than autograd's of the log-softmax.
    Returns the scalars "cross_entropy" and "alignment"; one forward pass, one `backward` of the sum (they share a
    graph). It cannot be differentiated twice: `backward(create_graph=True)` raises RuntimeError. Under torch.no_grad()
    the values alone, to watch the terms on other images.
    Raises ValueError in one line for other shapes, types or ranges; of classes that the model does not have, PyTorch
    speaks.
    """
    if not is_number(weight) or not 0 <= weight < math.inf:
        raise ValueError(f"weight is {weight!r}: expected λ, a finite number from 0 on")
    if gradient_of not in get_args(GradientOf):
        raise ValueError(f"gradient_of is {gradient_of!r}: expected {' or '.join(get_args(GradientOf))}")
    require_tensors(images=images, labels=labels, target_classes=target_classes, class_gradients=class_gradients)
    require_differentiable(images, labels, target_classes, class_gradients)
    _check_model(model, images)
    labels = as_classes("labels", labels, len(images))
    target_classes = as_classes("target_classes", target_classes, len(images), "k")
    expected = (*target_classes.shape, *images.shape[1:])  # another k would broadcast silently
    if tuple(class_gradients.shape) != expected:
        last = images.ndim == 4 and class_gradients.shape[2:] == images.movedim(-1, 1).shape[1:]
        hint = f"; are the channels of the images last? images are {tuple(images.shape)}" if last else ""
        raise ValueError(
            f"class_gradients have shape {tuple(class_gradients.shape)}: expected {expected}, one for each target class"
            + hint
        )
    if target_classes.numel() == 0:
        raise ValueError(f"target_classes have shape {tuple(target_classes.shape)}: expected at least one for an image")
    require_finite("finite numbers", images=images)
    require_finite("finite numbers, or zeros for no direction", class_gradients=class_gradients)
    inputs = (images, labels, target_classes, class_gradients)
    with torch.enable_grad():  # under no_grad too: the term is made of gradients
        cross_entropy, misaligned, logits = in_one_graph(_terms, model, *inputs, gradient_of=gradient_of)
    if len(images) >= LOOKED_AT:
        require_logits(logits.detach())
    terms = {"cross_entropy": cross_entropy, "alignment": weight * logits.shape[1] * misaligned}
    if not torch.is_grad_enabled():
        return {name: term.detach() for name, term in terms.items()}
    return {name: _Once.apply(term) for name, term in terms.items()}  # type: ignore[no-untyped-call]


def _check_model(model: Any, images: Tensor) -> None:
    """Raises ValueError in one line for a model that cannot be trained on `images`."""
    require_model(model)
    if isinstance(model, nn.Module) and partly_compiled(model):
        raise ValueError("a part of the model is compiled, or it itself by .compile(): hand over torch.compile(model)")
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    dtype = parameters[0].dtype if parameters else images.dtype
    if images.dtype not in (torch.float32, torch.float64) or dtype != images.dtype:
        raise ValueError(
            f"images are {images.dtype} and the model's weights {dtype}: expected both float32 or both "
            "float64; divide integers by their largest value, and call this under torch.autocast for half precision"
        )
    if images.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "images require a gradient, and the loss gives them none: make what computes them a part of the model, or "
            "call images.detach()"
        )
    if parameters and torch.is_grad_enabled() and not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            "no weight of the model requires a gradient, so nothing would be trained: call its requires_grad_(), or "
            "this under torch.no_grad() for the values alone"
        )


class _Once(torch.autograd.Function):
    """The term itself. `fast_double_backward` takes a backward pass with a graph for that of an input gradient, which
    leaves the weights out."""

    @staticmethod
    def forward(ctx: Any, term: Tensor) -> Tensor:
        return term.view_as(term)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("alignment_loss cannot be differentiated twice: call backward() without create_graph")
        return gradient


def _terms(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    target_classes: Tensor,
    class_gradients: Tensor,
    gradient_of: GradientOf,
) -> tuple[Tensor, Tensor, Tensor]:
    """CE(f(x), y), the mean of 1 − cos over images and their target classes, and the logits.

    A stored gradient of zeros says nothing (NN of an image with a twin in the class, a score of an untrained class), so
    it adds nothing: without a direction the 1 would be a constant of the loss.
    """
    images = images.detach().requires_grad_()
    with fast_double_backward():
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model returns {found}: expected logits (B, C) of two classes or more, wrap it")
    if not logits.requires_grad:
        raise ValueError("the model gives no gradient: return logits without .detach(), torch.no_grad() or argmax")
    v = input_gradients(logits, images, target_classes, gradient_of)  # (B, k, C, H, W)
    directed = class_gradients.flatten(2).ne(0).any(2)  # (B, k)
    return F.cross_entropy(logits, labels), ((1 - cosine(v, class_gradients)) * directed).mean(), logits
