"""What may be attacked: images, labels and models with which a robust accuracy cannot flatter.

Examples are clamped into [0, 1]: around an image that lies outside, none is inside the ball, and the model would read
as robust. So would one without a usable gradient. What makes a result meaningless is refused in one line; what makes
it doubtful is named in warnings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from pag.classifiers.given import as_classes, require_differentiable, require_finite, require_logits, require_tensors
from pag.evaluation.standard import DLR_CLASSES
from pag.evaluation.wrapped import Rescaled
from pag.foundation.allocator import out_of_memory
from pag.foundation.config.section import Norm, check_radius, is_number
from pag.foundation.seeding import own_random_state

LARGE_LOGIT = 1e3  # of a model that the scale-free DLR loss attacks too
MODERATE_LOGIT = 16.0  # the softmax of float32 has no gradient left from a margin of 104 on, and is coarse from 17 on
COMPANY = 32  # images that are classified again in another batch
DARK = 0.1  # no pixel brighter: a division too many
SAME = 1e-3  # of the largest logit: rounding differs between batch sizes, batch statistics do far more


def checked(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, C, H, W) as float32 in [0, 1] and labels (N,) as int64; the labels' upper end is the model's to check.

    Raises ValueError in one line for anything else, with what to do.
    """
    require_tensors(images=images, labels=labels)
    if not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype}: expected floats in [0, 1], divide integers by their largest possible value"
        )
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: expected (N, C, H, W); images[:, None] adds the one channel of "
            "grey images, images[None] makes a batch of one image"
        )
    labels = as_classes("labels", labels, "N")
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"got {len(images)} images and {len(labels)} labels: expected as many, at least one")
    if images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}: expected pixels")
    require_differentiable(images, labels)
    require_finite("[0, 1], remove them", images=images)
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images reach from {images.min():g} to {images.max():g}: expected [0, 1]; divide 8-bit values by 255, and "
            "normalise inside the model instead of before it"
        )
    return images.detach().float().contiguous(), labels  # permuted ones are more than the attacks can view


def checked_radii(radii: Mapping[Norm, Iterable[float]], pixels: int) -> dict[Norm, list[float]]:
    """norm → its radii, ascending, each once. pixels: C·H·W of an image.

    Raises ValueError in one line for anything that is no radius of images in [0, 1].
    """
    example = '{"L2": [0.5], "Linf": [8 / 255]}'
    if not isinstance(radii, Mapping) or not radii:
        raise ValueError(f"radii are {radii!r}: expected norms and their radii, as {example}")
    found: dict[Norm, list[float]] = {}
    for norm, given in radii.items():
        if norm not in get_args(Norm):
            raise ValueError(f"radii have the norm {norm!r}: expected {' or '.join(get_args(Norm))}, as {example}")
        values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
        if not values or not all(map(is_number, values)):
            raise ValueError(f"radii of {norm} are {given!r}: expected a list of numbers, as {example}")
        if 0 in values:
            raise ValueError(f"radii of {norm} hold 0: leave it out, the clean accuracy is measured in any case")
        for eps in values:
            check_radius(norm, float(eps), "eps", pixels)
        found[norm] = sorted({float(eps) for eps in values})
    return found


@dataclass(frozen=True)
class Admitted:
    """A model that can be attacked, and what is doubtful about it."""

    model: nn.Module
    warnings: list[str]
    random: bool  # two passes differ


