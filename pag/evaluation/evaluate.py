"""One call from a model and images to its robustness: clean accuracy, AutoAttack, Foolbox, gradient alignment.

found = evaluate(model, images, labels, {"L2": [0.5, 1.0], "Linf": [8 / 255]})
found.clean_accuracy, found.robust_accuracy["L2"][0.5], found.warnings
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pag.classifiers.given import require_finite, require_logits, require_tensors
from pag.evaluation.admission import checked, look
from pag.evaluation.alignment import gradient_alignment
from pag.evaluation.autoattack import STANDARD, NormResult, evaluate_autoattack, frozen
from pag.evaluation.foolbox import FoolboxResult, checked_attacks, evaluate_foolbox
from pag.evaluation.standard import Budget
from pag.evaluation.wrapped import Function
from pag.foundation.config.section import Norm, is_number
from pag.foundation.processes import shared_out
from pag.store.reader import GradientStore

ALIGNED_AT_ONCE = 32  # images; with every class of each
LOOKED_AT = 8  # images, before a model is measured


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on the images that were attacked. Accuracies are fractions in [0, 1]."""

    # image by image: the smallest radius that broke it, by which attack, the example
    by_norm: dict[Norm, NormResult] = field(repr=False)
    attack: Budget
    warnings: list[str]  # AutoAttack's reliability flags, and what is doubtful about the model
    notes: list[str]  # departures from AutoAttack's standard version on few classes
    foolbox: dict[str, FoolboxResult] = field(default_factory=dict, repr=False)
    alignment: float | None = None  # mean cosine with the directions, in [−1, 1]

    def __str__(self) -> str:
        """The accuracies and the alignment in a line; the rest is in the attributes."""
        parts = [f"clean {self.clean_accuracy:.1%}"]
        parts += [
            f"{norm} {eps:.3g} {value:.1%}" for norm, of in self.robust_accuracy.items() for eps, value in of.items()
        ]
        parts += [] if self.alignment is None else [f"cosine {self.alignment:.3f}"]
        return ", ".join([*parts, f"{len(self.warnings)} warnings"])

    @property
    def clean_accuracy(self) -> float:
        return next(found.robust_accuracy(0.0) for found in self.by_norm.values())

    @property
    def robust_accuracy(self) -> dict[Norm, dict[float, float]]:
        """norm → radius → the fraction of images that no attack broke within it."""
        return {norm: {eps: found.robust_accuracy(eps) for eps in found.eps} for norm, found in self.by_norm.items()}


def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    radii: Mapping[Norm, Sequence[float]],
    *,
    attack: Budget = STANDARD,
    foolbox: Mapping[str, float | None] | None = None,
    directions: tuple[Tensor, GradientStore | Tensor] | None = None,
    batch_size: int = 256,
    seed: int = 0,
    processes: int = 1,
    cache: str | Path | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Evaluation:
    """Measure `model` on exactly these images.

    model: maps images (B, C, H, W) in [0, 1] to logits (B, num_classes), float32, on any device. A module is attacked
        in eval mode with frozen parameters, and left as it was. Modules that a function visibly calls are frozen too,
        and refused in training mode.
    images: (N, C, H, W) floats in [0, 1]; labels: (N,) integers, the classes. They are moved to the model's device.
    radii: norm ("L2" or "Linf") → radii in units of the pixel range [0, 1], in any order.
    attack: AutoAttack's standard version, or ``quick()`` (Foolbox too) to choose values by; its numbers are no results.
    foolbox: attack (a name of pag.evaluation.foolbox.ATTACKS) → radius in its own distance; None: smallest example.
    directions: (images, class_gradients) to `measure_alignment` with; the images need not be the attacked ones.
    batch_size: images attacked at once. seed: of the attacks' random numbers.
    processes: how many share the attacks on a CPU. More than one needs a main guard in a script.
    cache: a scratch folder for this model alone that finished parts are kept in; the same call goes on from there.
    progress: called with (decided, all, decided and not broken) pairs of an image and a threat model.
    Returns clean_accuracy, robust_accuracy[norm][radius], alignment, foolbox, warnings, notes; by_norm has the smallest
        radius and the example of every image.
    Raises ValueError or ConfigError in one line for what cannot be evaluated.
    """
    images, labels = checked(images, labels)
    counts = {"batch_size": (batch_size, 1), "processes": (processes, 1), "seed": (seed, 0)}
    _check_options(attack, counts, cache, progress)
    folder = None if cache is None else Path(cache)
    network = model if isinstance(model, nn.Module) else Function(model)
    device = device_of(network, images)
    images, labels = images.to(device), labels.to(device)
    foolbox = checked_attacks(foolbox or {})  # all that is asked for, before hours of attacks
    ruler = None if directions is None else _checked_directions(network, directions)
    found = evaluate_autoattack(
        network,
        images,
        labels,
        radii,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        cache=folder,
        processes=processes if device.type == "cpu" else 1,
        budget=attack,
    )
    steps = attack.steps if attack.short_foolbox else None
    others = evaluate_foolbox(
        network, images, labels, foolbox, batch_size=batch_size, seed=seed, cache=folder, quick_steps=steps
    )
    alignment, blind = (None, 0) if ruler is None else _alignment(network, *ruler)
    unmeasured = [f"alignment was not measured: {_nan(blind)}"] if blind else []
    return Evaluation(
        by_norm=found.by_norm,
        attack=attack,
        warnings=found.warnings + unmeasured,
        notes=found.notes,
        foolbox=others,
        alignment=alignment,
    )


