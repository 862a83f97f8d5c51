"""SIGKILL at seeded moments, then the same command again: the artifact must be the uninterrupted one's, to the byte."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults.bench import DROPOUT, LOST, TRACEBACK, Bench, Case, Finding, last_line, same
from benchmarks.faults.forks import die_after, die_at_write, nothing, run
from benchmarks.faults.workspace import Workspace
from pag.foundation.atomic import remove
from pag.foundation.scratch import CHECKPOINT_MINUTES

# command → the outs that DVC removes before it runs the stage
STAGES: dict[str, tuple[str, ...]] = {
    "prepare digits": ("data/digits/images",),
    "train_diffusion digits": ("data/digits/diffusion", "results/arrays/digits/diffusion.npz"),
    "distill digits nn": ("data/digits/gradients/nn.zarr",),
    "distill_sbg digits": ("data/digits/gradients/sbg.zarr", "data/digits/gradients/heldout.zarr"),
    "train digits cnn vanilla": ("data/digits/classifiers/cnn/vanilla",),
    "train digits cnn at-l2": ("data/digits/classifiers/cnn/at-l2",),
    "train digits cnn sbg": ("data/digits/classifiers/cnn/sbg",),
    "train digits cnn at-l2+sbg": ("data/digits/classifiers/cnn/at-l2+sbg",),
    f"train digits {DROPOUT} sbg": (f"data/digits/classifiers/{DROPOUT}/sbg",),
    "evaluate digits cnn sbg": ("results/records/digits/cnn/sbg.json", "results/arrays/digits/large_eps/cnn/sbg.npz"),
}


def cases(rounds: int) -> Iterator[Case]:
    for number in range(rounds):
        for command, outs in STAGES.items():
            expected = "the bytes of an uninterrupted run, and nothing else"
            yield Case("kill", f"{command}, {number}", expected, partial(_killed, command, outs))


def _killed(command: str, outs: tuple[str, ...], bench: Bench, workspace: Workspace) -> Finding:
    """Twice at a write, or wherever a timer finds it; every step is kept, so that a state may be in the making."""
    killed, longest = 0, 1.0
    for _ in range(20):
        _remove(workspace, outs)
        at_write, count, seconds = bench.rng.random() < 0.5, bench.rng.randint(1, 12), bench.rng.uniform(0.01, longest)
        fault = partial(die_at_write, count) if at_write else partial(die_after, seconds)
        outcome = run(workspace.folder, command, partial(_every_step, fault if killed < 2 else nothing))
        if outcome.code > 0:
            verdict = TRACEBACK if "Traceback" in outcome.err else LOST
            return Finding(f"after {killed} kills: {last_line(outcome)}", verdict)
        if killed == 2:
            break
        killed += outcome.code < 0
        longest = min(longest, outcome.seconds)
    left = [path for path in workspace.files() if ".partial-" in str(path) or ".scratch" in str(path)]
    if left:
        return Finding(f"{killed} kills leave {left[0]}", LOST)
    return same(workspace, bench, f"killed {killed} times, then the same bytes")


def _every_step(fault: Callable[[], None]) -> None:
    os.environ[CHECKPOINT_MINUTES] = "0"
    fault()


def _remove(workspace: Workspace, outs: tuple[str, ...]) -> None:
    for out in outs:
        remove(workspace.folder / Path(out))
