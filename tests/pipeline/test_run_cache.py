"""Going back to earlier values restores from DVC's run cache: no stage runs."""

import json
from pathlib import Path

import pytest
from dvc.repo import Repo
from test_edits import change

from benchmarks.miniature import copy_repository

# In the place of every stage: notes that it ran, and writes outs that depend on λ and on nothing else; what `check`
# writes is the same for all values.
STUB = """
import json, os, pathlib
stage = os.environ["DVC_STAGE"]
with open("ran.txt", "a") as log:
    log.write(stage + "\\n")
weight = [line for line in open("params.yaml") if line.startswith("lambda")]
for out in json.load(open("outs.json"))[stage]:
    path = pathlib.Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"out": out, "lambda": None if path.name == "checked.json" else weight}))
"""

# a run of each kind that depends on λ, and one that does not
FEW: dict[str, object] = {"baselines": ["at-l2"], "heuristics": [], "realizations": ["sbg"], "point_sets": []}


def test_there_and_back_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_repository(tmp_path)
    (tmp_path / "dvc.lock").unlink()
    change(tmp_path / "params.yaml", FEW)
    for script in (tmp_path / "stages").glob("*.py"):
        script.write_text(STUB)
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "ran.txt"

    def ran(weight: float | None) -> set[str]:
        change(tmp_path / "params.yaml", {"lambda": weight})
        log.write_text("")
        with Repo(str(tmp_path)) as repo:
            outs = {stage.name: [out.def_path for out in stage.outs] for stage in repo.index.stages}
            Path("outs.json").write_text(json.dumps(outs))
            repo.reproduce()
        return {name.split("@")[0] for name in log.read_text().split()}

    assert {"prepare", "train_pag", "report"} <= ran(None)
    metrics = Path("results/metrics/digits/cnn/sbg.json").read_text()
    trained = {"train_pag", "train_robust_pag", "evaluate_pag", "evaluate_robust_pag"}
    assert ran(1.0) == {"validate", "check", "report"} | trained
    assert Path("results/metrics/digits/cnn/sbg.json").read_text() != metrics
    assert ran(None) == set()
    assert Path("results/metrics/digits/cnn/sbg.json").read_text() == metrics
