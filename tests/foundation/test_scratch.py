"""Scratch states: kept twice, never taken up when damaged or foreign, and never shared by two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pag.foundation import interrupts
from pag.foundation.interrupts import Interrupted
from pag.foundation.scratch import Scratch, checkpoint_minutes, open_scratch
from stages.shared import paths

PATIENCE = 300  # seconds that a step of a busy machine may take: less is a matter of load, more of a fault

# Saves the numbers 1, 2, 3 … together with a tensor that belongs to each, and says which one it began with.
COUNT = """
import sys, torch
from pathlib import Path
from pag.foundation.scratch import open_scratch
with open_scratch(Path(sys.argv[1]), "count", {"of": "numbers"}) as scratch:
    state = scratch.load("state") or {"number": 0}
    print(scratch.folder.name, state["number"], flush=True)
    for number in range(state["number"] + 1, int(sys.argv[2]) + 1):
        scratch.save("state", {"number": number, "tensor": torch.full((1000,), float(number))})
    print("end", flush=True)
    if len(sys.argv) > 3:
        sys.stdin.read()
"""


def start(folder: Path, last: int, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COUNT, str(folder), str(last), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_leaves_its_last_state_and_two_at_once_share_nothing(tmp_path: Path) -> None:
    killed = start(tmp_path, 10**6)
    assert killed.stdout and killed.stdout.readline().endswith(" 0\n")
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("*/state")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()

    first, second = start(tmp_path, 0, "wait"), start(tmp_path, 0, "wait")
    assert first.stdout and second.stdout
    names = {}
    for process in (first, second):
        name, number = process.stdout.readline().split()  # type: ignore[union-attr]
        names[name] = int(number)
    base, private = sorted(names)
    assert private == f"{base}.1" and names[base] > 0 and names[private] == 0
    for process in (first, second):
        process.stdin.close()  # type: ignore[union-attr]
        assert process.stdout.read() == "end\n" and process.wait() == 0  # type: ignore[union-attr]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    made = Scratch(tmp_path, {"lambda": 0.5})
    for number in (1, 2):
        made.save("state", {"number": number, "tensor": torch.full((4,), float(number))})
    return made


@pytest.mark.parametrize("place", [0, 31, 32, 63, 64, 200, -1])
def test_a_flipped_bit_gives_the_state_before(scratch: Scratch, place: int, capsys) -> None:
    path = scratch.folder / "state"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert scratch.load("state")["number"] == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert (scratch.folder / "state.damaged").read_bytes() == content


def test_two_damaged_states_are_none(scratch: Scratch) -> None:
    for name in ("state", "state.before"):
        os.truncate(scratch.folder / name, 100)
    assert scratch.load("state") is None


def test_too_little_memory_takes_no_state_away(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch, "load", load)
        scratch.load("state")
    assert scratch.load("state")["number"] == 2


def test_a_foreign_state_is_named(scratch: Scratch, capsys) -> None:
    assert Scratch(scratch.folder, {"lambda": 1.0}).load("state") is None
    assert "of other parameters, inputs, code or libraries" in capsys.readouterr().out


def test_a_failure_keeps_the_folder_and_success_removes_it(tmp_path: Path) -> None:
    for number in range(3):
        with pytest.raises(KeyError), open_scratch(tmp_path, "work", {}) as scratch:
            assert (scratch.load("state") or 0) == number
            scratch.save("state", number + 1)
            raise KeyError
    with open_scratch(tmp_path, "work", {"other": 1}) as other:
        assert other.load("state") is None
    with open_scratch(tmp_path, "work", {}) as scratch:
        assert scratch.load("state") == 3
    assert list(tmp_path.iterdir()) == []


def test_kernels_that_are_not_strict_leave_nothing_to_a_strict_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_scratch(tmp_path, "work", {}) as scratch:
        scratch.save("state", 1)
        raise KeyError
    torch.use_deterministic_algorithms(True)
    try:
        with open_scratch(tmp_path, "work", {}) as strict:
            assert strict.load("state") is None
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_outer_project_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC sets DVC_ROOT for a queued experiment's copy; a stage of another project passes its own on."""
    copy, project, outer = tmp_path / "p/.dvc/tmp/exps/a", tmp_path / "o/inner", tmp_path / "o"
    for here, root, expected in ((copy, tmp_path / "p", tmp_path / "p"), (project, outer, project)):
        here.mkdir(parents=True)
        monkeypatch.chdir(here)
        monkeypatch.setenv("DVC_ROOT", str(root))
        with paths.scratch("train") as scratch:
            assert scratch.folder.resolve().parent == expected / "data/.scratch"


@pytest.mark.parametrize("given", ["-1", "soon", "nan"])
def test_minutes_that_are_none_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", given)
    with pytest.raises(ValueError, match=f"PAG_CHECKPOINT_MINUTES = {given}: expected a number of minutes"):
        checkpoint_minutes()


STEPS = """
import time
from pathlib import Path
import click
from pag.foundation import interrupts
from pag.foundation.scratch import open_scratch
from stages.shared.command import run_stage
@click.command()
@click.argument("folder")
def main(folder):
    with open_scratch(Path(folder), "steps", {}) as scratch, interrupts.held():
        half = whole = 0
        print("ready", flush=True)
        while True:
            half += 1
            time.sleep(0.05)
            whole += 1
            if scratch.due():
                assert half == whole
                scratch.save("state", whole)
run_stage(main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_between_two_steps(number: int, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STEPS, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # if it has not ended
    assert process.returncode == code
    assert said.strip() == "interrupted: the same command goes on from here"
    with open_scratch(tmp_path, "steps", {}) as scratch:
        assert scratch.load("state") > 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_does_not_wait(first: int) -> None:
    with pytest.raises(Interrupted), interrupts.handled(), interrupts.held():
        signal.raise_signal(first)
        assert interrupts.waiting()
        signal.raise_signal(signal.SIGTERM)  # to all processes of a job, and passed on by their launcher
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it waited")
