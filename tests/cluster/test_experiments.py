"""Experiments side by side from DVC's queue, and a run in slices: as good as one run after another."""

import csv
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults.workspace import Workspace
from benchmarks.miniature import copy_repository, edit, shrink
from pag.foundation.artifacts import load_json

pytestmark = pytest.mark.slow

FEW = {"baselines": ["vanilla"], "heuristics": ["nn"], "realizations": ["nn"], "robust": [], "point_sets": []}
METRICS = "results/metrics/digits/cnn/nn.json"


def repository(folder: Path) -> Path:
    folder.mkdir()
    copy_repository(folder)
    (folder / "dvc.lock").unlink()
    shutil.rmtree(folder / "results")
    shrink(folder, ["digits"], FEW)
    edit(folder / "conf/digits.yaml", {"train_limit": 200, "test_limit": 40, "test_fraction": 0.2}, "data")
    edit(folder / "conf/digits.yaml", {"epochs": 6}, "classifier")
    edit(folder / "conf/digits.yaml", {"steps": 40}, "diffusion")
    return folder


def dvc(folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    command = [*prefix, sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def checked(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run, committed."""
    folder = repository(tmp_path_factory.mktemp("experiments") / "whole")
    checked(dvc(folder, "repro"))
    for git in (["add", "--all"], ["commit", "--quiet", "--message", "Run"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    return folder


def artifacts(folder: Path) -> dict[Path, bytes]:
    """All but the report, which shows seconds."""
    outs = Workspace(folder).outs()
    return {path: content for path, content in outs.items() if not path.is_relative_to("results/report")}


def test_slices_of_time_leave_the_bytes_of_one_run(whole: Path, tmp_path: Path) -> None:
    folder = repository(tmp_path / "sliced")
    slices, seconds = 0, 8.0
    while (done := dvc(folder, "repro", prefix=("timeout", f"{seconds:.1f}"), PAG_CHECKPOINT_MINUTES="0")).returncode:
        assert done.returncode == 124, done.stdout + done.stderr
        slices, seconds = slices + 1, seconds * 1.15  # on a machine so busy that a slice ends before a stage begins
    assert slices >= 3
    assert artifacts(folder) == artifacts(whole)
    assert not list((folder / "data/.scratch").glob("*"))


def test_a_queue_of_two_jobs_gives_what_runs_alone_give(whole: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(whole, alone, symlinks=True)
    edit(alone / "params.yaml", {"lambda": 0.5})
    checked(dvc(alone, "repro"))

    checked(dvc(whole, "exp", "run", "--queue", "-S", "lambda=0.5,1"))
    checked(dvc(whole, "queue", "start", "-j", "2", OMP_NUM_THREADS="1"))
    deadline = time.monotonic() + 900
    while any(state in checked(dvc(whole, "queue", "status")) for state in ("Queued", "Running")):
        assert time.monotonic() < deadline, dvc(whole, "queue", "status").stdout
        time.sleep(2)
    rows = list(csv.DictReader(io.StringIO(checked(dvc(whole, "exp", "show", "--csv")))))
    found = {float(row["lambda"]): row for row in rows if row["Experiment"]}
    assert set(found) == {0.5, 1.0}
    expected = load_json(alone / METRICS)["nn"]
    for key, number in expected.items():
        assert value(found[0.5], key) == str(number), key
    weights = "data/digits/classifiers/cnn/nn"
    assert found[0.5][weights] != found[1.0][weights]
    assert not list((whole / "data/.scratch").glob("train*"))


def value(row: dict[str, str], key: str) -> str:
    """A metric of the aligned run; DVC leaves the file away where the name is of one file alone."""
    return row.get(f"{METRICS}:nn.{key}") or row[f"nn.{key}"]
