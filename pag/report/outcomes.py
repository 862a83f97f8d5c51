"""Which images a classifier got right, under attack and without: what paired comparisons and curves are made of."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pag.foundation.artifacts import ArtifactError, load_arrays
from pag.foundation.config.section import Norm
from pag.report.paper import RADIUS_TOLERANCE

NORMS: tuple[Norm, ...] = ("L2", "Linf")


@dataclass(frozen=True, eq=False)
class Sample:
    """The images behind one accuracy, one by one."""

    images: str  # says which: samples of the same images can be compared pairwise
    correct: np.ndarray  # (N,) bool


@dataclass(frozen=True, eq=False)
class Outcomes:
    """results/arrays/<dataset>/outcomes/<arch>/<run>.npz; a radius is 0 for an image that is wrong as it is."""

    images: str
    clean: Sample  # over the whole split
    radius: dict[Norm, np.ndarray]  # (N,) the smallest attacked radius that broke an image; inf: none did
    curve: dict[Norm, tuple[np.ndarray, np.ndarray]]  # radii (R,) of the quick attack, and (N,) as above

    def robust(self, norm: Norm, eps: float) -> Sample | None:
        """At one of the attacked radii; None where the norm was not attacked."""
        return Sample(self.images, survived(self.radius[norm], eps)) if norm in self.radius else None


def survived(radius: np.ndarray, eps: float) -> np.ndarray:
    """Images (N,) bool that nothing broke within eps, allowing for a rounded radius as 0.0314 is."""
    return radius > eps * (1 + RADIUS_TOLERANCE)


def read_outcomes(path: Path) -> Outcomes | None:
    """None without the file: earlier evaluations wrote none. Raises ArtifactError where it does not fit together."""
    if not path.exists():
        return None
    arrays = load_arrays(path)
    try:
        rows, labels, clean = arrays["rows"], arrays["labels"], arrays["clean_correct"]
        radius = {norm: arrays[f"radius_{norm}"] for norm in NORMS if f"radius_{norm}" in arrays}
        curve = {
            norm: (arrays[f"curve_eps_{norm}"], arrays[f"curve_radius_{norm}"])
            for norm in NORMS
            if f"curve_eps_{norm}" in arrays
        }
    except KeyError as missing:
        raise ArtifactError(f"{path} lacks the array {missing}: run `dvc repro`") from None
    for values in (labels, *radius.values(), *(of for _, of in curve.values())):
        if values.shape != rows.shape:
            raise ArtifactError(f"{path}: {values.shape} values for rows of {rows.shape}: run `dvc repro`")
    attacked = hashlib.sha256(np.stack([rows, labels]).astype(np.int64).tobytes()).hexdigest()
    return Outcomes(attacked, Sample(f"all {len(clean)}", clean.astype(bool)), radius, curve)
