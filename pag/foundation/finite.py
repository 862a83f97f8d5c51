"""Numbers that a training must not go on with: infinite or NaN losses and gradients, and runs that have run away."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Guessing costs a cross-entropy of log C, and noise prediction without any a loss of 1. A learning rate of 100 leaves
# weights of order 1000, with which a dead network may end near chance, but its losses on the way are 10⁴ to 10¹⁶; on
# digits even a rate that is 50 times too high stays at 62 in its first epoch.
MAX_LOSS = 1e3
MAX_WEIGHT = 1e6  # trained weights are of order 1, and float32 keeps their updates no longer


class Watch:
    """Finds the first step whose loss or gradients are not finite. On a GPU, `check` alone waits for the device."""

    def __init__(self, parameters: Iterable[Tensor], device: torch.device, message: Callable[[int, str], str]) -> None:
        """message: (step, what is wrong) → the error's line."""
        self.parameters, self.message = list(parameters), message
        self.on_cpu = device.type == "cpu"
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad_loss = torch.zeros((), device=device)

    def look(self, step: int, loss: Tensor) -> None:
        """Look at a step's loss and gradients, before they change the weights.

        Raises FloatingPointError on a CPU, where looking costs nothing; elsewhere `check` does.
        """
        # The 2-norm is the cheapest sum that nothing infinite escapes; a gradient above 10¹⁹ counts as infinite too.
        norms = torch.stack(torch._foreach_norm([p.grad for p in self.parameters if p.grad is not None]))
        bad = ~(torch.isfinite(norms).all() & torch.isfinite(loss))
        if self.on_cpu:
            if bad:
                self._stop(step, loss.item())
            return
        first = bad & (self.first_bad < 0)
        self.bad_loss = torch.where(first, loss.detach().float(), self.bad_loss)
        self.first_bad = torch.where(first, step, self.first_bad)

    def check(self, step: int) -> None:
        """Raises FloatingPointError if a step so far was bad, or if the weights after `step` have run away."""
        if not self.on_cpu and (first := int(self.first_bad.item())) >= 0:
            self._stop(first, self.bad_loss.item())
        if weight := runaway(self.parameters):
            raise FloatingPointError(self.message(step, f"a weight is {weight:.3g}"))

    def _stop(self, step: int, loss: float) -> None:
        what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        raise FloatingPointError(self.message(step, what))


def runaway(tensors: Iterable[Tensor]) -> float | None:
    """The largest absolute value of floating-point tensors where that is no weight of a network any more."""
    floats = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    largest = torch.stack(torch._foreach_norm(floats, torch.inf)).float().max().item() if floats else 0.0
    return None if largest <= MAX_WEIGHT else largest
