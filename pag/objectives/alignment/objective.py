"""The paper's objective (Eq. 4): L = CE(f(x), y) + λ · Σ_{y'} (1 − cos(∇_x log p(y'|x), g(x, y')))."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn import functional as F

from pag.classifiers.double_backward import fast_double_backward
from pag.classifiers.input_gradients import cosine, input_gradients
from pag.foundation.config.section import GradientOf
from pag.training.batch import Batch


@dataclass(frozen=True)
class Alignment:
    """Cross-entropy plus gradient alignment, both from one forward pass.

    weight: λ, in the convention of the full sum over classes.
    num_classes: C. With k target classes per image the sum over them carries the factor C/k, which makes it an
        unbiased estimate of the sum over all C.
    gradient_of: the score whose gradient is aligned, log-softmax or logit.

    Counted in convolution passes F, where a plain training step takes 3: one forward, and for each of the k classes an
    input gradient (1) and its double backward (2), and one ordinary backward (2): 3 + 3k. A model that went through
    torch.compile gets all of this in one graph.
    """

    weight: float
    num_classes: int
    gradient_of: GradientOf = "log_softmax"

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        cross_entropy, misaligned = self._evaluate(model, batch)
        return {"cross_entropy": cross_entropy, "alignment": self.weight * self.num_classes * misaligned}

    def term(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The alignment term alone, at the clean images: what is added to a robust objective."""
        return {"alignment": self(model, batch)["alignment"]}

    def _evaluate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.target_classes is not None and batch.class_gradients is not None
        inputs = (batch.images, batch.labels, batch.target_classes, batch.class_gradients)
        if isinstance(model, OptimizedModule):
            return _compiled(model._orig_mod, model.training, self.gradient_of)(*inputs)
        return _cross_entropy_and_misalignment(model, self.gradient_of, *inputs)


def _cross_entropy_and_misalignment(
    model: Callable[[Tensor], Tensor],
    gradient_of: GradientOf,
    images: Tensor,
    labels: Tensor,
    target_classes: Tensor,
    class_gradients: Tensor,
) -> tuple[Tensor, Tensor]:
    """CE(f(x), y) and the mean of 1 − cos over images and their target classes."""
    images = images.detach().requires_grad_()
    with fast_double_backward():
        logits = model(images)
    v = input_gradients(logits, images, target_classes, gradient_of)  # (B, k, C, H, W)
    return F.cross_entropy(logits, labels), (1 - cosine(v, class_gradients)).mean()


@functools.lru_cache(maxsize=1)
def _compiled(model: nn.Module, training: bool, gradient_of: GradientOf) -> Callable[..., tuple[Tensor, Tensor]]:
    """The same function as one compiled graph, for this model in this mode.

    Dynamo cannot follow autograd.grad(create_graph=True), and a compiled forward pass has no second derivative. So
    Dynamo is told not to look inside; AOTAutograd then traces the operators with both derivatives. For that every
    tensor has to be an argument: those of the model too, whose buffers are updated in place.
    """
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]

    @torch.compiler.allow_in_graph
    def untraced(inputs: tuple[Tensor, ...], tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
        state = dict(zip(names, tensors, strict=True))
        with torch.autograd.set_multithreading_enabled(False):  # a tracer knows the thread it was started in
            return _cross_entropy_and_misalignment(
                lambda images: torch.func.functional_call(model, state, (images,)), gradient_of, *inputs
            )

    @torch.compile(fullgraph=True)
    def graph(inputs: tuple[Tensor, ...], tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
        return untraced(inputs, tensors)

    def evaluate(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return graph(inputs, [*model.parameters(), *model.buffers()])

    return evaluate
