"""Where the artifacts lie. dvc.yaml names the same paths; a test holds the two together."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stages
from pag.foundation.config.section import read_yaml
from pag.foundation.repository import repository

if TYPE_CHECKING:
    from pag.foundation.scratch import Scratch

DATA = Path("data")
RESULTS = Path("results")
PARAMETERS = DATA / "parameters.json"  # every key of params.yaml and the confs, as they were checked
REPORT = RESULTS / "report"
TOY_RECORD = RESULTS / "records" / "toy.json"
TOY_METRICS = RESULTS / "metrics" / "toy.json"
TOY_ARRAYS = RESULTS / "arrays" / "toy.npz"


def raw_files(dataset: str) -> Path:
    """What the raw files were at the last look: prepare depends on the folder, which is there without any."""
    return DATA / "raw_files" / f"{dataset}.json"


def last_look(dataset: str) -> Path:
    """Which raw files need not be read again; in the repository itself, as `scratch`."""
    return _kept() / "raw_files" / f"{dataset}.npz"


def images(dataset: str) -> Path:
    return DATA / dataset / "images"


def checked(dataset: str) -> Path:
    """That the values fit the images."""
    return DATA / dataset / "checked.json"


def diffusion(dataset: str) -> Path:
    return DATA / dataset / "diffusion"


def diffusion_preview(dataset: str) -> Path:
    return RESULTS / "arrays" / dataset / "diffusion.npz"


def gradients(dataset: str, realization: str) -> Path:
    """The store of a realisation; `heldout` is SBG on test images, which only evaluation reads."""
    return DATA / dataset / "gradients" / f"{realization}.zarr"


def realization_preview(dataset: str, realization: str) -> Path:
    return RESULTS / "arrays" / dataset / "realizations" / f"{realization}.npz"


def classifier(dataset: str, arch: str, run: str) -> Path:
    return DATA / dataset / "classifiers" / arch / run


def external(name: str) -> Path:
    """Code and weights of a network of others."""
    return Path("external") / name


def curve(dataset: str, arch: str, run: str) -> Path:
    return RESULTS / "curves" / dataset / arch / f"{run}.csv"


def diffusion_curve(dataset: str) -> Path:
    return RESULTS / "curves" / dataset / "diffusion.csv"


def timings(dataset: str, arch: str, run: str) -> Path:
    return RESULTS / "timings" / dataset / arch / f"{run}.json"


def record(dataset: str, arch: str, run: str) -> Path:
    """All that was measured of a run, sealed: what the report is made of."""
    return RESULTS / "records" / dataset / arch / f"{run}.json"


def metrics(dataset: str, arch: str, run: str) -> Path:
    """Of these, the few numbers that `dvc exp show` and `dvc metrics diff` compare."""
    return RESULTS / "metrics" / dataset / arch / f"{run}.json"


def large_eps(dataset: str, arch: str, run: str) -> Path:
    return RESULTS / "arrays" / dataset / "large_eps" / arch / f"{run}.npz"


def outcomes(dataset: str, arch: str, run: str) -> Path:
    """Image by image, what became of those that were attacked."""
    return RESULTS / "arrays" / dataset / "outcomes" / arch / f"{run}.npz"


def scratch(stage: str, *about: Any) -> "AbstractContextManager[Scratch]":
    """Where a long stage keeps what it goes on from after an interruption; removed when the block succeeds.

    It belongs to `about` (the stage's parameters and inputs, as JSON), to the stage's code and to the libraries. DVC
    removes the outs of a stage before it runs, and runs queued experiments in temporary copies: so the folder lies
    beside the outs, in the repository itself.
    """
    from pag.foundation.scratch import open_scratch  # with PyTorch, which the stage `raw` does without

    return open_scratch(_kept(), stage, {"about": about, "code": code_of(stage)})


def code_of(stage: str) -> str:
    """A hash of the code that dvc.yaml names for `python -m stages.<stage>`: what DVC runs it again for."""
    root = Path(stages.__path__[0]).parent
    listed = {
        dep
        for each in read_yaml(root / "dvc.yaml")["stages"].values()
        if f"stages.{stage}" in each["cmd"].split()
        for dep in each["deps"]
        if dep.startswith(("pag/", "stages/"))
    }
    assert listed, stage
    files = sorted(file for dep in listed for file in (root / dep, *(root / dep).rglob("*.py")) if file.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _kept() -> Path:
    return repository() / DATA / ".scratch"
