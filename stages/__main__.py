"""The stages, as `dvc repro` runs them, the commands beside them, and the presets.

    python -m stages

Each is a module: `python -m stages.train --help`.
"""

import ast
from pathlib import Path

import click

from pag.foundation.config.section import nearest, read_yaml
from stages.preset import load_preset, names
from stages.shared.command import run_stage

HERE = Path(__file__).parent


@click.command()
@click.argument("stage", nargs=-1)
def main(stage: tuple[str, ...]) -> None:
    commands = {path.stem: path for path in sorted(HERE.glob("*.py")) if not path.stem.startswith("__")}
    commands |= {path.parent.name: path for path in sorted(HERE.glob("*/__main__.py"))}
    if stage:
        name = stage[0] if stage[0] in commands else f"NAME{nearest(stage[0], list(commands))}"
        raise click.UsageError(f"each stage is a module of its own: python -m stages.{name}")
    in_order = [
        stage["cmd"].split()[2].removeprefix("stages.") for stage in read_yaml(Path("dvc.yaml"))["stages"].values()
    ]
    run_by_dvc = list(dict.fromkeys(in_order))
    _list("Stages, in the order of dvc.yaml", {name: _purpose(commands[name]) for name in run_by_dvc})
    _list("Other commands", {name: _purpose(path) for name, path in commands.items() if name not in run_by_dvc})
    _list(
        "Presets, for `dvc exp run $(python -m stages.preset NAME)`",
        {name: load_preset(name).description for name in names()},
    )


def _list(title: str, lines: dict[str, str]) -> None:
    click.echo(f"{title}:")
    width = max(map(len, lines))
    for name, line in lines.items():
        click.echo(f"  {name:<{width}}  {line}")


def _purpose(path: Path) -> str:
    """The first line of a module's docstring, without its name: nothing of it is imported."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    return first.split(": ", 1)[-1]


if __name__ == "__main__":
    run_stage(main)
