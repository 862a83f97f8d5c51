"""How every stage meets the user: one line for an error, a non-zero exit, no half-written output."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pag.foundation import interrupts
from pag.foundation.allocator import keep_freed_memory
from pag.foundation.artifacts import ArtifactError
from pag.foundation.config.section import ConfigError

# Names a file to which every stage adds what it used; benchmarks.pipeline reads it.
USAGE_LOG = "PAG_USAGE_LOG"

EXPECTED = (ConfigError, ArtifactError, ValueError, FloatingPointError, OSError)


def run_stage(command: Callable[..., Any]) -> None:
    """Run a click command; expected errors become one line on stderr and exit 1, SIGINT exits 130 and SIGTERM 143.

    An interrupted stage must not exit 0: DVC would record its partial output as complete.
    """
    start = time.perf_counter()
    keep_freed_memory()
    try:
        with interrupts.handled():
            command(standalone_mode=False)
        _note_usage(time.perf_counter() - start)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: the same command goes on from here", err=True)
        sys.exit(interrupts.exit_code())
    except EXPECTED as error:
        click.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(1)


def _note_usage(seconds: float) -> None:
    if path := os.environ.get(USAGE_LOG):
        kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        usage = {"stage": " ".join(sys.argv[1:]), "module": Path(sys.argv[0]).stem, "seconds": round(seconds, 2)}
        with open(path, "a") as log:
            log.write(json.dumps({**usage, "peak_mib": round(kilobytes / 1024)}) + "\n")