def _check_options(attack: Any, counts: dict[str, tuple[Any, int]], cache: Any, progress: Any) -> None:
    """Raises ValueError in one line. counts: name → what was given, and the least that it may be."""
    if not isinstance(attack, Budget):
        raise ValueError(f"attack is {attack!r}: expected a Budget, such as quick() of pag.evaluation.standard")
    for name, (number, least) in counts.items():
        if not is_number(number) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name} is {number!r}: expected a whole number from {least} on")
    if cache is not None and (not isinstance(cache, str | Path) or Path(cache).is_file()):
        raise ValueError(f"cache is {cache!r}: expected the path of a folder, which may be new")
    if progress is not None and not callable(progress):
        raise ValueError(f"progress is {progress!r}: expected a function of (decided, all, decided and not broken)")


def measure_alignment(
    model: nn.Module | Callable[[Tensor], Tensor], images: Tensor, class_gradients: GradientStore | Tensor
) -> float:
    """Mean cosine between input gradients and given directions, over images and classes: how aligned `model` is.

        1/(M·K) · Σ_x Σ_y cos(∇_x log p(y|x), g(x, y)), in [−1, 1]

    model: as in `evaluate`; a module is measured in eval mode and left as it was.
    images: (M, C, H, W) floats in [0, 1].
    class_gradients: g of these images in this order towards all of the model's K classes, of any scale: a gradient
        store or a tensor (M, K, C, H, W). A direction that is zero everywhere is left out of the mean
        over its image's classes, which comes before that over images.
    Raises ValueError in one line for other shapes, types or ranges, and where the model's gradients are NaN.
    """
    network = model if isinstance(model, nn.Module) else Function(model)
    alignment, blind = _alignment(network, *_checked_directions(network, (images, class_gradients)))
    if alignment is None:
        raise ValueError(_nan(blind))
    return alignment


def device_of(network: nn.Module, images: Tensor) -> torch.device:
    """Where the network is; without weights, where the images are."""
    return next((tensor.device for tensor in [*network.parameters(), *network.buffers()]), images.device)


def _nan(images: int) -> str:
    return f"the model's input gradients are NaN on {images} images: look for a square root or a division by zero in it"


def _checked_directions(network: nn.Module, directions: Any) -> tuple[Tensor, GradientStore | Tensor]:
    """(images, class_gradients) that `network` can be measured with. Raises ValueError in one line for others."""
    if not isinstance(directions, tuple) or len(directions) != 2:
        raise ValueError(f"directions are a {type(directions).__name__}: expected a pair (images, class_gradients)")
    images, class_gradients = directions
    if not isinstance(class_gradients, Tensor | GradientStore):
        raise ValueError(
            f"class_gradients are a {type(class_gradients).__name__}: expected a tensor or pag.open_gradients(…)"
        )
    require_tensors(images=images)
    images, _ = checked(images, torch.zeros(len(images), dtype=torch.long))
    with frozen(network):
        logits, _ = look(network, images[:LOOKED_AT].to(device_of(network, images)))
    require_logits(logits)
    classes = logits.shape[1]
    given, expected = tuple(class_gradients.shape), (len(images), classes, *images.shape[1:])
    if given != expected:
        raise ValueError(
            f"class_gradients have shape {given}: expected {expected}, images × the model's classes × image shape"
        )
    if isinstance(class_gradients, Tensor):
        require_finite("finite numbers", class_gradients=class_gradients)
    return images, class_gradients


def _alignment(network: nn.Module, images: Tensor, class_gradients: GradientStore | Tensor) -> tuple[float | None, int]:
    """The mean cosine; None where the model's gradient is NaN on some images, and on how many."""
    device = device_of(network, images)

    def cosines(rows: np.ndarray) -> Tensor:
        if isinstance(class_gradients, Tensor):
            directions = class_gradients[torch.from_numpy(rows)]
        else:
            directions = torch.from_numpy(class_gradients.read_all_classes(rows))
        measured = gradient_alignment(network, images[rows].to(device), directions.to(device)).cpu()
        return torch.stack([measured, directions.flatten(1).ne(0).any(1)], dim=1)  # and whether there was any

    with frozen(network):
        parts = np.array_split(np.arange(len(images)), max(1, len(images) // ALIGNED_AT_ONCE))
        found, directed = torch.cat(shared_out([partial(cosines, rows) for rows in parts])).unbind(1)
    found = found[directed.bool()]
    if len(found) == 0:
        raise ValueError("class_gradients are all zero: expected directions")
    blind = int(found.isnan().sum())
    return (None, blind) if blind else (found.mean().item(), 0)
