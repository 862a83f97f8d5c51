"""What an attacker may do: move an image within a ball. Everything in which the two norms differ is in this file."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pag.foundation.config.section import Norm, check_radius, nearest


@dataclass(frozen=True)
class ThreatModel:
    """The ball ‖delta‖ ≤ eps around an image; eps in the units of the image (a grey value range of [0, 1]).

    delta has shape (B, ...): images (B, C, H, W) or points (B, 2); every row is one perturbation.
    Raises ValueError for an unknown norm, for eps ≤ 0, and for L∞ eps > 1.
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("L2", "Linf"):
            raise ValueError(f"unknown norm '{self.norm}'{nearest(self.norm, ['L2', 'Linf'])}")
        check_radius(self.norm, self.eps)

    def distance(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation, (B,)."""
        return torch.linalg.vector_norm(delta.flatten(1), ord=2 if self.norm == "L2" else float("inf"), dim=1)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation (in L2) that lies inside the ball."""
        if self.norm == "Linf":
            return delta.clamp(-self.eps, self.eps)
        # Inside the ball the factor is 1; the quotient is infinite, and clamped, for a perturbation of zero.
        return delta * _per_row(self.eps / self.distance(delta), delta).clamp(max=1)

    def step(self, gradient: Tensor) -> Tensor:
        """The perturbation of unit norm along which a linear loss rises fastest; zero where the gradient is zero."""
        if self.norm == "Linf":
            return gradient.sign()
        # Dividing by the largest entry first keeps the squares of a saturated network's gradient from underflowing.
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / _per_row(gradient.flatten(1).abs().amax(1), gradient).clamp(min=tiny)
        return scaled / _per_row(self.distance(scaled), scaled).clamp(min=tiny)

    def random_start(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Perturbations of this shape, float32, uniform in the ball, on the generator's device."""
        device = generator.device
        if self.norm == "Linf":
            return (2 * torch.rand(shape, generator=generator, device=device) - 1) * self.eps
        # Uniform in a d-dimensional ball: a uniform direction, and a radius with density ∝ r^(d-1).
        direction = self.step(torch.randn(shape, generator=generator, device=device))
        radius = torch.rand(shape[0], generator=generator, device=device) ** (1 / direction[0].numel())
        return direction * _per_row(radius, direction) * self.eps


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, ..., 1), to broadcast against `like` (B, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))
