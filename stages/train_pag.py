"""train_pag: classifiers whose input gradients align with one realisation; never trained on perturbed images."""

from typing import get_args

import click

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.section import Realization
from pag.datasets.base import load
from stages import paths
from stages.alignment import alignment
from stages.classifier import train_and_save
from stages.command import run_stage


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("realization", type=click.Choice(get_args(Realization)))
def main(dataset: str, arch: str, realization: Realization) -> None:
    params, conf = load_params(), load_conf(dataset)
    images = load(paths.images(dataset))
    objective, gradients, about = alignment(images, arch, realization, None, params, conf)
    train_and_save(images, arch, realization, objective, params, conf, about, gradients)


if __name__ == "__main__":
    run_stage(main)
