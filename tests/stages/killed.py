"""Runs stages again and again, killed at seeded moments, until each succeeds; a script of test_kill.py.

    python killed.py <folder> <seed> <kills> <stage,argument,…> …

Every try is a fork of this process, which has only imported the stages. It dies at one of its next writes (before or
after a flush or a rename), or by a timer, wherever it is then. As DVC does it, the outs of a stage are removed before
each try. The last line is JSON: how often each stage was killed, and which said that it goes on from an earlier run.
"""

import json
import random
import sys
from functools import partial
from pathlib import Path

import torch._dynamo  # noqa: F401 - an optimizer's first step loads it, for seconds: once, not in every fork

from benchmarks.faults.forks import die_after, die_at_write, nothing, run
from benchmarks.faults.workspace import Workspace


def main() -> None:
    folder, seed, kills, *stages = sys.argv[1:]
    workspace, rng = Workspace(Path(folder)), random.Random(int(seed))
    killed: dict[str, int] = {}
    went_on: list[str] = []
    for stage in stages:
        before, killed[stage], code = set(workspace.outs()), 0, -1
        while code < 0:
            at_write, count, seconds = rng.random() < 0.7, rng.randint(1, 8), rng.uniform(0.002, 0.3)
            fault = partial(die_at_write, count) if at_write else partial(die_after, seconds)
            outcome = run(workspace.folder, stage.replace(",", " "), fault if killed[stage] < int(kills) else nothing)
            code = outcome.code
            if code < 0:
                killed[stage] += 1
                for path in set(workspace.outs()) - before:
                    (workspace.folder / path).unlink()
        if code != 0:
            sys.exit(f"{stage} ended with {code}: {outcome.err}")
        if "goes on after" in outcome.out:
            went_on.append(stage)
    print(json.dumps([killed, went_on]))


if __name__ == "__main__":
    main()
