"""Evaluations in processes of their own, beside the training.

AutoAttack on a few hundred small images leaves a GPU waiting for the next kernel most of the time. Another process
fills the gaps.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cifar10.schedule import Stage
from benchmarks.cifar10.settings import DATASET, ROOT


@dataclass(frozen=True)
class Ended:
    """A stage whose process ended, with its exit code and the last line it printed."""

    name: str
    code: int
    seconds: float
    last_line: str


class Lanes:
    """At most `count` stages at a time, in the order in which they are started.

    The processes work in the current folder, on the files that the stages have in it; `logs` gets what they print.
    """

    def __init__(self, count: int, logs: Path) -> None:
        self.logs = logs
        self._pool = ThreadPoolExecutor(count, "lane")
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._futures: dict[str, Future[Ended]] = {}
        self._stopped = False
        self._lock = threading.Lock()  # over _running and _stopped

    @property
    def busy(self) -> bool:
        return bool(self._futures)

    def __contains__(self, name: str) -> bool:
        """Whether a stage is running or waiting for a lane."""
        return name in self._futures

    def start(self, stage: Stage) -> None:
        assert stage.name not in self._futures, stage.name
        self._futures[stage.name] = self._pool.submit(self._run, stage)

    def ended(self, wait_for_one: bool = False) -> Iterator[Ended]:
        """The stages that ended since the last call; with `wait_for_one` not before there is one."""
        if wait_for_one:
            wait(self._futures.values(), return_when=FIRST_COMPLETED)
        for name in [name for name, future in self._futures.items() if future.done()]:
            yield self._futures.pop(name).result()

    def stop(self) -> dict[str, float]:
        """End what runs and forget what waits; the seconds that each ended stage had.

        What a stage goes on from later is written in one piece, so that it may be ended at any moment.
        """
        with self._lock:
            self._stopped = True
            running = dict(self._running)
            for process, _ in running.values():
                process.kill()
        self._pool.shutdown(cancel_futures=True)
        self._futures.clear()
        return {name: time.monotonic() - start for name, (_, start) in running.items()}

    def _run(self, stage: Stage) -> Ended:
        log = self.logs / f"{stage.name.replace('/', '-').replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        module = stage.command.callback.__module__  # type: ignore[union-attr]
        command = [sys.executable, "-m", module, DATASET, *stage.arguments]
        start = time.monotonic()
        with open(log, "wb") as file:
            with self._lock:
                if self._stopped:
                    return Ended(stage.name, -1, 0.0, "")
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
                self._running[stage.name] = process, start
            code = process.wait()
        with self._lock:
            del self._running[stage.name]
        lines = log.read_text(errors="replace").split("\n")
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return Ended(stage.name, code, time.monotonic() - start, last_line)
