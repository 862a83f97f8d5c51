"""Stages in forks of this process, which has only imported them: a killed one leaves nothing but files."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.shared.command import run_stage

LIMIT = 600  # seconds after which a case counts as hanging: beside other work, workers take minutes to start


@dataclass(frozen=True)
class Outcome:
    code: int  # exit code, or minus the signal
    out: str
    err: str
    seconds: float
    orphans: bool  # processes of its group that outlived it


class Fork:
    """`work` in a process of its own, with `folder` as its working folder; its output goes to files beside it."""

    def __init__(self, folder: Path, work: Callable[[], None]) -> None:
        self.folder, self.began = folder, time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_child(work)

    def _be_child(self, work: Callable[[], None]) -> None:
        code = 1
        try:
            os.setsid()
            for descriptor, path in ((1, self._log("out")), (2, self._log("err"))):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            os.chdir(self.folder)
            work()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _log(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{os.getpid() if self.pid == 0 else self.pid}.{name}")

    def send(self, number: int, to_all: bool = False) -> None:
        (os.killpg if to_all else os.kill)(self.pid, number)

    def wait(self) -> Outcome:
        limit = time.monotonic() + LIMIT
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > limit:
                os.killpg(self.pid, signal.SIGKILL)
                limit += LIMIT
            time.sleep(0.002)
        seconds = time.monotonic() - self.began
        orphans = self._group_lives()
        if orphans:
            os.killpg(self.pid, signal.SIGKILL)
        out, err = (self._log(name).read_text(errors="replace") for name in ("out", "err"))
        return Outcome(os.waitstatus_to_exitcode(ended[1]), out, err, seconds, orphans)

    def _group_lives(self) -> bool:
        """A moment is granted: a resource tracker ends when it sees its pipe closed."""
        for _ in range(100):
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.02)
        return True


def nothing() -> None:
    pass


def stage(command: str, arm: Callable[[], Any] = nothing) -> Callable[[], None]:
    """The work of ``python -m stages.<command>``; `arm` prepares the process for its fault."""
    name, *arguments = command.split()
    module = importlib.import_module(f"stages.{name}")

    def work() -> None:
        sys.argv = [name, *arguments]
        arm()
        run_stage(module.main)

    return work


def run(folder: Path, command: str, arm: Callable[[], Any] = nothing) -> Outcome:
    return Fork(folder, stage(command, arm)).wait()


def die_at_write(count: int) -> None:
    """Replace flush and rename by ones that kill this process at call number `count`, before or after doing it."""
    left = count

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and count % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done = function(*arguments, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)


def die_after(seconds: float) -> None:
    """Wherever the process is then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
