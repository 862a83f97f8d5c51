"""train_variant: a run that `variants` of conf/<dataset>.yaml describes; everything it does not state is the same."""

from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np
from torch import Tensor, nn

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.section import ConfigError
from pag.config.variants import variant_of
from pag.datasets.base import ImageDataset, load
from pag.datasets.split import balanced
from pag.objectives.batch import Batch, Objective
from pag.training.batches import ClassGradients
from stages import paths
from stages.alignment import alignment
from stages.classifier import train_and_save
from stages.command import run_stage
from stages.objectives import robust_objective, vanilla


@dataclass(frozen=True)
class GradientsOfRows:
    """The gradients of some of the images of a store, numbered from 0."""

    store: ClassGradients
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.store.shape[1:])

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return self.store.read(self.rows[rows], target_classes)


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

    rows = training_rows(images, variant.train_images)
    about: dict[str, Any] = {"trained_as": variant.method, "train_images": len(rows)}
    terms: list[Objective] = [robust_objective(variant.robust, conf.methods)] if variant.robust else []
    gradients = None
    if variant.realization:
        aligned, store, of_alignment = alignment(images, arch, variant.realization, variant.robust, params, conf)
        terms.append(aligned.term if variant.robust else aligned)
        gradients, about = GradientsOfRows(store, rows), about | of_alignment

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {key: loss for term in terms or [vanilla] for key, loss in term(model, batch).items()}

    part = replace(images, train=images.train.select(rows))
    train_and_save(part, arch, f"variants/{name}", objective, params, conf, about, gradients)


def training_rows(images: ImageDataset, count: int | None) -> np.ndarray:
    """Which training images are used: all, or `count` of them with as equal classes as possible."""
    if count is not None and not images.num_classes <= count <= len(images.train):
        raise ConfigError(
            f"train_images = {count}: {images.name} has {len(images.train)} training images in {images.num_classes} "
            "classes, expected a number between those"
        )
    return balanced(images.train.labels, count)


if __name__ == "__main__":
    run_stage(main)
