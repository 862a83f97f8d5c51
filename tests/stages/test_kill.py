"""A stage that is killed and run again, as often as it takes, leaves what an uninterrupted one leaves: every byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

from workspace import ROOT, Workspace

STAGES = [
    "prepare,digits",
    "train_diffusion,digits",
    "distill,digits,nn",
    "distill_sbg,digits",
    "train,digits,cnn,vanilla",
    "train,digits,cnn,at-l2+sbg",
    "evaluate,digits,cnn,at-l2+sbg",
]


def run(folder: Path, kills: int) -> tuple[dict[str, int], list[str]]:
    workspace = Workspace.create(folder)
    workspace.set("diffusion.dropout", 0.3)
    workspace.set("diffusion.steps", 8)
    workspace.set("classifier.epochs", 3)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PAG_CHECKPOINT_MINUTES": "0"}
    command = [sys.executable, str(ROOT / "tests/stages/killed.py"), str(folder), "1", str(kills), *STAGES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def content(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too; of the timings, which are never the same, the names alone."""
    return {
        str(path.relative_to(folder)): b"" if "timings" in path.parts else path.read_bytes()
        for top in ("data", "results")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }


def test_killed_stages_leave_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", kills=0)[1] == []
    killed, went_on = run(tmp_path / "killed", kills=4)
    assert sum(killed.values()) >= 16, killed
    assert {"train,digits,cnn,vanilla", "train,digits,cnn,at-l2+sbg"} & set(went_on), went_on
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
