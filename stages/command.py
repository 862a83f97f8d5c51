"""How every stage meets the user: one line for an error, a non-zero exit, no half-written output."""

import sys
from collections.abc import Callable
from typing import Any

import click

from pag.checkpoint import ArtifactError
from pag.config.section import ConfigError

EXPECTED = (ConfigError, ArtifactError, ValueError, FloatingPointError, OSError)


def run_stage(command: Callable[..., Any]) -> None:
    """Run a click command; expected errors become one line on stderr and exit 1, an interrupt exits 130.

    An interrupted stage must not exit 0: DVC would record its partial output as complete.
    """
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except EXPECTED as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
