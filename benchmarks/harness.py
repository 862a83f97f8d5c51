"""What all benchmarks share: medians of alternating repeats, a description of the machine, table or JSON output."""

import json as json_format
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pag.foundation.allocator import keep_freed_memory


def measure(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of one call of each candidate.

    Candidates take turns, in reversed order every second time, so that a machine that slows down or speeds up treats
    them alike. A first round, not counted, warms caches, unless the caller has done so. `clock` may be
    time.process_time where a busy machine would blur the wall clock; work that other threads do then counts in full.
    Memory is kept as in the stages.
    """
    keep_freed_memory()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(0 if warm_up else 1, repeats + 1):
        order = list(candidates.items())
        for name, call in reversed(order) if repeat % 2 else order:
            start = clock()
            call()
            if repeat > 0:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    about: dict[str, str | int] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def report(name: str, results: Mapping[str, Any], json: bool) -> None:
    """Print `results`, numbers nested by keys: a table, or one JSON object on the last line of standard output."""
    if json:
        print(json_format.dumps({"benchmark": name, **results, "machine": machine()}), flush=True)
        return
    table = Table("measure", "value", title=name, caption=", ".join(f"{k} {v}" for k, v in machine().items()))
    for key, value in _flat(results):
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


def _flat(results: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in results.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
