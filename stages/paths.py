"""Where the artifacts lie. dvc.yaml names the same paths; a test holds the two together."""

from pathlib import Path

DATA = Path("data")
RESULTS = Path("results")
REPORT = RESULTS / "report"
TOY_METRICS = RESULTS / "metrics" / "toy.json"
TOY_ARRAYS = RESULTS / "arrays" / "toy.npz"


def images(dataset: str) -> Path:
    return DATA / dataset / "images"


def diffusion(dataset: str) -> Path:
    return DATA / dataset / "diffusion"


def diffusion_preview(dataset: str) -> Path:
    return RESULTS / "arrays" / dataset / "diffusion.npz"


def gradients(dataset: str, realization: str) -> Path:
    """The store of a realisation; `heldout` is SBG on test images, which only evaluation reads."""
    return DATA / dataset / "gradients" / f"{realization}.zarr"


def realization_preview(dataset: str, realization: str) -> Path:
    return RESULTS / "arrays" / dataset / "realizations" / f"{realization}.npz"


def classifier(dataset: str, arch: str, method: str) -> Path:
    return DATA / dataset / "classifiers" / arch / method


def curve(dataset: str, arch: str, method: str) -> Path:
    return RESULTS / "curves" / dataset / arch / f"{method}.csv"


def diffusion_curve(dataset: str) -> Path:
    return RESULTS / "curves" / dataset / "diffusion.csv"


def timings(dataset: str, arch: str, method: str) -> Path:
    return RESULTS / "timings" / dataset / arch / f"{method}.json"


def metrics(dataset: str, arch: str, method: str) -> Path:
    return RESULTS / "metrics" / dataset / arch / f"{method}.json"


def large_eps(dataset: str, arch: str, method: str) -> Path:
    return RESULTS / "arrays" / dataset / "large_eps" / arch / f"{method}.npz"
