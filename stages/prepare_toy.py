"""prepare_toy: the two-dimensional points."""

import click

from pag.datasets.toy import read_toy
from pag.foundation.config.params import load_params
from pag.foundation.config.toy import load_toy
from pag.images.dataset import save
from stages.shared import paths
from stages.shared.command import run_stage


@click.command()
def main() -> None:
    save(read_toy(load_toy(), load_params().seed), paths.images("toy"))


if __name__ == "__main__":
    run_stage(main)
