"""Seconds and peak memory of every stage of the default run, through DVC, in a temporary copy.

``python -m benchmarks.pipeline`` measures the miniature, which says where the overhead is; ``--full`` the default run.
"""

import json as json_format
import os
import tempfile
import time
from pathlib import Path

import click

from benchmarks.harness import report
from benchmarks.miniature import copy_repository, dvc, shrink
from stages.shared.command import USAGE_LOG


@click.command()
@click.option("--full", is_flag=True, help="the default run instead of the miniature (about a quarter of an hour)")
@click.option("--json", is_flag=True, help="one JSON object on the last line")
def main(full: bool, json: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name) / "copy", Path(name) / "usage"
        folder.mkdir()
        copy_repository(folder)
        if not full:
            shrink(folder, ["digits"], {})
        os.environ[USAGE_LOG] = str(log)
        start = time.perf_counter()
        dvc(folder, "repro")
        total = time.perf_counter() - start
        start = time.perf_counter()
        dvc(folder, "repro")
        up_to_date = time.perf_counter() - start
        usage = [json_format.loads(line) for line in log.read_text().splitlines()]
    stages = {
        f"{row['module']} {row['stage']}".strip(): {"seconds": row["seconds"], "peak_mib": row["peak_mib"]}
        for row in usage
    }
    results = {
        "run": "default" if full else "miniature",
        "seconds": round(total, 1),
        "seconds_inside_stages": round(sum(row["seconds"] for row in usage), 1),
        "seconds_when_up_to_date": round(up_to_date, 1),
        "peak_mib": max(row["peak_mib"] for row in usage),
        "stages": stages,
    }
    report("pipeline", results, json)


if __name__ == "__main__":
    main()
