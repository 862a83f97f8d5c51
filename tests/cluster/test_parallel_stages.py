"""Stages in several processes: one writes and prints, one error line ends all, and another number of them goes on."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from ranks import together
from safetensors.torch import load_file
from test_parallel_training import Case, train
from torch import Tensor, nn
from torch.distributed import TCPStore

from benchmarks.faults.forks import Fork, Outcome, run
from benchmarks.faults.workspace import Workspace
from benchmarks.miniature import ROOT
from pag.foundation import interrupts
from pag.foundation.processes import joined
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.training.batch import Batch
from stages.shared import paths
from stages.shared.command import run_stage

LAUNCHER = "torchrun --standalone --nproc-per-node 2"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.create(tmp_path_factory.mktemp("prepared") / "work")
    assert run(workspace.folder, "prepare digits").code == 0
    return workspace


def in_two(workspace: Workspace, command: str) -> list[Outcome]:
    """What becomes of a stage that two processes share."""
    name, *arguments = command.split()
    main = importlib.import_module(f"stages.{name}").main

    def work() -> None:
        sys.argv = [name, *arguments]
        run_stage(main, shared=True)

    return together(workspace.folder, 2, work)


def test_no_process_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    """It could not end them, and one that waits for the others would wait for days."""

    def rank() -> None:
        os.setsid()
        os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        with joined():
            pass

    def launcher() -> None:
        if (child := os.fork()) == 0:
            rank()
        (tmp_path / "rank").write_text(str(child))
        os.waitpid(child, 0)

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    (tmp_path / "work").mkdir()
    fork = Fork(tmp_path / "work", launcher)
    deadline = time.monotonic() + 60
    while store.num_keys() < 2 and time.monotonic() < deadline:
        time.sleep(0.1)  # until the process waits for the others
    started = psutil.Process(int((tmp_path / "rank").read_text()))
    time.sleep(1)
    assert started.is_running()
    fork.send(signal.SIGKILL)
    fork.wait()
    assert psutil.wait_procs([started], timeout=30)[1] == []


def test_the_launcher_is_told_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append([Path(path).name, *arguments[1:]]))
    monkeypatch.setattr(sys, "argv", ["…/stages/train.py", "digits", "cnn", "vanilla"])
    monkeypatch.setitem(sys.modules, "__main__", importlib.import_module("stages.train"))
    for launcher in ("", "torchrun --nnodes 2 --rdzv-endpoint 'a b:1'", "torchrum -x"):
        monkeypatch.setenv("PAG_LAUNCHER", launcher)
        with suppress(SystemExit):
            run_stage(lambda standalone_mode: None, shared=True)
    run_stage(lambda standalone_mode: None)  # a stage for one process is not launched
    options = ["--nnodes", "2", "--rdzv-endpoint", "a b:1"]
    assert started == [["torchrun", *options, "-m", "stages.train", "digits", "cnn", "vanilla"]]
    assert "error: PAG_LAUNCHER = torchrum -x: there is no program torchrum" in capsys.readouterr().err


@pytest.mark.slow
def test_the_launcher_starts_a_stage(prepared: Workspace, tmp_path: Path) -> None:
    one, two = prepared.copy(tmp_path / "one/work"), prepared.copy(tmp_path / "two/work")
    assert run(one.folder, "train digits cnn vanilla").code == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PAG_LAUNCHER": LAUNCHER}
    command = [sys.executable, "-m", "stages.train", "digits", "cnn", "vanilla"]
    done = subprocess.run(command, cwd=two.folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("vanilla: validation accuracy") == 1  # one of the two prints
    assert set(two.files()) == set(one.files())  # no scratch is left either
    weights = [load_file(of.folder / "data/digits/classifiers/cnn/vanilla/weights.safetensors") for of in (one, two)]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-4, atol=1e-5), name


def test_two_processes_leave_the_files_of_one(prepared: Workspace, tmp_path: Path) -> None:
    """After the trainings, whose weights differ in their last digits, every byte but the name of the hardware."""
    two = prepared.copy(tmp_path / "two/work")
    for command in ("train_diffusion digits", "distill digits nn", "train digits cnn vanilla"):
        outcomes = in_two(two, command)
        assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
        assert outcomes[1].out == outcomes[1].err == ""
    one = two.copy(tmp_path / "one/work")
    for command in ("distill digits nn", "distill_sbg digits", "evaluate digits cnn vanilla"):
        assert run(one.folder, command).code == 0
        assert [outcome.code for outcome in in_two(two, command)] == [0, 0]
    files, expected = two.files(), one.files()
    found, reference = (json.loads(of.pop(paths.record("digits", "cnn", "vanilla"))) for of in (files, expected))
    assert found.pop("hardware") == f"{reference.pop('hardware')}, 2 processes"
    assert found.pop("seal") != reference.pop("seal") and found == reference
    assert files == expected


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "error: unknown architecture"),  # all find it
        ({"classifier.batch_size": 1}, "error: a batch of 1 for 2 processes: expected at least one image for each"),
        ({"classifier.lr": 10.0}, "error: "),
    ],
)
def test_an_error_is_one_line_and_ends_all(
    change: dict[str, float], line: str, prepared: Workspace, tmp_path: Path
) -> None:
    workspace = prepared.copy(tmp_path / "work")
    for path, value in change.items():
        workspace.set(path, value)
    outcomes = in_two(workspace, f"train digits {'cnn' if change else 'unheard-of'} vanilla")
    said = [line for outcome in outcomes for line in outcome.err.splitlines() if line]
    assert len(said) == 1 and said[0].startswith(line), said
    assert all(outcome.code == 1 for outcome in outcomes)
    assert workspace.files() == prepared.files()


def test_one_rank_that_is_killed_ends_all(prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if os.environ.get("RANK") == "1":
            os._exit(9)
        return cross_entropy(model, batch)

    monkeypatch.setattr("pag.objectives.baselines.build.cross_entropy", killed)
    first, second = in_two(prepared.copy(tmp_path / "work"), "train digits cnn vanilla")
    assert second.code == 9 and first.code == 1
    assert first.err.startswith("error: another process of the 2 is gone") and first.err.count("\n") == 1


def dies_at(step: int | None) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    calls: list[int] = []

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return cross_entropy(model, batch)

    return objective


@pytest.mark.parametrize("step", [2, 4])
def test_a_training_goes_on_in_another_number_of_processes(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process until a step of the first or second epoch, then two until the fifth, then one."""
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        train(Case(dies_at(step)), scratch)

    def of_two() -> None:
        with joined():
            train(Case(dies_at(6 - step)), scratch)

    assert all(outcome.code != 0 for outcome in together(tmp_path / "work", 2, of_two))
    calls = dies_at(None)
    resumed, whole = train(Case(calls), scratch), train(Case())
    assert len(calls.__closure__[0].cell_contents) == 2  # steps 5 and 6
    for key, value in whole.items():
        assert torch.allclose(resumed[key], value, rtol=1e-4, atol=1e-6), key


def test_a_signal_is_kept_after_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a job's time; no minute has passed. The other rank waits in the next step by then."""
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "1000")
    scratch, calls = tmp_path / "scratch", []

    def signalled(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == 2 and os.environ.get("RANK") == "0":
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(model, batch)

    def of_two() -> None:
        with interrupts.handled(), joined():
            train(Case(signalled), scratch)

    assert all(outcome.code != 0 for outcome in together(tmp_path / "work", 2, of_two))
    train(Case(signalled), scratch)
    assert len(calls) == 6 - 2
