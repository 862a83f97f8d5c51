"""Stages in processes of their own: order, what they leave, and how they are stopped."""

import importlib
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cifar10.lanes import Lanes
from benchmarks.cifar10.schedule import Stage

COMMAND = """
import sys
import time

import click


@click.command()
def main() -> None: ...


if __name__ == "__main__":
    dataset, seconds, code = sys.argv[1:]
    print("on", dataset, flush=True)
    time.sleep(float(seconds))
    sys.exit(int(code))
"""


@pytest.fixture
def lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lanes:
    (tmp_path / "pretended_stage.py").write_text(COMMAND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pretended_stage", raising=False)
    return Lanes(2, tmp_path / "logs")


def stage(name: str, seconds: float, code: int = 0) -> Stage:
    command = importlib.import_module("pretended_stage").main
    return Stage(name, command, (str(seconds), str(code)), (), True)


def test_a_stage_that_ends_is_reported_once_with_code_and_last_line(lanes: Lanes) -> None:
    lanes.start(stage("evaluate a/b", 0, code=3))
    assert "evaluate a/b" in lanes and lanes.busy
    (ended,) = lanes.ended(wait_for_one=True)
    assert (ended.name, ended.code, ended.last_line) == ("evaluate a/b", 3, "on cifar10-jpeg")
    assert not lanes.busy and list(lanes.ended()) == []
    assert (lanes.logs / "evaluate-a-b.log").read_text() == "on cifar10-jpeg\n"
    lanes.stop()


def test_stop_interrupts_what_runs_and_drops_what_waits(lanes: Lanes) -> None:
    for number in range(3):
        lanes.start(stage(f"evaluate {number}", 60))
    deadline = time.monotonic() + 20
    while sum(log.stat().st_size > 0 for log in lanes.logs.glob("*")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    interrupted = lanes.stop()
    assert set(interrupted) == {"evaluate 0", "evaluate 1"}
    assert not lanes.busy and not (lanes.logs / "evaluate-2.log").exists()
