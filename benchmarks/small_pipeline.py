"""The stages on the JPEG copy of CIFAR-10 with the values of preset cifar10-hour, one after the other, without DVC."""

import contextlib
import importlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.miniature import ROOT, edit
from pag.foundation.artifacts import load_json
from stages.preset import load_preset
from stages.shared import paths

DATASET = "cifar10-jpeg"


@contextlib.contextmanager
def workspace(values: dict[str, Any]) -> Iterator[None]:
    """A temporary working folder with the parameter files; `values` by dotted key (section.field) go into the conf."""
    preset = load_preset("cifar10-hour", ROOT / "presets").conf["cifar10"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(ROOT / "conf", "conf")
        shutil.copy(ROOT / "params.yaml", ".")
        _set(preset | values)
        yield


def stage(name: str, *words: str) -> None:
    importlib.import_module(f"stages.{name}").main([DATASET, *words], standalone_mode=False)


def aligned(arch: str, seconds: float) -> dict[str, Any]:
    """Train with SBG for as many epochs as fit into `seconds`, by the time of a first one; timings and metrics."""
    timings = paths.timings(DATASET, arch, "sbg")
    _set({"classifier.epochs": 1})
    stage("train", arch, "sbg")
    epochs = max(1, int(seconds / load_json(timings)["train_seconds"]))
    _set({"classifier.epochs": epochs})
    stage("train", arch, "sbg")
    start = time.perf_counter()
    stage("evaluate", arch, "sbg")
    spent = {"epochs": epochs, "evaluate_seconds": time.perf_counter() - start}
    return {**spent, **load_json(timings), **load_json(paths.record(DATASET, arch, "sbg"))}


def _set(values: dict[str, Any]) -> None:
    for key, value in values.items():
        section, field = key.split(".")
        edit(Path("conf") / f"{DATASET}.yaml", {field: value}, section)
