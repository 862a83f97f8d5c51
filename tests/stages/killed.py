"""Runs stages again and again, killed at seeded moments, until each succeeds; a script of test_kill.py.

    python killed.py <folder> <seed> <kills> <stage,argument,…> …

Every try is a fork of this process, which has only imported the stages: a killed one leaves nothing but files. It dies
by SIGKILL at one of its next writes (before or after a flush or a rename), or by a timer, wherever it is then. As DVC
does it, the outs of a stage are removed before each try. The last line is JSON: how often each stage was killed.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stages.shared.command import run_stage


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


def attempt(module: Any, arguments: list[str], arm: Callable[[], Any]) -> int:
    """How a forked run of the stage ended: its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.argv = [module.__file__, *arguments]
            arm()
            run_stage(module.main)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outs() -> set[Path]:
    return {path for top in ("data", "results") for path in Path(top).rglob("*") if path.is_file() and not hidden(path)}


def hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def main() -> None:
    folder, seed, kills, *stages = sys.argv[1:]
    modules = [importlib.import_module(f"stages.{stage.split(',')[0]}") for stage in stages]
    os.chdir(folder)
    rng = random.Random(int(seed))
    killed: dict[str, int] = {}
    for stage, module in zip(stages, modules, strict=True):
        before, killed[stage], code = outs(), 0, -1
        arm: Callable[[], Any]
        while code < 0:
            if killed[stage] >= int(kills):
                arm = partial(int)  # nothing
            elif rng.random() < 0.7:
                arm = partial(die_at_write, rng.randint(1, 8))
            else:
                arm = partial(signal.setitimer, signal.ITIMER_REAL, rng.uniform(0.002, 0.3))
            code = attempt(module, stage.split(",")[1:], arm)
            if code < 0:
                killed[stage] += 1
                for path in outs() - before:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        if code != 0:
            sys.exit(f"{stage} ended with {code}")
    print(json.dumps(killed))


if __name__ == "__main__":
    main()
