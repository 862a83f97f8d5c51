"""distill: a heuristic realisation (OI, CM, NN) for every training image and class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.section import ConfigError, nearest
from pag.foundation.processes import is_first
from pag.gradients.distillation.distill import Gradients, readable
from pag.gradients.realizations import class_mean, nearest_neighbour, one_image
from pag.images.dataset import ImageDataset, load
from pag.images.fixed_targets import FixedTargets
from pag.store.format.targets import save_targets
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device
from stages.shared.distillation import write_preview, write_store


@click.command()
@click.argument("dataset")
@click.argument("realization")
def main(dataset: str, realization: str) -> None:
    params, conf, images = load_params(), load_conf(dataset), load(paths.images(dataset))
    gradients = heuristic(realization, images, conf.heuristics.nn_candidates, params.seed)
    attributes = {"realization": realization, "split": "train", "seed": params.seed}
    path, device = paths.gradients(dataset, realization), best_device()
    if realization in conf.heuristics.computed and isinstance(gradients, FixedTargets):
        if is_first():
            write_targets(gradients, images, path, conf.distill.bits, attributes)
        write_preview(gradients, images, realization, device)
        return
    sections = [section.model_dump(mode="json") for section in (conf.distill, conf.heuristics)]
    with paths.scratch("distill", images.content_hash, attributes, sections) as scratch:
        write_store(gradients, images, images.train, path, conf.distill, attributes, device, scratch)
        write_preview(gradients, images, realization, device)


def write_targets(
    gradients: FixedTargets, dataset: ImageDataset, path: Path, bits: int, attributes: dict[str, Any]
) -> None:
    """Write what training computes the gradients of its images from, in place of a store at `path`."""
    count = len(dataset.train)
    click.echo(
        f"{path}: {count} images × {dataset.num_classes} classes in {bits} bits are computed while training, "
        f"the classes' targets take {readable(gradients.targets.nbytes)} on disk"
    )
    save_targets(path, gradients, count, {"dataset_hash": dataset.content_hash, **attributes}, bits)


def heuristic(name: str, images: ImageDataset, nn_candidates: int, seed: int) -> Gradients:
    """The realisation `name` of the training images."""
    train, num_classes = images.train, images.num_classes
    heuristics: dict[str, Callable[[], Gradients]] = {
        "oi": lambda: one_image(train, num_classes, seed),
        "cm": lambda: class_mean(train, num_classes),
        "nn": lambda: nearest_neighbour(train, num_classes, seed, nn_candidates),
    }
    if name not in heuristics:
        raise ConfigError(f"unknown heuristic realization '{name}'{nearest(name, list(heuristics))}")
    return heuristics[name]()


if __name__ == "__main__":
    run_stage(main, shared=True)
