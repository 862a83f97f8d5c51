"""A stage that is killed and run again, as often as it takes, leaves what an uninterrupted one leaves: every byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
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


def killed(folder: Path, kills: int) -> tuple[dict[str, int], list[str]]:
    """How often each stage was killed, and which said that it goes on from an earlier run."""
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


def test_killed_stages_leave_the_same_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Workspace.create(tmp_path / "whole")
    for key, value in {"diffusion.dropout": 0.3, "diffusion.steps": 8, "classifier.epochs": 3}.items():
        whole.set(key, value)
    whole.copy(tmp_path / "killed")
    for stage in STAGES:
        assert whole.run(monkeypatch, *stage.split(",")) == 0
    assert "goes on after" not in capsys.readouterr().out
    counts, went_on = killed(tmp_path / "killed", kills=4)
    assert sum(counts.values()) >= 16, counts
    assert {"train,digits,cnn,vanilla", "train,digits,cnn,at-l2+sbg"} & set(went_on), went_on
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
