"""What a machine does to a stage: no room, no permission, signals, another process at its work, rotten states."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import torch

from benchmarks.faults.bench import LOST, PASSED, SILENT, WRONG_MESSAGE, Bench, Case, Finding, last_line, refused, same
from benchmarks.faults.forks import Fork, run, stage
from benchmarks.faults.kills import STAGES
from benchmarks.faults.workspace import Workspace
from pag.foundation.scratch import CHECKPOINT_MINUTES

WRITERS = tuple(command for command in STAGES if "dropout" not in command)
NOBODY = 65534


def disk_cases() -> Iterator[Case]:
    expected = "one line that says what cannot be written, and the older artifacts as they were"
    for command in WRITERS:
        yield Case("disk", f"no file above 600 bytes, {command}", expected, partial(_unwritable, command, _limit_files))
    for command in WRITERS:
        yield Case("disk", f"read-only folder, {command}", expected, partial(_unwritable, command, _drop_rights))
    for command in ("train digits cnn sbg", "distill digits nn", "prepare digits"):
        yield Case("disk", f"full disk, {command}", expected, partial(_full_disk, command))


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))


def _drop_rights() -> None:
    if os.geteuid() == 0:  # whom no permission stops
        os.setegid(NOBODY)
        os.seteuid(NOBODY)


def _unwritable(command: str, arm: Callable[[], None], bench: Bench, workspace: Workspace) -> Finding:
    if arm is _drop_rights:
        for folder in [workspace.folder.parent, *workspace.folder.rglob("*")]:
            folder.chmod(0o555 if folder.is_dir() else 0o444)
    outcome = run(workspace.folder, command, arm)
    return _kept(refused(outcome, ("cannot be written", "Permission denied", "File too large")), bench, workspace)


def _full_disk(command: str, bench: Bench, workspace: Workspace) -> Finding:
    """On a tmpfs of the size of what is there already; where mounting is not allowed, nothing is tested."""
    disk = workspace.folder.with_name(f"{workspace.folder.name}-disk")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return Finding("not tested: mounting a tmpfs is not allowed here", PASSED)
    try:
        full = workspace.copy(disk / "work")
        room = os.statvfs(disk)
        with open(disk / "filler", "wb") as filler:
            filler.write(bytes(room.f_bavail * room.f_frsize - 8192))
        outcome = run(full.folder, command)
        return _kept(refused(outcome, ("No space left on device", "free")), bench, full)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _kept(found: Finding, bench: Bench, workspace: Workspace) -> Finding:
    after = same(workspace, bench, found.observed, unfinished=True)
    return found if after.verdict == PASSED else Finding(after.observed, LOST)


LONG = {"train_diffusion digits": ("diffusion.steps", 10**5), "train digits cnn sbg": ("classifier.epochs", 10**5)}


def signal_cases() -> Iterator[Case]:
    expected = "exit 130 or 143 within 10 s, the state kept, nothing recorded, no process left behind"
    for number in (signal.SIGINT, signal.SIGTERM):
        for command in (*LONG, "train digits cnn at-l2+sbg", "evaluate digits cnn sbg"):
            yield Case("signal", f"{number.name}, {command}", expected, partial(_signalled, number, command))
    name = "SIGTERM of all its processes as a worker starts, evaluate digits cnn sbg"
    yield Case("signal", name, expected, partial(_signalled, signal.SIGTERM, "evaluate digits cnn sbg", starting=True))
    expected = "one line that says what to do, no process left behind"
    for starting, when in ((False, ""), (True, " as it starts")):
        name = f"SIGKILL of a worker{when}, evaluate digits cnn sbg"
        yield Case("signal", name, expected, partial(_worker_killed, starting))


def _evaluating(workspace: Workspace, starting: bool) -> tuple[Fork, psutil.Process]:
    """As the first of two worker processes starts, or in the midst of attacks; and that worker."""
    workspace.set("evaluation.attack", {"version": "standard"})
    workspace.set("evaluation.images", 40)
    fork = Fork(workspace.folder, stage("evaluate digits cnn sbg", partial(torch.set_num_threads, 2)))
    stage_process = psutil.Process(fork.pid)
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not workers and time.monotonic() < deadline:
        time.sleep(0.002)
        workers = [child for child in stage_process.children() if "spawn_main" in " ".join(child.cmdline())]
    time.sleep(0 if starting else 6)
    return fork, workers[0]


def _worker_killed(starting: bool, bench: Bench, workspace: Workspace) -> Finding:
    fork, worker = _evaluating(workspace, starting)
    worker.kill()
    outcome = fork.wait()
    if outcome.orphans:
        return Finding(f"{last_line(outcome)}; a process was left behind", LOST)
    return _kept(refused(outcome, ("a worker process has died",)), bench, workspace)


def _signalled(
    number: signal.Signals, command: str, bench: Bench, workspace: Workspace, starting: bool = False
) -> Finding:
    """starting: sent to the whole group, as schedulers do, while a worker starts."""
    evaluating = command.startswith("evaluate")
    if evaluating:
        fork, _ = _evaluating(workspace, starting)
    else:
        workspace.set("diffusion.steps", 10**5)
        workspace.set("classifier.epochs", 10**5)
        fork = Fork(workspace.folder, stage(command))
        deadline = time.monotonic() + 60
        while not any((workspace.folder / "data/.scratch").glob("*/lock")) and time.monotonic() < deadline:
            time.sleep(0.1)  # until the stage has its scratch folder, however busy the machine is
        time.sleep(1.5)  # some steps
    fork.send(number, to_all=starting)
    sent = time.monotonic()
    outcome = fork.wait()
    seconds = time.monotonic() - sent
    observed = f"exit {outcome.code} after {seconds:.1f} s: {last_line(outcome)}"
    if outcome.orphans:
        return Finding(f"{observed}; a process was left behind", LOST)
    if outcome.code != 128 + number:
        return Finding(observed, SILENT if outcome.code == 0 else WRONG_MESSAGE)
    if seconds > 10 or "interrupted" not in last_line(outcome):
        return Finding(observed, WRONG_MESSAGE)
    kept = any((workspace.folder / "data/.scratch").glob("*/training"))
    if not evaluating and not kept:
        return Finding(f"{observed}; no state was kept", LOST)
    return _kept(Finding(observed, PASSED), bench, workspace)


def concurrent_cases() -> Iterator[Case]:
    for command in STAGES:
        yield Case("concurrent", f"{command}, twice", "both succeed, the same bytes", partial(_twice, command))


def _twice(command: str, bench: Bench, workspace: Workspace) -> Finding:
    forks = [Fork(workspace.folder, stage(command, _keep_every_step)) for _ in range(2)]
    outcomes = [fork.wait() for fork in forks]
    for outcome in outcomes:
        if outcome.code:
            return Finding(last_line(outcome), LOST)
    if left := [path for path in workspace.files() if ".scratch" in str(path) or ".partial-" in str(path)]:
        return Finding(f"{left[0]} is left", LOST)
    return same(workspace, bench, "both succeeded")


def _keep_every_step() -> None:
    os.environ[CHECKPOINT_MINUTES] = "0"


def scratch_cases() -> Iterator[Case]:
    """Each state of a killed stage, damaged before it goes on."""
    for command in ("train_diffusion digits", "train digits cnn sbg", "evaluate digits cnn sbg", "distill_sbg digits"):
        for damage in (_flip, _cut, _empty, _foreign):
            name = f"{damage.__name__[1:]} state of {command}"
            yield Case("scratch", name, "set aside in one line, the same bytes", partial(_rotten, command, damage))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    torch.save({"of": "another program"}, path)


def _rotten(command: str, damage: Callable[[Path], None], bench: Bench, workspace: Workspace) -> Finding:
    outcome = run(workspace.folder, command, _die_after_states)
    states = [
        path for path in (workspace.folder / "data/.scratch").rglob("*") if path.is_file() and path.name != "lock"
    ]
    states = [path for path in states if not path.name.endswith(".before")]
    if outcome.code >= 0 or not states:
        return Finding(f"nothing was kept: exit {outcome.code}, {last_line(outcome)}", LOST)
    for path in states:
        damage(path)
    outcome = run(workspace.folder, command)
    if outcome.code:
        return refused(outcome, ())
    if "is not taken up" not in outcome.out:
        return Finding("nothing was said", SILENT)
    return same(workspace, bench, "set aside, then the same bytes")


def _die_after_states() -> None:
    """Killed when a state is kept: the fifth one in trainings, elsewhere the first."""
    from pag.foundation import scratch

    os.environ[CHECKPOINT_MINUTES] = "0"
    save, kept = scratch.Scratch.save, []

    def counting(self: scratch.Scratch, name: str, state: object) -> None:
        save(self, name, state)
        kept.append(name)
        if len(kept) == (5 if sys.argv[0].startswith("train") else 1):
            os.kill(os.getpid(), signal.SIGKILL)

    scratch.Scratch.save = counting  # type: ignore[method-assign]
