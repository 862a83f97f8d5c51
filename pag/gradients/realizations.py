"""The heuristic realisations of g(x, y) = r_y − x, which points from an image x to a target r_y of class y.

- OI, one image: r_y is one training image of class y, chosen once by the seed.
- CM, class mean: r_y is the mean of the training images of class y.
- NN, nearest neighbour: r_y(x) is the nearest image to x (L2), x itself excluded, among a limited set D_y of class y.

Each is built from training images and called as ``gradients(images, indices)``: images float32 (B, C, H, W) in [0, 1]
with their numbers in the training split (B,), or None for images that are not in it → float32 (B, K, C, H, W), on the
images' device. A result does not depend on the batch that the image comes in. Points (B, D) serve as well as images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pag.foundation.seeding import generator
from pag.images.dataset import Split, to_unit
from pag.images.fixed_targets import FixedTargets


def one_image(train: Split, num_classes: int, seed: int) -> FixedTargets:
    """OI: targets drawn by `seed`. Raises ValueError when a class has no images."""
    chosen = []
    for label, members in enumerate(_members(train, num_classes, at_least=1)):
        draw = torch.randint(len(members), (), generator=generator(seed, "oi", label))
        chosen.append(members[int(draw)])
    return FixedTargets(train.unit(np.array(chosen)))


def class_mean(train: Split, num_classes: int) -> FixedTargets:
    """CM: the means, exact before they are rounded to float32. Raises ValueError when a class has no images."""
    means = [train.images[m].mean(axis=0, dtype=np.float64) for m in _members(train, num_classes, at_least=1)]
    return FixedTargets(torch.from_numpy((np.stack(means) / train.levels).astype(np.float32)))


def nearest_neighbour(train: Split, num_classes: int, seed: int, candidates: int = 1000) -> "NearestNeighbour":
    """NN: D_y is a subset of at most `candidates` images of class y, drawn by `seed`.

    Raises ValueError when a class has fewer than two images, or `candidates` is below 2: an image must not have to be
    its own neighbour.
    """
    if candidates < 2:
        raise ValueError(f"nn_candidates = {candidates}: expected at least 2, since no image is its own neighbour")
    pools = []
    for label, members in enumerate(_members(train, num_classes, at_least=2)):
        order = torch.randperm(len(members), generator=generator(seed, "nn", label)).numpy()
        pools.append(np.sort(members[order[:candidates]]))
    return NearestNeighbour(train, tuple(pools))


@dataclass(frozen=True)
class NearestNeighbour:
    """g(x, y) = r_y(x) − x. Of equally near images the one with the lowest number is taken.

    Distances are computed on raw values in float64: it holds every integer up to 2⁵³, so for uint8 images the matrix
    product is exact, and ties and near-ties come out the same in any batch and on any device. Memory: the distances
    (B, candidates) and one class's candidates at a time.
    """

    train: Split
    pools: tuple[np.ndarray, ...]  # D_y: increasing indices into `train`, by class

    def __call__(self, images: Tensor, indices: Tensor | None = None) -> Tensor:
        queries = self._raw(images).flatten(1)
        gradients = images.new_empty(len(images), len(self.pools), *images.shape[1:])
        for label, pool in enumerate(self.pools):
            candidates = torch.from_numpy(self.train.images[pool]).to(images.device)
            excluded = None if indices is None else indices.to(images.device)[:, None] == _to(images.device, pool)
            nearest = _nearest(queries, candidates.flatten(1).double(), excluded)
            torch.sub(to_unit(candidates[nearest], self.train.levels), images, out=gradients[:, label])
        return gradients

    def _raw(self, images: Tensor) -> Tensor:
        """Undo `to_unit` in float64; raw pixels are whole numbers, raw points are not."""
        raw = images.double() * self.train.levels
        return raw.round_() if self.train.images.dtype == np.uint8 else raw


def _nearest(queries: Tensor, candidates: Tensor, excluded: Tensor | None) -> Tensor:
    """Index of the nearest candidate of each query; (B, D), (n, D), bool (B, n) → (B,)."""
    # ‖q − c‖² without ‖q‖², which is the same for all candidates.
    distances = torch.addmm(candidates.square().sum(dim=1), queries, candidates.T, alpha=-2)
    if excluded is not None:
        distances.masked_fill_(excluded, float("inf"))
    return distances.argmin(dim=1)  # the first of equal ones


def _members(train: Split, num_classes: int, at_least: int) -> list[np.ndarray]:
    """The increasing indices of each class's images."""
    members = [np.flatnonzero(train.labels == label) for label in range(num_classes)]
    for label, indices in enumerate(members):
        if len(indices) < at_least:
            raise ValueError(
                f"class {label} has {len(indices)} training images, expected at least {at_least}: "
                "raise data.train_limit or drop this realization"
            )
    return members


def _to(device: torch.device, indices: np.ndarray) -> Tensor:
    return torch.from_numpy(indices).to(device)
