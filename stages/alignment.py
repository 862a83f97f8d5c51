"""From configuration to objective: the alignment term and the gradients it aligns with."""

from typing import Any

from pag.config.conf import Conf
from pag.config.params import Params
from pag.config.section import ConfigError, Realization, RobustMethod
from pag.datasets.base import ImageDataset
from pag.gradients.computed import open_gradients
from pag.objectives.alignment import Alignment
from pag.training.batches import ClassGradients
from stages import paths


def alignment(
    images: ImageDataset, arch: str, realization: Realization, robust: RobustMethod | None, params: Params, conf: Conf
) -> tuple[Alignment, ClassGradients, dict[str, Any]]:
    """The alignment term, its opened and checked gradients, and what to record of both beside the weights.

    λ is params.yaml's where that is set, otherwise conf's for the method and architecture.
    """
    gradients = open_gradients(paths.gradients(images.name, realization), images, realization)
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
        "diffusion_sha256": gradients.attributes.get("diffusion_sha256"),
    }
    return Alignment(weight, images.num_classes, conf.alignment.gradient_of), gradients, about
