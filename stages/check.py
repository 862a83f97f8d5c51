"""check: values that do not fit the images of a data set, or each other, before anything is trained.

`validate` looks at every file by itself, this at what the images alone can tell: classes, side, channels. Networks of
others are tried on some of them.
"""

import math
from collections.abc import Iterator
from typing import get_args

import click
import torch

from pag.classifiers import build
from pag.diffusion.model.schedule import gradient_t
from pag.diffusion.model.unet import build_unet
from pag.evaluation.external import try_external
from pag.foundation.artifacts import save_json
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.external import external_of
from pag.foundation.config.params import Params, load_params
from pag.foundation.config.runs import run_of
from pag.foundation.config.section import ConfigError, Norm, RobustMethod, check_radius
from pag.images.dataset import ImageDataset, load
from stages.shared import paths
from stages.shared.command import run_stage


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    params, conf, images = load_params(), load_conf(dataset), load(paths.images(dataset))
    require_attackable(images, conf)
    require_distillable(images, conf)
    require_trainable(images, params, conf)
    for name in params.externals if dataset in params.external_datasets else []:
        for warning in try_external(paths.external(name), external_of(conf, dataset, name), images, name):
            click.echo(f"{dataset} / {name}: {warning}")
    save_json(paths.checked(dataset), {"dataset_hash": images.content_hash})


def require_attackable(images: ImageDataset, conf: Conf) -> None:
    """Refuse radii beyond all images, and images on which AutoAttack could not run."""
    for key, norm, eps in radii(conf):
        check_radius(norm, eps, key, math.prod(images.image_shape))
    side = images.image_shape[-1]
    if not square_attack_fits(side, side) and conf.evaluation.threat_models.get("L2"):
        raise ConfigError(
            f"AutoAttack's Square attack under L2 cannot take images of {side}×{side} pixels: use another size, for "
            "instance a multiple of 8 but 24, or remove evaluation.threat_models.L2"
        )


def radii(conf: Conf) -> Iterator[tuple[str, Norm, float]]:
    """Key, norm and size of every radius of a conf."""
    for key in ("threat_models", "curve"):
        for norm, sizes in getattr(conf.evaluation, key).items():
            for eps in sizes:
                yield f"evaluation.{key}.{norm}", norm, eps
    yield "evaluation.large_eps.eps", "L2", conf.evaluation.large_eps.eps
    for method in get_args(RobustMethod):
        config = conf.methods.adversarial(method)
        yield f"methods.{method}.eps", config.norm, config.eps


def require_distillable(images: ImageDataset, conf: Conf) -> None:
    """Refuse a U-Net that cannot take the images, and a noise level of the gradients that it would not be trained on.

    A network of others that is converted tells both by itself, before anything else is done.
    """
    if conf.diffusion.checkpoint is not None:
        return
    gradient_t(conf.diffusion, conf.distill.t)
    channels, side, _ = images.image_shape
    with torch.device("meta"):
        build_unet(conf.diffusion, channels, side, images.num_classes)


def require_trainable(images: ImageDataset, params: Params, conf: Conf) -> None:
    """Refuse architectures, numbers of target classes and crops that the images of the experiment do not allow."""
    side, archs = images.image_shape[-1], dict.fromkeys(params.archs)
    if conf.classifier.crop_padding >= side:
        raise ConfigError(
            f"classifier.crop_padding = {conf.classifier.crop_padding}: {images.name} has {side} pixels a side, "
            "expected fewer"
        )
    variants: list[str] = []
    if images.name in params.variant_datasets:
        variants, archs = params.variants, archs | dict.fromkeys(params.variant_archs)
    for arch in archs:
        build(arch, images.num_classes, images.image_shape, params.training_seed)
    for name in [*params.methods(), *variants]:
        run = run_of(name, images.name, params.archs[0], params, conf)
        k = run.alignment.classes_per_image
        if run.realization is not None and k != "all" and k > images.num_classes:
            raise ConfigError(
                f"alignment.classes_per_image = {k} of the run '{name}': {images.name} has {images.num_classes} "
                "classes, expected at most as many, or all"
            )


if __name__ == "__main__":
    run_stage(main)
