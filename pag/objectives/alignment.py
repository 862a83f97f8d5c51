"""The paper's objective (Eq. 4): L = CE(f(x), y) + λ · Σ_{y'} (1 − cos(∇_x log p(y'|x), g(x, y')))."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from pag.config.section import GradientOf
from pag.objectives.batch import Batch
from pag.objectives.cosine import cosine, input_gradients


@dataclass(frozen=True)
class Alignment:
    """Cross-entropy plus gradient alignment, both from one forward pass.

    weight: λ, in the convention of the full sum over classes.
    num_classes: C. With k target classes per image the sum over them carries the factor C/k, which makes it an
        unbiased estimate of the sum over all C.
    gradient_of: the score whose gradient is aligned, log-softmax or logit.
    """

    weight: float
    num_classes: int
    gradient_of: GradientOf = "log_softmax"

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images = batch.images.detach().requires_grad_()
        logits = model(images)
        return {
            "cross_entropy": F.cross_entropy(logits, batch.labels),
            "alignment": self._term(logits, images, batch),
        }

    def term(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The alignment term alone, at the clean images: what is added to a robust objective."""
        images = batch.images.detach().requires_grad_()
        return {"alignment": self._term(model(images), images, batch)}

    def _term(self, logits: Tensor, images: Tensor, batch: Batch) -> Tensor:
        assert batch.target_classes is not None and batch.class_gradients is not None
        v = input_gradients(logits, images, batch.target_classes, self.gradient_of)  # (B, k, C, H, W)
        losses = 1 - cosine(v, batch.class_gradients)  # (B, k)
        return self.weight * (self.num_classes / losses.shape[1]) * losses.sum(1).mean()
