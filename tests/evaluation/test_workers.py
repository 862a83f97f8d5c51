"""Attacks in several processes: kept one by one, in the order of the jobs, and no process outlives its evaluation."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import torch
from linear_truth import linear_classifier

from pag.evaluation import standard, workers
from pag.evaluation.standard import ATTACKS, SURVIVED, Budget, Job, attack
from pag.threat.threat_model import ThreatModel
from stages.shared.command import run_stage


def problem(count: int = 12, eps: float = 0.05) -> tuple[torch.nn.Module, Job]:
    classifier = linear_classifier(5, 36).eval().requires_grad_(False)
    images = 0.5 + 0.1 * torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = classifier(images).argmax(1)
    return classifier, Job(ThreatModel("Linf", eps), images, labels, 5, 3, ATTACKS, Budget())


@pytest.mark.parametrize("eps", [0.001, 0.01, 0.02, 0.05])
@pytest.mark.usefixtures("few_iterations")
def test_attacks_one_by_one_give_what_they_give_together(eps: float, tmp_path: Path) -> None:
    classifier, job = problem(eps=eps)
    together = attack(classifier, job)
    with workers.runner(classifier, 1, tmp_path) as run:
        ((_, apart),) = run([job])
    assert torch.equal(apart.broken_by, together.broken_by) and torch.equal(apart.x_adv, together.x_adv)
    assert apart.warnings == together.warnings
    left = together.broken_by == SURVIVED
    if left.any():
        assert apart.nearest is not None and together.nearest is not None
        assert torch.equal(apart.nearest.distance[left], together.nearest.distance[left])
        assert torch.equal(apart.nearest.x_adv[left], together.nearest.x_adv[left])


@pytest.mark.usefixtures("few_iterations")
def test_a_finished_attack_is_kept_and_a_damaged_one_runs_again(tmp_path: Path, monkeypatch) -> None:
    classifier, job = problem(eps=0.01)
    ran: list[str] = []

    def counted(model: torch.nn.Module, part: Job) -> standard.Outcome:
        ran.extend(part.attacks)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return attack(model, part)

    monkeypatch.setattr(workers, "attack", counted)
    with pytest.raises(KeyboardInterrupt), workers.runner(classifier, 1, tmp_path) as run:
        list(run([job]))
    with workers.runner(classifier, 1, tmp_path) as run:
        ((_, resumed),) = run([job])
    assert ran == ["apgd-ce", "apgd-t", "fab-t", "fab-t", "square"]
    assert torch.equal(resumed.broken_by, attack(classifier, job).broken_by)
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    with workers.runner(classifier, 1, tmp_path) as run:
        list(run([job]))
    assert ran[5:] == list(ATTACKS)


@pytest.mark.parametrize(("threads", "processes", "each"), [(8, 3, 2), (2, 2, 1), (1, 2, 1)])
def test_the_workers_share_the_threads(threads: int, processes: int, each: int, monkeypatch) -> None:
    started: list[tuple[int, int]] = []

    class Pool:
        def __init__(self, count: int, *_: object, initargs: tuple[object, object, int], **__: object) -> None:
            started.append((count, initargs[2]))

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with workers.runner(linear_classifier(5, 36), processes, None):
        assert started == [(processes, each)]


class Deadly(torch.nn.Module):
    """Ends the worker process that it is in, as the system does when there is no memory left."""

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        os._exit(9)


def test_a_worker_that_dies_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, job = problem()

    def command(standalone_mode: bool) -> None:
        with workers.runner(Deadly(), 2, None) as run:
            list(run([job]))

    with pytest.raises(SystemExit) as stop:
        run_stage(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and line.startswith("error: a worker process has died")
    assert "OMP_NUM_THREADS=1" in line and "batch_size" in line


def test_a_worker_that_dies_as_it_starts_is_no_hang() -> None:
    """A model that no pipe holds (64 KiB) waits for nobody to read it."""
    _, job = problem()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1000), torch.nn.Linear(1000, 5))
    model.eval().requires_grad_(False)
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if any("spawn_main" in word for word in child.cmdline()):
                        child.kill()
                        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(BrokenExecutor), workers.runner(model, 2, None) as run:
        list(run([job, job]))
    assert killed.is_set()


class Interrupting(torch.nn.Module):
    """Ends the worker process that it is in when that is in the midst of a message which no pipe holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def send(self: Connection, buffer: bytes, write: object = os.write) -> None:
            view = memoryview(buffer)
            if len(view) > 65536:
                os.write(self.fileno(), view[:40000])
                os._exit(9)
            while view:
                view = view[os.write(self.fileno(), view) :]

        Connection._send = send  # type: ignore[method-assign]
        return x.flatten(1)[:, :5]


def test_no_outcome_waits_for_the_rest_of_a_message() -> None:
    """A worker that dies while it writes to a full pipe would leave this process reading for ever."""
    images = torch.rand(1000, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = images.flatten(1)[:, :5].argmax(1)
    job = Job(ThreatModel("Linf", 0.01), images, labels, 5, 3, ("apgd-ce",), Budget(("apgd-ce",), 2))
    with workers.runner(Interrupting(), 2, None) as run:
        ((_, outcome),) = run([job])
    assert outcome.x_adv.nbytes > 65536
    assert torch.equal(outcome.broken_by, attack(Interrupting(), job).broken_by)


SLOW = """
import sys, time
import torch
from pathlib import Path
from pag.evaluation.evaluate import evaluate
import click
from stages.shared.command import run_stage

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(36, 5)
    def forward(self, x):
        time.sleep(0.005)
        return self.layer(x.flatten(1))

@click.command()
@click.argument("folder")
def main(folder):
    torch.manual_seed(0)
    model, x = Slow(), 0.5 + 0.1 * torch.randn(6, 1, 6, 6)
    evaluate(model, x, model(x).argmax(1), {"L2": [0.001, 0.002], "Linf": [0.001]}, processes=2, cache=Path(folder))

if __name__ == "__main__":
    run_stage(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_evaluation(number: int, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "kept")], env=environment)
    tree = psutil.Process(process.pid)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "kept").glob("*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)  # until a first attack is finished; the logits are kept before
    children = tree.children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    _, alive = psutil.wait_procs(children, timeout=60)  # an orphan would wait for ever
    assert not alive
