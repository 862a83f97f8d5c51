"""How every stage meets the user: one line for an error, a non-zero exit, no half-written output."""

import json
import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from pag.foundation import interrupts, processes
from pag.foundation.allocator import keep_freed_memory, out_of_memory
from pag.foundation.artifacts import ArtifactError
from pag.foundation.config.section import ConfigError

# Names a file to which every stage adds what it used; benchmarks.pipeline reads it.
USAGE_LOG = "PAG_USAGE_LOG"

# How stages that several processes can share are started, e.g. "torchrun --standalone --nproc-per-node 8". Not in
# params.yaml: it changes no result, so that no stage may depend on it, and belongs to the machine.
LAUNCHER = "PAG_LAUNCHER"

# "1": one thread and deterministic kernels alone, see device.be_strict and docs/reproducibility.md. Not in params.yaml:
# what it changes, the last bits, another machine changes too.
STRICT = "PAG_STRICT"

ARGUMENTS = {  # of the stages, for --help
    "dataset": "has a file conf/DATASET.yaml",
    "arch": "is an architecture of pag/classifiers, or `external`",
    "run": "is a method of params.yaml, or a variant or an external network of the conf",
    "realization": "is oi, cm or nn",
}

OUT_OF_MEMORY = "lower the batch_size of this stage's section in conf/, or end what else uses the memory"
WORKER_LOST = (
    "a worker process has died, most likely ended by the system for want of memory: take fewer (there are as many as "
    "threads: OMP_NUM_THREADS=1), or lower the batch_size of this stage's section in conf/"
)
EXPECTED = (ConfigError, ArtifactError, ValueError, FloatingPointError, OSError)


def run_stage(command: Callable[..., Any], shared: bool = False) -> None:
    """Run a click command; expected errors become one line on stderr and exit 1, SIGINT exits 130 and SIGTERM 143.

    An interrupted stage must not exit 0: DVC would record its partial output as complete.
    shared: several processes can do it together, which PAG_LAUNCHER or the user starts; the first one prints, and the
    first one to fail says why.
    """
    start = time.perf_counter()
    keep_freed_memory()
    rank = int(os.environ.get(processes.RANK, "-1"))
    try:
        if shared and rank < 0 and (launcher := os.environ.get(LAUNCHER)):
            _launch(launcher)
        if rank > 0:
            if not shared:
                return
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        _explain(command)
        if _strict():
            from stages.shared.device import be_strict  # with PyTorch, which takes seconds to load

            be_strict()
        # joined first: a signal would wait as long as this process waits for the others
        with processes.joined() if shared else nullcontext(), interrupts.handled():
            command(standalone_mode=False)
        if rank <= 0:
            _note_usage(time.perf_counter() - start)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if processes.first_to_fail():
            click.echo("interrupted: the same command goes on from here", err=True)
        sys.exit(interrupts.exit_code())
    except (*EXPECTED, MemoryError, RuntimeError) as error:
        message = str(error) if isinstance(error, EXPECTED) else _explained(error)
        if message is None:
            raise
        if processes.first_to_fail():
            click.echo(f"error: {' '.join(message.splitlines())}", err=True)
        sys.exit(1)


def _strict() -> bool:
    given = os.environ.get(STRICT, "")
    if given not in ("", "0", "1"):
        raise ConfigError(f"{STRICT} = {given}: expected 1, or 0 as if it were not set")
    return given == "1"


def _explained(error: Exception) -> str | None:
    """What has happened and what to do about it: too little memory, a worker process that died, an operation that
    strictness rules out. None for what only a traceback explains."""
    text = str(error)
    if out_of_memory(error):
        return f"{text or 'out of memory'}: {OUT_OF_MEMORY}"
    if isinstance(error, BrokenExecutor):
        return WORKER_LOST
    return f"{text}: go without {STRICT}, or to a CPU" if "deterministic implementation" in text else None


def _explain(command: Callable[..., Any]) -> None:
    """Have --help say what the stage's module says, as it stands there."""
    if isinstance(command, click.Command) and command.help is None and command.callback is not None:
        text = (sys.modules[command.callback.__module__].__doc__ or "").replace("\n\n", "\n\n\b\n")
        command.help = f"\b\n{text}"
        named = [
            f"{each.human_readable_name} {ARGUMENTS[each.name or '']}."
            for each in command.params
            if each.name in ARGUMENTS
        ]
        values = "Values come from params.yaml and conf/. `python -m stages` lists all stages and presets."
        command.epilog = " ".join([*named, values])


def _launch(launcher: str) -> None:
    """Become the launcher, which starts this command several times."""
    program, *options = shlex.split(launcher)
    beside = Path(sys.executable).with_name(program)  # of this environment, whether or not it is activated
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise ConfigError(f"{LAUNCHER} = {launcher}: there is no program {program}, expected one such as torchrun")
    module = sys.modules["__main__"].__spec__
    assert module is not None  # of `python -m stages.…`
    os.execv(found, [program, *options, "-m", module.name, *sys.argv[1:]])


def _note_usage(seconds: float) -> None:
    if path := os.environ.get(USAGE_LOG):
        kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        usage = {"stage": " ".join(sys.argv[1:]), "module": Path(sys.argv[0]).stem, "seconds": round(seconds, 2)}
        with open(path, "a") as log:
            log.write(json.dumps({**usage, "peak_mib": round(kilobytes / 1024)}) + "\n")
