"""train_robust_pag: adversarial training or TRADES plus the alignment term at the clean images."""

from typing import get_args

import click
from torch import Tensor, nn

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.section import Realization, RobustMethod
from pag.datasets.base import load
from pag.objectives.batch import Batch
from stages import paths
from stages.alignment import alignment
from stages.classifier import train_and_save
from stages.command import run_stage
from stages.objectives import robust_objective


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("robust", type=click.Choice(get_args(RobustMethod)))
@click.argument("realization", type=click.Choice(get_args(Realization)))
def main(dataset: str, arch: str, robust: RobustMethod, realization: Realization) -> None:
    params, conf = load_params(), load_conf(dataset)
    images = load(paths.images(dataset))
    robust_terms = robust_objective(robust, conf.methods)
    aligned, gradients, about = alignment(images, arch, realization, robust, params, conf)

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return robust_terms(model, batch) | aligned.term(model, batch)

    train_and_save(images, arch, f"{robust}+{realization}", objective, params, conf, about, gradients)


if __name__ == "__main__":
    run_stage(main)
