"""Where the artifacts lie. dvc.yaml names the same paths; a test holds the two together."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pag

DATA = Path("data")
RESULTS = Path("results")
PARAMETERS = DATA / "parameters.json"  # every key of params.yaml and the confs, as they were checked
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


def scratch(stage: str, *about: Any) -> Path:
    """Where a long stage keeps what it goes on from after an interruption; it removes the folder when it is done.

    Named by `about` (its parameters and inputs, as JSON) and by the code of the package, so that nothing else is taken
    up. DVC removes the outs of a stage before it runs, and runs queued experiments in temporary copies: so the folder
    lies beside the outs, in the repository itself.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in sorted(Path(pag.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return Path(os.environ.get("DVC_ROOT", ".")) / DATA / ".scratch" / f"{stage}-{digest.hexdigest()[:16]}"
