"""prepare_toy: the two-dimensional points."""

import click

from pag.config.params import load_params
from pag.config.toy import load_toy
from pag.datasets.base import save
from pag.datasets.toy import read_toy
from stages import paths
from stages.command import run_stage


@click.command()
def main() -> None:
    save(read_toy(load_toy(), load_params().seed), paths.images("toy"))


if __name__ == "__main__":
    run_stage(main)