def admit(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Admitted:
    """Look at `model`, in eval mode, on `checked` images: one pass with an input gradient, and a few images again.

    A model whose logits hide its gradient from the cross-entropy is replaced by one that divides them by a power of
    two: the same predictions, and gradients that the attacks can see. With four classes or more APGD-T sees them at any
    scale, so there it takes very large logits; with fewer, a margin that the softmax cannot tell from certainty.
    Raises ValueError in one line for a model that cannot be attacked.
    """
    with own_random_state(images.device):
        found = [look(model, batch) for batch in images.split(batch_size)]
        look(model, images[:1])  # alone, as the attacks may leave one of a batch
        random, warnings = _company(model, images[: min(batch_size, COMPANY)])
    logits, gradients = (torch.cat(parts) for parts in zip(*found, strict=True))
    require_logits(logits)
    classes = logits.shape[1]
    if labels.max() >= classes:
        raise ValueError(
            f"labels reach up to {labels.max()}: the model has {classes} classes, expected 0 to {classes - 1}"
        )
    if _rows(gradients.isnan()):
        warnings.append(
            f"NaN input gradients on {_rows(gradients.isnan())} of {len(images)} images: attacks that use gradients "
            "cannot break them; look for a square root or a division by zero in the model"
        )
    elif not gradients.any():
        warnings.append("the input gradient is zero on every image: only Square attacks this model")
    if images.max() < DARK:
        warnings.append(f"the brightest pixel is {images.max():.3g}: were the images divided twice?")
    accuracy, largest_class = (logits.argmax(1) == labels).float().mean().item(), labels.bincount().max().item()
    chance = largest_class / len(labels)
    if accuracy <= chance < 1:
        warnings.append(
            f"clean accuracy is {accuracy:.1%}, and naming the most frequent class gives {chance:.1%}: are the labels "
            "numbered as the model does, and the images scaled as it expects?"
        )
    best, second = logits.topk(2, dim=1).values.unbind(1)
    largest, margin = logits.abs().max().item(), (best - second).max().item()
    if largest >= LARGE_LOGIT:
        what, size = "logits", largest
    elif classes < DLR_CLASSES and margin > MODERATE_LOGIT:
        what, size = "differences of two logits", margin
    else:
        return Admitted(model, warnings, random)
    rescaled = Rescaled(model, 2.0 ** torch.tensor(size / MODERATE_LOGIT).log2().ceil().item())
    warnings.append(f"{what} as large as {size:.3g} hide the gradient: attacked after division by {rescaled.by:g}")
    return Admitted(rescaled, warnings, random)


def look(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the input gradient of a weighted sum of them: a NaN in any class's gradient is in it too.

    Raises ValueError in one line where a model has no logits or no input gradient, or is not in float32.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(f"the model's {name} is {parameter.dtype}: expected float32, call model.float()")
    given, images = images, images.clone().requires_grad_()
    with torch.enable_grad():
        try:
            logits = model(images)
        except Exception as error:
            if out_of_memory(error):  # of which this model may be innocent
                raise
            message = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            last = images.shape[1] > images.shape[3] in (1, 3)
            hint = "; are the channels last? expected (N, C, H, W): images.permute(0, 3, 1, 2)" if last else ""
            raise ValueError(
                f"the model fails on images {tuple(images.shape)} float32 in [0, 1]: {message}{hint}"
            ) from error
        if not torch.equal(images.detach(), given):
            raise ValueError("the model changes its input in place: expected images as they were, begin with .clone()")
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"the model returns a {type(logits).__name__}: expected a tensor of logits (N, classes)"
                + _advice(logits)
            )
        if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
            raise ValueError(
                f"the model returns shape {tuple(logits.shape)} for {len(images)} images: expected logits "
                f"({len(images)}, classes) of two classes or more"
            )
        if logits.dtype != torch.float32:
            raise ValueError(
                f"the model returns {logits.dtype}: expected logits in float32, no classes; of half precision hand "
                "over lambda images: model(images).float()"
            )
        if not logits.isfinite().all():
            classes = (~logits.isfinite()).any(0).nonzero().flatten().tolist()
            raise ValueError(
                f"the logits are NaN or infinite on {_rows(~logits.isfinite())} of {len(images)} images, in classes "
                f"{', '.join(map(str, classes[:5]))}: expected finite ones"
            )
        weights = torch.arange(1.0, logits.shape[1] + 1, device=logits.device)
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "the model gives no gradient with respect to its images, so that most attacks would be blind: return "
            "logits without .detach(), torch.no_grad(), argmax or a threshold"
        )
    return logits.detach(), gradient


def _advice(output: Any) -> str:
    """How to get logits from what a model returned instead of them."""
    if hasattr(output, "logits"):
        return ", wrap it: lambda images: model(images).logits"
    if isinstance(output, (tuple, list)):
        return ", wrap it: lambda images: model(images)[0]"
    if isinstance(output, Mapping):
        return f", wrap it: lambda images: model(images)[…], with one of {', '.join(map(str, output))}"
    return " of PyTorch, which the attacks differentiate"


def _company(model: nn.Module, images: Tensor) -> tuple[bool, list[str]]:
    """Whether the model is random, and whether what it says of an image depends on the others of its batch, as batch
    statistics at test time make it."""
    with torch.no_grad():
        logits, again = model(images), model(images)
        beside = model(torch.cat([images, 1 - images]))[: len(images)]
    tolerance = SAME * logits.abs().max()
    if (again - logits).abs().max() > tolerance:  # without any company; AutoAttack has a flag of its own for it
        return True, []
    if (beside - logits).abs().max() <= tolerance:
        return False, []
    return False, [
        "the logits of an image depend on the other images of its batch (batch statistics at test time?): the robust "
        "accuracy is that of these batches alone"
    ]


def _rows(wrong: Tensor) -> int:
    """Of how many images anything is wrong."""
    return int(wrong.flatten(1).any(1).sum())
