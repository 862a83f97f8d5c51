"""g(x, y) = r_y − x with the same target r_y for every image x: what the realisations OI and CM have in common."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class FixedTargets:
    """Called as the other realisations are (see realizations.py), or for a few classes an image."""

    targets: Tensor  # r_y: (K, C, H, W) in [0, 1]

    def __call__(self, images: Tensor, indices: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """images (B, C, H, W) → gradients towards `classes` (B, k) as (B, k, C, H, W), or None for all K.

        `indices` are not looked at: a fixed target does not depend on which image it is.
        """
        targets = self.targets.to(images.device)
        return (targets if classes is None else targets[classes]) - images[:, None]
