"""How a stage says how far it is: a live line on a terminal, elsewhere a plain one every half minute and at the end."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as LiveLine

PLAIN_SECONDS = 30.0  # between two plain lines
LIVE_SECONDS = 0.5


class Progress:
    """What a loop tells of itself, at no cost: it is read when a line is due, and a thread sees to that, so that a slow
    step is not a silent one."""

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.figures = 0, ""
        self.start = time.monotonic()
        self._first: tuple[int, float] | None = None  # what was done when it first reported, by an earlier run too

    def at(self, done: int, total: int | None = None, figures: str | None = None) -> None:
        """done: of `total`, both in units. figures: what else to show, such as the loss; None: as before."""
        if self._first is None:
            self._first = done, time.monotonic()
        self.done = done
        self.total = self.total if total is None else total
        self.figures = self.figures if figures is None else figures

    def advance(self, count: int) -> None:
        self.at(self.done + count)

    def goes_on(self, done: int) -> None:
        """An earlier run has left `done` units, and this one goes on after them."""
        self.at(done)
        _say(f"{self.what}: goes on after {done:,} {self.unit}")

    def line(self, ended: bool = False) -> str:
        """'diffusion on digits: 120 of 1,000 steps, 3.4/s, 4 min 19 s left, loss 0.231'."""
        parts = [] if self.total is None else [f"{self.done:,} of {self.total:,} {self.unit}"]
        now = time.monotonic()
        first, since = self._first or (0, now)
        rate = (self.done - first) / (now - since) if self.done > first else 0.0
        if rate:
            parts.append(f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each")
        if ended or not rate or self.total is None or self.done >= self.total:
            parts.append(f"{_duration(now - self.start)}{'' if ended else ' so far'}")
        else:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        return f"{self.what}: {', '.join([*parts, self.figures] if self.figures else parts)}"


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
    """Say how far `what` is until the block ends. total: of units; None where nothing is counted."""
    told = Progress(what, total, unit)
    ended = threading.Event()
    live = LiveLine(SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"), transient=True)
    task = live.add_task(what, total=total)

    def tell() -> None:
        if live.console.is_terminal:
            live.update(task, total=told.total, completed=told.done, description=told.line())
        else:
            _say(told.line())

    def keep_telling() -> None:
        while not ended.wait(LIVE_SECONDS if live.console.is_terminal else PLAIN_SECONDS):
            tell()

    teller = threading.Thread(target=keep_telling, daemon=True)
    if live.console.is_terminal:
        live.start()
    teller.start()
    try:
        yield told
    finally:
        ended.set()
        teller.join()
        if live.console.is_terminal:
            live.stop()
    if told.total is not None or time.monotonic() - told.start > PLAIN_SECONDS:
        _say(told.line(ended=True))


def _say(line: str) -> None:
    print(line, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
