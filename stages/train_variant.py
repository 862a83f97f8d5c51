"""train_variant: a run that `variants` of conf/<dataset>.yaml describes; everything it does not state is the same."""

from typing import Any

import click
from torch import Tensor, nn

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.variants import variant_of
from pag.datasets.base import load
from pag.objectives.batch import Batch, Objective
from stages import paths
from stages.alignment import alignment
from stages.classifier import train_and_save
from stages.command import run_stage
from stages.objectives import robust_objective, vanilla


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("name")
def main(dataset: str, arch: str, name: str) -> None:
    params, conf, images = load_params(), load_conf(dataset), load(paths.images(dataset))
    variant = variant_of(conf, dataset, name)
    seed = params.training_seed if variant.training_seed is None else variant.training_seed
    params = params.model_copy(update={"training_seed": seed, "weight": variant.weight})
    changed = {"classes_per_image": variant.classes_per_image, "gradient_of": variant.gradient_of}
    given = {key: value for key, value in changed.items() if value is not None}
    conf = conf.model_copy(update={"alignment": conf.alignment.model_copy(update=given)})

    about: dict[str, Any] = {"trained_as": variant.method}
    terms: list[Objective] = [robust_objective(variant.robust, conf.methods)] if variant.robust else []
    gradients = None
    if variant.realization:
        aligned, gradients, of_alignment = alignment(images, arch, variant.realization, variant.robust, params, conf)
        terms.append(aligned.term if variant.robust else aligned)
        about |= of_alignment

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {key: loss for term in terms or [vanilla] for key, loss in term(model, batch).items()}

    train_and_save(images, arch, f"variants/{name}", objective, params, conf, about, gradients)


if __name__ == "__main__":
    run_stage(main)
