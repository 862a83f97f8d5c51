"""From configuration to objective: the alignment term and the store it aligns with."""

from typing import Any

from pag.config.conf import Conf
from pag.config.params import Params
from pag.config.section import ConfigError, Realization, RobustMethod
from pag.datasets.base import ImageDataset
from pag.gradients.store import GradientStore
from pag.objectives.alignment import Alignment
from stages import paths


def alignment(
    images: ImageDataset, arch: str, realization: Realization, robust: RobustMethod | None, params: Params, conf: Conf
) -> tuple[Alignment, GradientStore, dict[str, Any]]:
    """The alignment term, its opened and checked store, and what to record of both beside the weights.

    λ is params.yaml's where that is set, otherwise conf's for the method and architecture.
    """
    store = GradientStore.open(
        paths.gradients(images.name, realization),
        expect={"dataset_hash": images.content_hash, "realization": realization, "split": "train"},
    )
    k = conf.alignment.classes_per_image
    if k != "all" and k > images.num_classes:
        raise ConfigError(
            f"alignment.classes_per_image = {k}: {images.name} has {images.num_classes} classes, "
            "expected at most as many, or all"
        )
    weight = params.weight
    if weight is None:
        weight = conf.methods.aligned(realization, robust).for_arch(arch)
    about = {
        "lambda": weight,
        "classes_per_image": k,
        "gradient_of": conf.alignment.gradient_of,
        "diffusion_sha256": store.attributes.get("diffusion_sha256"),
    }
    return Alignment(weight, images.num_classes, conf.alignment.gradient_of), store, about
