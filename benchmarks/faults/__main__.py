"""Faults injected into real runs on digits: is anything lost, is anything silently wrong?

    python -m benchmarks.faults [--json] [--seed 0] [--only kill …]

One line a case (with --json one object), and as the last line how many cases there were, how many passed, how many lost
something and how many took something wrong without a word.
"""

import json as json_format
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: forks of a process with threads hang

import click

from benchmarks.faults.bench import LOST, PASSED, SILENT, Bench
from benchmarks.faults.cases import KINDS, all_cases


@click.command()
@click.option("--json", is_flag=True, help="one JSON object a case and on the last line")
@click.option("--seed", default=0, help="of the moments and of what is damaged")
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="a kind of fault; may be repeated")
@click.option("--fast", is_flag=True, help="a few cases of each kind, under two minutes")
def main(json: bool, seed: int, only: tuple[str, ...], fast: bool) -> None:
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), seed)
        for case in all_cases(only, fast):
            start, workspace = time.perf_counter(), bench.copy()
            found = case.find(bench, workspace)
            bench.remove(workspace)
            verdicts[found.verdict] += 1
            result = {"kind": case.kind, "name": case.name, "expected": case.expected, **vars(found)}
            result["seconds"] = round(time.perf_counter() - start, 2)
            short = f"{found.verdict:<13} {case.kind}: {case.name}: {found.observed}"
            click.echo(json_format.dumps(result) if json else short)
    totals = {"cases": verdicts.total(), "passed": verdicts[PASSED], "lost": verdicts[LOST], "silent": verdicts[SILENT]}
    click.echo(json_format.dumps(totals))


if __name__ == "__main__":
    main()
