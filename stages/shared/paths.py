"""Where the artifacts lie. dvc.yaml names the same paths; a test holds the two together."""

import hashlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pag
import stages
from pag.foundation.scratch import Scratch, open_scratch

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


def outcomes(dataset: str, arch: str, method: str) -> Path:
    """Image by image, what became of those that were attacked."""
    return RESULTS / "arrays" / dataset / "outcomes" / arch / f"{method}.npz"


def scratch(stage: str, *about: Any) -> AbstractContextManager[Scratch]:
    """Where a long stage keeps what it goes on from after an interruption; removed when the block succeeds.

    It belongs to `about` (the stage's parameters and inputs, as JSON), to the code of the project and to the libraries.
    DVC removes the outs of a stage before it runs, and runs queued experiments in temporary copies: so the folder lies
    beside the outs, in the repository itself.
    """
    code = hashlib.sha256()
    for package in (pag, stages):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            code.update(path.read_bytes())
    return open_scratch(_repository() / DATA / ".scratch", stage, {"about": about, "code": code.hexdigest()})


def _repository() -> Path:
    """The repository, which this folder may be DVC's temporary copy of.

    DVC says in DVC_ROOT where a copy comes from, but a stage that runs another project passes its own root on: so it
    is believed only where the copies of that root lie, under its .dvc/tmp.
    """
    root, here = Path(os.environ.get("DVC_ROOT", ".")).resolve(), Path.cwd().resolve()
    return root if here.is_relative_to(root / ".dvc" / "tmp") else Path()
