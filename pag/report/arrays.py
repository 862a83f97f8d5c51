"""The arrays behind the figures, read from results/arrays and checked for their shapes.

The names of the K pictures beside an image are an optional string array `class_names` (K,) in each image archive;
without it the class indices stand in.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pag.foundation.artifacts import ArtifactError, load_arrays


@dataclass(frozen=True)
class ClassGrid:
    """Images and, for each, one picture per class: gradients, targeted attacks, or samples."""

    images: np.ndarray | None  # (R, C, H, W) in [0, 1]; None where the pictures have no input
    labels: np.ndarray | None  # (R,)
    pictures: np.ndarray  # (R, K, C, H, W)
    class_names: tuple[str, ...]  # K names


@dataclass(frozen=True)
class LargeEps(ClassGrid):
    eps: float  # L2 radius of the targeted attack


@dataclass(frozen=True)
class Diffusion:
    """Loss over training steps, and what the trained network draws."""

    steps: np.ndarray  # (S,)
    loss: np.ndarray  # (S,)
    samples: ClassGrid
    kind: str  # "samples", or "one-step denoising": rows of noisy images, each above the row of its denoised ones


@dataclass(frozen=True)
class ToyMap:
    """Predicted classes of both toy networks on a grid, and the test points."""

    grid_x: np.ndarray  # (X,)
    grid_y: np.ndarray  # (Y,)
    vanilla: np.ndarray  # (Y, X)
    nn: np.ndarray  # (Y, X)
    points: np.ndarray  # (N, 2)
    labels: np.ndarray  # (N,)


def read_gradients(path: Path) -> ClassGrid:
    """gradients (R, K, C, H, W) towards every class: of a realisation, or of a classifier (in its large_eps file)."""
    return _class_grid(path, _read(path, {"images": 4, "labels": 1, "gradients": 5}), "gradients")


def read_noise_levels(path: Path) -> tuple[list[ClassGrid], list[str]]:
    """For each image a grid of its noisy versions (rows) with the gradients there; and the names of the rows."""
    arrays = _read(path, {"images": 4, "labels": 1, "t": 1, "alpha_bar": 1, "noisy": 5, "gradients": 6})
    noisy, gradients = arrays["noisy"], arrays["gradients"]
    if noisy.shape != (*gradients.shape[:2], *gradients.shape[3:]) or noisy.shape[1] != len(arrays["t"]):
        given = f"noisy {noisy.shape}, gradients {gradients.shape}, t {arrays['t'].shape}"
        raise ArtifactError(f"{path} does not fit together: {given}, expected (R,L,C,H,W), (R,L,K,C,H,W), (L,)")
    names = _names(path, arrays, gradients.shape[2])
    rows = [f"ᾱ {level:.2g}\nt {t}" for level, t in zip(arrays["alpha_bar"], arrays["t"], strict=True)]
    labels = [np.full(len(rows), label) for label in arrays["labels"]]
    return [ClassGrid(*grid, names) for grid in zip(noisy, labels, gradients, strict=True)], rows


def read_large_eps(path: Path) -> LargeEps:
    arrays = _read(path, {"images": 4, "labels": 1, "adversarial": 5, "eps": 0})
    return LargeEps(**vars(_class_grid(path, arrays, "adversarial")), eps=float(arrays["eps"]))


def read_diffusion(path: Path) -> Diffusion:
    arrays = _read(path, {"steps": 1, "loss": 1, "images": 5, "kind": 0})
    names = _names(path, arrays, arrays["images"].shape[1])
    samples = ClassGrid(None, None, arrays["images"], names)
    return Diffusion(arrays["steps"], arrays["loss"], samples, str(arrays["kind"]))


def read_toy(path: Path) -> ToyMap:
    dimensions = {"grid_x": 1, "grid_y": 1, "vanilla": 2, "nn": 2, "points": 2, "labels": 1}
    arrays = _read(path, dimensions)
    return ToyMap(**{key: arrays[key] for key in dimensions})


def _class_grid(path: Path, arrays: dict[str, np.ndarray], key: str) -> ClassGrid:
    images, labels, pictures = arrays["images"], arrays["labels"], arrays[key]
    if not (len(images) == len(labels) == len(pictures)) or images.shape[1:] != pictures.shape[2:]:
        given = f"images {images.shape}, labels {labels.shape}, {key} {pictures.shape}"
        raise ArtifactError(f"{path} does not fit together: {given}, expected (R,C,H,W), (R,), (R,K,C,H,W)")
    return ClassGrid(images, labels, pictures, _names(path, arrays, pictures.shape[1]))


def _names(path: Path, arrays: dict[str, np.ndarray], count: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in arrays.get("class_names", np.arange(count)))
    if len(names) != count:
        raise ArtifactError(f"{path} has {len(names)} class_names for {count} pictures per image: run `dvc repro`")
    return names


def _read(path: Path, dimensions: dict[str, int]) -> dict[str, np.ndarray]:
    """The arrays of a file, after checking that each of `dimensions` is there with that many axes."""
    arrays = load_arrays(path)
    for key, ndim in dimensions.items():
        if key not in arrays or arrays[key].ndim != ndim:
            found = f"one of {arrays[key].ndim} axes" if key in arrays else f"only {', '.join(sorted(arrays))}"
            raise ArtifactError(f"{path} needs an array '{key}' of {ndim} axes, it has {found}: run `dvc repro`")
    return arrays
