"""What a training run is: a method with the values that params.yaml, conf/<dataset>.yaml and `variants` give it.

A run is named by its method (vanilla, at-l2, sbg, at-l2+sbg …) or by an entry under `variants` of a conf, which is one
of the methods with some values of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, model_validator

from pag.foundation.config.conf import Conf
from pag.foundation.config.params import Params
from pag.foundation.config.section import (
    Baseline,
    Classes,
    ConfigError,
    GradientOf,
    Realization,
    RobustMethod,
    Section,
    Seed,
    Weight,
    check,
    nearest,
)
from pag.foundation.config.training import AlignmentConfig

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # a dot would split DVC's parameter keys

Study = Literal["sweep", "seeds", "other"]


class Variant(Section):
    """What a run changes; a value that is not given is that of the other sections of conf."""

    method: str  # vanilla | at-l2 | … | gradnorm | … | oi | … | sbg | at-l2+sbg | …
    weight: Weight | None = Field(None, alias="lambda")
    classes_per_image: Classes | Literal["all"] | None = None
    gradient_of: GradientOf | None = None
    penalty: Weight | None = None  # weight of gradnorm
    training_seed: Seed | None = None

    @model_validator(mode="after")
    def _fits_the_method(self) -> "Variant":
        known = list(methods())
        if self.method not in known:
            raise ValueError(f"unknown method '{self.method}'{nearest(self.method, known)}")
        aligned = {"lambda": self.weight, "classes_per_image": self.classes_per_image, "gradient_of": self.gradient_of}
        for key, value in aligned.items():
            if value is not None and self.realization is None:
                raise ValueError(f"{key} = {value} means nothing for '{self.method}', which aligns no gradients")
        if self.penalty is not None and self.method != "gradnorm":
            raise ValueError(f"penalty = {self.penalty} means nothing for '{self.method}', expected gradnorm")
        return self

    @property
    def robust(self) -> RobustMethod | None:
        """The adversarial part of the method."""
        part = self.method.split("+")[0]
        return part if part in get_args(RobustMethod) else None  # type: ignore[return-value]

    @property
    def realization(self) -> Realization | None:
        """The gradients that the method aligns with."""
        part = self.method.split("+")[-1]
        return part if part in get_args(Realization) else None  # type: ignore[return-value]

    @property
    def study(self) -> Study:
        """The comparison that the run belongs to: over λ, or over training seeds."""
        if self.training_seed is not None:
            return "seeds"
        only_weight = self.weight is not None and self.classes_per_image is None and self.gradient_of is None
        return "sweep" if only_weight else "other"


def variant_of(conf: Conf, dataset: str, name: str) -> Variant:
    """One variant of a conf; the others are not looked at.

    Raises ConfigError with one line that names the variant and the key, and for an unknown name.
    """
    if name not in conf.variants:
        known = nearest(name, [*methods(), *conf.variants])
        raise ConfigError(f"unknown run '{name}': no method, and no variant of conf/{dataset}.yaml{known}")
    source = f"conf/{dataset}.yaml: variants.{name}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{source}: a name has lower-case letters, digits and single hyphens")
    if name in methods():
        raise ConfigError(f"{source}: '{name}' is the name of a method, whose results would be overwritten")
    return check(Variant, conf.variants[name], source)


def methods() -> Iterator[str]:
    """The names of all methods."""
    yield from get_args(Baseline)
    yield from get_args(Realization)
    for robust in get_args(RobustMethod):
        yield from (f"{robust}+{realization}" for realization in get_args(Realization))


@dataclass(frozen=True)
class Run:
    """Everything that tells one training from another on the same images and architecture."""

    name: str
    method: str
    baseline: Baseline | None  # without alignment, or what alignment is added to; None for alignment alone
    realization: Realization | None  # the gradients to align with
    weight: float  # λ; 0 without alignment
    alignment: AlignmentConfig  # its defaults without alignment
    penalty: float | None  # weight of gradnorm; None for all others
    training_seed: int


def run_of(name: str, dataset: str, arch: str, params: Params, conf: Conf) -> Run:
    """The run `name` on a data set and architecture. Raises ConfigError, one line, for an unknown or impossible one.

    λ is params.yaml's where that is set, otherwise conf's for the method and architecture. A variant has its own or
    conf's; `validate` refuses one without where params.yaml has a λ.
    """
    a_method = name in methods()
    variant = Variant.model_validate({"method": name}) if a_method else variant_of(conf, dataset, name)
    weight, alignment, penalty = 0.0, AlignmentConfig(), variant.penalty
    # what does not concern the run is not read: in dvc.yaml its stage does not depend on it
    if variant.realization is not None:
        given = params.weight if a_method else None
        usual = conf.methods.aligned(variant.realization, variant.robust).for_arch(arch)
        weight = next(value for value in (variant.weight, given, usual) if value is not None)
        changed = {"classes_per_image": variant.classes_per_image, "gradient_of": variant.gradient_of}
        alignment = conf.alignment.model_copy(
            update={key: value for key, value in changed.items() if value is not None}
        )
    if variant.method in get_args(Baseline) and conf.methods.of(variant.method) is None and penalty is None:  # type: ignore[arg-type]
        raise ConfigError(f"conf/{dataset}.yaml: methods.{variant.method}: missing, the run '{name}' needs it")
    if variant.method == "gradnorm" and penalty is None and conf.methods.gradnorm is not None:
        penalty = conf.methods.gradnorm.weight
    return Run(
        name=name,
        method=variant.method,
        baseline=variant.robust if variant.realization else variant.method,  # type: ignore[arg-type]
        realization=variant.realization,
        weight=weight,
        alignment=alignment,
        penalty=penalty,
        training_seed=params.training_seed if variant.training_seed is None else variant.training_seed,
    )
