"""SIGINT and SIGTERM: they raise `Interrupted`, at once or, where a loop asks for it, between two of its steps.

In the middle of a step weights, statistics and counters do not belong together, so nothing can be saved there. A loop
runs under `held` and looks at `waiting` after each step. SIGINT does not wait a second time; SIGTERM says nothing new
then, since a scheduler sends it to a launcher and to its processes, and the launcher passes it on.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_holders = 0  # loops that are being held, one inside the other
_received: int | None = None  # while signals are handled
_ended_by: int | None = None  # what was received when they last were


class Interrupted(KeyboardInterrupt):
    """The process was told to stop."""


@contextmanager
def handled() -> Iterator[None]:
    """Have the signals raise `Interrupted`, also where the process was started with SIGINT ignored (`stage &`)."""
    global _received, _ended_by  # noqa: PLW0603 - signals are sent to the process
    _received = _ended_by = None
    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes signals in the main thread alone
        return
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _ended_by, _received = _received, None


@contextmanager
def held() -> Iterator[None]:
    """Let a signal wait until `waiting` is acted upon or the block ends."""
    global _holders  # noqa: PLW0603
    _holders += 1
    try:
        yield
    finally:
        _holders -= 1
    stop_if_waiting()


def waiting() -> bool:
    """Whether a signal has come."""
    return _received is not None


def stop_if_waiting() -> None:
    if waiting():
        raise Interrupted


def exit_code() -> int:
    """What a shell expects of a process whose `handled` block a signal ended: 130 or 143."""
    return 128 + (_ended_by or _received or signal.SIGINT)


def _receive(number: int, frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, number
    if first and not _holders:
        raise Interrupted
    if not first and number == signal.SIGINT:  # the user insists
        raise Interrupted
