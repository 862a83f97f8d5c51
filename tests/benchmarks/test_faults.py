"""The fault bench finds nothing."""

import json
import subprocess
import sys

import pytest

from benchmarks.faults.cases import ALL
from benchmarks.miniature import ROOT


def run(*options: str) -> tuple[list[dict[str, str]], dict[str, int]]:
    command = [sys.executable, "-m", "benchmarks.faults", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *cases, totals = map(json.loads, done.stdout.splitlines())
    return cases, totals


def test_what_the_issue_asks_for_is_there() -> None:
    counts = {kind: len(list(make())) for kind, make in ALL.items()}
    assert counts["kill"] >= 30 and counts["damage"] >= 60 and counts["parameter"] >= 30
    assert min(counts.values()) >= 8


@pytest.mark.slow
def test_a_few_cases_of_each_kind() -> None:
    cases, totals = run("--fast", "--seed", "1")
    assert [case for case in cases if case["verdict"] != "passed"] == []
    assert totals["cases"] == len(cases) and totals["lost"] == totals["silent"] == 0
