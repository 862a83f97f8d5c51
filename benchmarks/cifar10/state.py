"""What the run remembers between calls, and the clocks of a call."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pag.checkpoint import save_json

STOPPING_SECONDS = 15.0  # of a call are kept for writing the results
ALARM_AGAIN = 5.0  # seconds until the next alarm: an exception is lost where Python runs finalisers


class OutOfTime(BaseException):
    """The call's time is over. Not an Exception, so that nothing between a stage and the run takes it for an error."""


class Clock:
    """The seconds left to this call and to the whole run, without those kept for the end."""

    def __init__(self, call_seconds: float, run_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.start = now()
        self.run_seconds = run_seconds - STOPPING_SECONDS
        self.call_seconds = min(call_seconds - STOPPING_SECONDS, self.run_seconds)

    @property
    def used(self) -> float:
        return self.now() - self.start

    @property
    def call_left(self) -> float:
        return self.call_seconds - self.used

    @property
    def run_left(self) -> float:
        return self.run_seconds - self.used

    @property
    def is_last_call(self) -> bool:
        return self.run_seconds - self.call_seconds < 60

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise OutOfTime inside the block, wherever it is, when the call's seconds are over."""
        if self.call_left <= 0:
            raise OutOfTime
        previous = signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, self.call_left, ALARM_AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _raise(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


class State:
    """state.json: written after every change, so that a killed call loses the stage it was in and nothing else.

    stages: finished stages with seconds and peak memory. partial: seconds that interrupted stages took so far.
    failed: stages that ended in an error in this call; another call, in a fresh process, tries them again.
    decisions: what was measured and planned. notes: what was given up, in words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.used_seconds: float = content.get("used_seconds", 0.0)  # by earlier calls
        self.stages: dict[str, dict[str, Any]] = content.get("stages", {})
        self.partial: dict[str, float] = content.get("partial", {})
        self.failed: list[str] = []
        self.decisions: dict[str, Any] = content.get("decisions", {})
        self.notes: list[str] = content.get("notes", [])

    def save(self, clock: Clock) -> None:
        content = {
            "used_seconds": self.used_seconds + clock.used,
            "stages": self.stages,
            "partial": self.partial,
            "decisions": self.decisions,
            "notes": self.notes,
        }
        save_json(self.path, content)

    def note(self, text: str) -> bool:
        """Keep a line on what was given up; False if it is known already."""
        if text in self.notes:
            return False
        self.notes.append(text)
        return True
