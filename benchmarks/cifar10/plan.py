"""From measured rates and the time that is left to what is run: arithmetic only.

The two sizes that cost most are chosen here: the steps of the diffusion model, and later, when it and the gradients
are there, the methods, their epochs and the number of images under attack.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

RESERVE = 0.06  # of the remaining time stays unplanned: rates drift
DIFFUSION_SHARE = 0.32  # of what is left after the fixed costs

# Images × radii that meet every attack with its whole budget, as a multiple of the images attacked: a guess that the
# first evaluation corrects. Three threat models; most images of an undefended network fall to the first attack.
ATTACK_LOAD = {"vanilla": 0.15}
ATTACK_LOAD_ROBUST = 1.2
ATTACKED_RADII = {"vanilla": 1}  # at which any image is left for all the attacks
ATTACKED_RADII_ROBUST = 3


@dataclass(frozen=True)
class Rates:
    """Seconds, measured on the machine with the settings of the run."""

    diffusion_step: float
    distilled_image: float  # SBG of one image, all classes
    heuristic_image: float  # CM of one image: what writing the store costs
    training_step: dict[str, float]  # by arch/method
    attacked_radius: dict[str, float]  # by arch: every attack of the standard version at one radius, however few images
    attacked_image: dict[str, float]  # by arch: what each image adds to that
    compile_diffusion: float = 0.0  # until a compiled network runs at its rate
    compile_training: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """What the arithmetic needs to know of the data and of the limits of the run."""

    methods: Sequence[str]  # arch/method in the order of importance: the last ones are given up first
    required: int  # how many of them are run in any case
    train_images: int
    steps_per_epoch: int
    min_epochs: int
    max_epochs: int
    attack_images: Sequence[int]  # rising; the first is the least that is worth reporting
    max_diffusion_steps: int
    stage_overhead: float  # seconds that every stage spends on loading, checking and saving
    attack_share: float  # of an evaluation's seconds that the training cannot use; below 1 where both run side by side


@dataclass(frozen=True)
class Plan:
    """The classifiers and their evaluation; `given_up` says in words what the time did not allow."""

    methods: tuple[str, ...]
    epochs: int
    attack_images: int
    seconds: dict[str, float]  # expected, by stage; also of methods that get what time turns out to be left
    given_up: tuple[str, ...]


def realizations(methods: Sequence[str]) -> tuple[str, ...]:
    """The gradient stores that `methods` read."""
    names = [method.split("/")[1].rsplit("+", 1)[-1] for method in methods]
    return tuple(name for name in ("sbg", "cm") if name in names)


def distillation_seconds(rates: Rates, sizes: Sizes, realization: str) -> float:
    per_image = rates.distilled_image if realization == "sbg" else rates.heuristic_image
    return sizes.train_images * per_image + sizes.stage_overhead


def training_seconds(rates: Rates, sizes: Sizes, method: str, epochs: int) -> float:
    steps = epochs * sizes.steps_per_epoch
    return steps * rates.training_step[method] + rates.compile_training + sizes.stage_overhead


def attack_seconds(rates: Rates, sizes: Sizes, method: str, images: int) -> float:
    arch, name = method.split("/")
    load = ATTACK_LOAD.get(name, ATTACK_LOAD_ROBUST)
    radii = ATTACKED_RADII.get(name, ATTACKED_RADII_ROBUST)
    return radii * rates.attacked_radius[arch] + load * images * rates.attacked_image[arch] + sizes.stage_overhead


def diffusion_steps(rates: Rates, sizes: Sizes, seconds_left: float) -> int:
    """Steps of the diffusion model: its share of what the distillation and everything fixed leave."""
    fixed = rates.compile_diffusion + sum(distillation_seconds(rates, sizes, name) for name in ("sbg", "cm"))
    seconds = DIFFUSION_SHARE * ((1 - RESERVE) * seconds_left - fixed)
    return max(1, min(sizes.max_diffusion_steps, int(seconds / rates.diffusion_step)))


def plan_classifiers(rates: Rates, sizes: Sizes, seconds_left: float) -> Plan:
    """Methods, epochs and attacked images that fill `seconds_left`.

    First as many methods as can have `min_epochs` and the least number of images; then the larger numbers of
    images as long as the epochs stay above the middle of their range; all remaining time goes to the epochs.
    """
    available = (1 - RESERVE) * seconds_left
    images = sizes.attack_images[0]
    for count in range(len(sizes.methods), sizes.required - 1, -1):
        methods = tuple(sizes.methods[:count])
        epochs = _epochs(rates, sizes, methods, images, available)
        if epochs >= sizes.min_epochs:
            break
    comfortable = (sizes.min_epochs + sizes.max_epochs) // 2
    for more in sizes.attack_images[1:]:
        if _epochs(rates, sizes, methods, more, available) >= comfortable:
            images = more
    epochs = min(sizes.max_epochs, max(1, _epochs(rates, sizes, methods, images, available)))

    seconds = {f"train {method}": training_seconds(rates, sizes, method, epochs) for method in sizes.methods}
    seconds |= {f"evaluate {method}": attack_seconds(rates, sizes, method, images) for method in sizes.methods}
    given_up = [f"{method}: only if time is left" for method in sizes.methods[len(methods) :]]
    if epochs < sizes.min_epochs:
        given_up.append(f"epochs: {epochs}, fewer than the {sizes.min_epochs} that were wanted")
    return Plan(methods, epochs, images, seconds, tuple(given_up))


def _epochs(rates: Rates, sizes: Sizes, methods: Sequence[str], images: int, available: float) -> int:
    """The epochs, the same for all `methods`, that fit; 0 or less where not even the rest does."""
    fixed = sizes.attack_share * sum(attack_seconds(rates, sizes, method, images) for method in methods)
    fixed += sum(training_seconds(rates, sizes, method, 0) for method in methods)
    epoch = sum(sizes.steps_per_epoch * rates.training_step[method] for method in methods)
    return math.floor((available - fixed) / epoch)
