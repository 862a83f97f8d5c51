"""check: values that do not fit the images of a data set, or each other, before anything is trained.

`validate` looks at every file by itself, this at what the images alone can tell: classes, side, channels. Networks of
others are tried on some of them.
"""

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import click
import torch

from pag.classifiers import build
from pag.diffusion.checkpoint import convert
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
from pag.training.batches import require_possible
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device


@click.command()
@click.argument("dataset")
@click.option("--external", help="try this network of others alone")
def main(dataset: str, external: str | None) -> None:
    params, conf = load_params(), load_conf(dataset)
    if not paths.images(dataset).exists():
        raise ConfigError(
            f"{paths.images(dataset)} is not there yet: `dvc repro prepare@{dataset}` makes it, once `datasets` of "
            f"params.yaml has {dataset}, and `raw` too if the conf has data.root"
        )
    images = load(paths.images(dataset))
    if external is not None:
        try_network(external, images, conf)
        return
    require_attackable(images, conf)
    require_distillable(images, conf)
    require_trainable(images, params, conf)
    for name in params.externals if dataset in params.external_datasets else []:
        # in a process of its own: their modules may have the same names
        tried = subprocess.run([sys.executable, "-m", "stages.check", dataset, "--external", name], check=False)
        if tried.returncode:
            sys.exit(tried.returncode)  # it has said why
    save_json(paths.checked(dataset), {"dataset_hash": images.content_hash})


def try_network(name: str, images: ImageDataset, conf: Conf) -> None:
    """Refuse a network of others that could not be attacked, and say what is doubtful about it."""
    processes = min(len(conf.evaluation.threat_models), torch.get_num_threads())
    network = external_of(conf, images.name, name)
    for warning in try_external(paths.external(name), network, images, name, best_device(), processes):
        click.echo(f"{images.name} / {name}: {warning}")
    click.echo(f"{images.name} / {name}: can be attacked")


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
    """Refuse a noise level of the gradients that is none of the diffusion model's, a U-Net that cannot take the images
    and a checkpoint that cannot be converted."""
    gradient_t(conf.diffusion, conf.distill.t)
    if conf.diffusion.checkpoint is not None:
        convert(conf.diffusion, images)
        return
    channels, side, _ = images.image_shape
    with torch.device("meta"):
        build_unet(conf.diffusion, channels, side, images.num_classes)


def require_trainable(images: ImageDataset, params: Params, conf: Conf) -> None:
    """Refuse architectures, numbers of target classes and crops that the images do not allow, of what is trained."""
    runs = [*params.methods(), *(params.variants if images.name in params.variant_datasets else [])]
    for arch in params.archs if runs else []:
        build(arch, images.num_classes, images.image_shape, params.training_seed)
    for name in runs:
        run = run_of(name, images.name, params.archs[0], params, conf)
        k = run.alignment.classes_per_image if run.realization is not None else None
        try:
            require_possible(conf.classifier, k, images.num_classes, images.image_shape[-1])
        except ValueError as error:
            raise ConfigError(f"{images.name} / {name}: {error}") from None


if __name__ == "__main__":
    run_stage(main)
