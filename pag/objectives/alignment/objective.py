"""The paper's objective (Eq. 4): L = CE(f(x), y) + λ · Σ_{y'} (1 − cos(∇_x log p(y'|x), g(x, y')))."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from pag.classifiers.compiled import evaluate
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
        assert batch.target_classes is not None and batch.class_gradients is not None
        inputs = (batch.images, batch.labels, batch.target_classes, batch.class_gradients)
        cross_entropy, misaligned = evaluate(
            _cross_entropy_and_misalignment, model, *inputs, gradient_of=self.gradient_of
        )
        return {"cross_entropy": cross_entropy, "alignment": self.weight * self.num_classes * misaligned}

    def term(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The alignment term alone, at the clean images: what is added to a robust objective."""
        return {"alignment": self(model, batch)["alignment"]}


def _cross_entropy_and_misalignment(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    target_classes: Tensor,
    class_gradients: Tensor,
    gradient_of: GradientOf,
) -> tuple[Tensor, Tensor]:
    """CE(f(x), y) and the mean of 1 − cos over images and their target classes.

    A stored gradient of zeros says nothing (NN of an image with a twin in the class, a score of an untrained class), so
    it adds nothing: without a direction the 1 would be a constant of the loss.
    """
    images = images.detach().requires_grad_()
    with fast_double_backward():
        logits = model(images)
    v = input_gradients(logits, images, target_classes, gradient_of)  # (B, k, C, H, W)
    directed = class_gradients.flatten(2).ne(0).any(2)  # (B, k)
    return F.cross_entropy(logits, labels), ((1 - cosine(v, class_gradients)) * directed).mean()
