"""prepare: raw images → data/<dataset>/images, split and hashed."""

import math
from collections.abc import Iterator
from typing import get_args

import click

from pag.datasets.preparation import prepare
from pag.foundation.artifacts import load_json
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.params import load_params, not_looked_at
from pag.foundation.config.section import ConfigError, Norm, RobustMethod, check_radius
from pag.images.dataset import ImageDataset, save
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.progress import progress


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    params, conf = load_params(), load_conf(dataset)
    if conf.data.root is not None:
        if not paths.raw_files(dataset).exists() and dataset not in params.raw:
            raise not_looked_at(dataset)
        load_json(paths.raw_files(dataset), sealed=True, keys=("files", "bytes", "content"))
    with progress(f"reading the images of {dataset}"):
        prepared = prepare(dataset, conf.data, params.seed)
    require_attackable(prepared, conf)
    save(prepared, paths.images(dataset))
    sizes = ", ".join(
        f"{len(split.labels)} {name}"
        for name, split in zip(
            ("training", "validation", "test"), (prepared.train, prepared.validation, prepared.test), strict=True
        )
    )
    click.echo(f"{dataset}: {sizes} images of {prepared.image_shape} in {prepared.num_classes} classes")


def require_attackable(images: ImageDataset, conf: Conf) -> None:
    """Refuse, before anything is trained, radii beyond all images, and images on which AutoAttack could not run."""
    for key, norm, eps in radii(conf):
        check_radius(norm, eps, key, math.prod(images.image_shape))
    side = images.image_shape[-1]
    if not square_attack_fits(side, side) and conf.evaluation.threat_models.get("L2"):
        raise ConfigError(
            f"AutoAttack's Square attack under L2 cannot take images of {side}×{side} pixels: use another size, for "
            "instance a multiple of 8 but 24, or remove evaluation.threat_models.L2"
        )


def radii(conf: Conf) -> Iterator[tuple[str, Norm, float]]:
    """Key, norm and size of every radius that a conf must have.

    It may leave evaluation.curve out, so that dvc.yaml cannot name it among the params here: evaluate looks at it.
    """
    for norm, sizes in conf.evaluation.threat_models.items():
        for eps in sizes:
            yield f"evaluation.threat_models.{norm}", norm, eps
    yield "evaluation.large_eps.eps", "L2", conf.evaluation.large_eps.eps
    for method in get_args(RobustMethod):
        config = conf.methods.adversarial(method)
        yield f"methods.{method}.eps", config.norm, config.eps


if __name__ == "__main__":
    run_stage(main)
