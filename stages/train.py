"""train: the baselines without alignment — vanilla, adversarial training, TRADES."""

from typing import get_args

import click

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.section import Baseline
from pag.datasets.base import load
from pag.objectives.batch import Objective
from stages import paths
from stages.classifier import train_and_save
from stages.command import run_stage
from stages.objectives import robust_objective, vanilla


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("method", type=click.Choice(get_args(Baseline)))
def main(dataset: str, arch: str, method: Baseline) -> None:
    params, conf = load_params(), load_conf(dataset)
    objective: Objective = vanilla if method == "vanilla" else robust_objective(method, conf.methods)
    train_and_save(load(paths.images(dataset)), arch, method, objective, params, conf, about={})


if __name__ == "__main__":
    run_stage(main)
