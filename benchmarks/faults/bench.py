"""What the cases share: one miniature run, and how what a stage did is judged."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.faults.forks import Outcome, run
from benchmarks.faults.workspace import Workspace
from pag.classifiers import ARCHITECTURES

PASSED, LOST, SILENT, TRACEBACK, WRONG_MESSAGE = "passed", "lost", "silent", "traceback", "wrong message"

DROPOUT = "cnn-dropout"  # no architecture of the paper that takes 8×8 images draws anything while it is trained
RUNS = ("vanilla", "at-l2", "cm", "nn", "sbg", "at-l2+sbg")
CHAIN = (
    "validate",
    "prepare digits",
    "prepare_toy",
    "train_diffusion digits",
    "distill digits cm",
    "distill digits nn",
    "distill_sbg digits",
    *(f"train digits cnn {name}" for name in RUNS),
    f"train digits {DROPOUT} sbg",
    *(f"evaluate digits cnn {name}" for name in RUNS),
    "toy",
    "report",
)


@dataclass(frozen=True)
class Finding:
    observed: str
    verdict: str


class Bench:
    """One run of every stage in `folder`; each case works in a copy of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self._copies = 0

    @cached_property
    def base(self) -> Workspace:
        ARCHITECTURES[DROPOUT] = "benchmarks.faults.dropout:dropout_cnn"
        workspace = Workspace.create(self.folder / "base")
        lists = {"heuristics": ["cm", "nn"], "realizations": ["cm", "nn", "sbg"], "baselines": ["vanilla", "at-l2"]}
        for key, value in {**lists, "point_sets": ["toy"]}.items():
            workspace.set(key, value, "params.yaml")
        workspace.set("heuristics.computed", ["cm"])
        workspace.set("diffusion.dropout", 0.3)
        workspace.set("diffusion.steps", 12)
        workspace.set("classifier.epochs", 3)
        for command in CHAIN:
            outcome = run(workspace.folder, command)
            if outcome.code:
                raise RuntimeError(f"the uninterrupted '{command}' failed: {outcome.err}")
        return workspace

    def copy(self) -> Workspace:
        self._copies += 1
        return self.base.copy(self.folder / f"case-{self._copies}")

    def remove(self, workspace: Workspace) -> None:
        shutil.rmtree(workspace.folder, ignore_errors=True)


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    expected: str
    find: Callable[[Bench, Workspace], Finding]  # in a copy of the base


def last_line(outcome: Outcome) -> str:
    lines = outcome.err.strip().splitlines()
    return lines[-1] if lines else f"exit {outcome.code}"


def refused(outcome: Outcome, mentions: Sequence[str]) -> Finding:
    """One line with one of `mentions`, and an exit that is no success."""
    if "Traceback" in outcome.err or outcome.code < 0:
        return Finding(f"exit {outcome.code}: {last_line(outcome)}", TRACEBACK)
    if outcome.code == 0:
        return Finding("accepted", SILENT)
    line = last_line(outcome)
    errors = [line for line in outcome.err.splitlines() if line.lower().startswith("error")]
    named = any(mention in line for mention in mentions)
    return Finding(line, PASSED if len(errors) == 1 and named else WRONG_MESSAGE)


def same(workspace: Workspace, bench: Bench, observed: str, unfinished: bool = False) -> Finding:
    """Whether the artifacts are those of the uninterrupted run, to the byte.

    unfinished: a stage did not end, and curves are drawn while one runs.
    """
    expected, found = bench.base.outs(), workspace.outs()
    if unfinished:
        expected, found = (
            {path: content for path, content in outs.items() if "curves" not in path.parts}
            for outs in (expected, found)
        )
    if missing := sorted(set(expected) - set(found)):
        return Finding(f"{observed}; missing: {missing[0]}", LOST)
    differing = sorted(str(path) for path in {*expected, *found} if expected.get(path) != found.get(path))
    return Finding(f"{observed}; other bytes: {differing[0]}", SILENT) if differing else Finding(observed, PASSED)
