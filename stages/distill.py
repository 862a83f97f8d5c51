"""distill: a heuristic realisation (OI, CM, NN) for every training image and class."""

from collections.abc import Callable

import click

from pag.config.conf import DistillConfig, load_conf
from pag.config.params import load_params
from pag.config.section import ConfigError, nearest
from pag.datasets.base import ImageDataset, load
from pag.gradients.distill import Gradients
from pag.gradients.realizations import class_mean, nearest_neighbour, one_image
from stages import paths
from stages.command import run_stage
from stages.device import best_device
from stages.distillation import write_preview, write_store


@click.command()
@click.argument("dataset")
@click.argument("realization")
def main(dataset: str, realization: str) -> None:
    params, config, images = load_params(), load_conf(dataset).distill, load(paths.images(dataset))
    gradients = heuristic(realization, images, config, params.seed)
    attributes = {"realization": realization, "split": "train", "seed": params.seed}
    device = best_device()
    write_store(gradients, images, images.train, paths.gradients(dataset, realization), config, attributes, device)
    write_preview(gradients, images, realization, device)


def heuristic(name: str, images: ImageDataset, config: DistillConfig, seed: int) -> Gradients:
    """The realisation `name` of the training images."""
    train, levels, num_classes = images.train, images.levels, images.num_classes
    heuristics: dict[str, Callable[[], Gradients]] = {
        "oi": lambda: one_image(train, levels, num_classes, seed),
        "cm": lambda: class_mean(train, levels, num_classes),
        "nn": lambda: nearest_neighbour(train, levels, num_classes, seed, config.nn_candidates),
    }
    if name not in heuristics:
        raise ConfigError(f"unknown heuristic realization '{name}'{nearest(name, list(heuristics))}")
    return heuristics[name]()


if __name__ == "__main__":
    run_stage(main)
