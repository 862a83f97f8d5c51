"""`classifier`, `alignment` and `methods` of a conf: how classifiers are trained."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from pag.foundation.config.section import (
    AttackSteps,
    Baseline,
    BatchSize,
    Classes,
    Epochs,
    GradientOf,
    LearningRate,
    Norm,
    Padding,
    Precision,
    Radius,
    Range,
    Realization,
    RobustMethod,
    Section,
    Share,
    Weight,
    check_radius,
    without_activation,
)


class ClassifierConfig(Section):
    """Classifier training, the same for every method."""

    epochs: Epochs = 100
    batch_size: BatchSize = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: LearningRate = 0.01
    momentum: Share = 0.9  # SGD only
    weight_decay: Annotated[float, Range(0, 10, "beyond, nothing but the decay is trained")] = 1e-4
    lr_schedule: Literal["steps", "cosine", "constant"] = "steps"  # steps: ×0.1 at 50 %, ×0.01 at 75 % of the epochs
    crop_padding: Padding = 4  # pixels; 0 switches random crops off
    flip: bool = True
    precision: Precision = "float32"
    compile: bool = False


class AlignmentConfig(Section):
    """The alignment term: λ · Σ_y (1 − cos(∇_x log p(y|x), g(x, y)))."""

    classes_per_image: Classes | Literal["all"] = 1  # k random classes with weight C/k, or the whole sum
    gradient_of: GradientOf = "log_softmax"


class VanillaConfig(Section):
    """Plain training has no parameters of its own; the section exists so that every method has one."""


class AdversarialConfig(Section):
    """Adversarial training (or TRADES) against one threat model."""

    norm: Norm
    eps: Radius
    steps: AttackSteps = 7
    step_size: Radius | None = None  # null: 1.5 · eps / steps
    beta: Weight | None = None  # TRADES trade-off; null means plain adversarial training

    @model_validator(mode="after")
    def _stays_in_the_ball(self) -> "AdversarialConfig":
        check_radius(self.norm, self.eps)
        if self.step_size is not None and self.step_size > 2 * self.eps:
            raise ValueError(f"step_size = {self.step_size}: expected at most {2 * self.eps:g}, the width of the ball")
        return self


class GradientNormConfig(Section):
    """Cross-entropy plus weight · ‖∇_x CE‖₁: a control for alignment, whose cost it has."""

    weight: Weight  # in pixel units of [0, 1]: a first-order L∞ radius


class NoiseConfig(Section):
    """Training on images with Gaussian noise, not clamped."""

    # the standard deviation, in pixel units of [0, 1]
    sigma: Annotated[float, Range(0, 10, "nothing of an image would be left", excluded=(0,))]


class AlignedConfig(Section):
    """λ in the convention of the full sum over classes, by architecture; `default` serves the rest.

    An architecture with another activation than usual (rn18-silu) has the value of the usual one unless it is named.
    """

    weight: dict[str, Weight] = Field(alias="lambda")

    @model_validator(mode="after")
    def _has_default(self) -> "AlignedConfig":
        if "default" not in self.weight:
            raise ValueError("lambda needs the key 'default', with further architectures beside it if they differ")
        return self

    def for_arch(self, arch: str) -> float:
        names = arch, without_activation(arch), "default"
        return next(self.weight[name] for name in names if name in self.weight)


class MethodsConfig(Section):
    """Method-specific values; the keys are the method names of params.yaml."""

    vanilla: VanillaConfig
    at_l2: AdversarialConfig = Field(alias="at-l2")
    at_linf: AdversarialConfig = Field(alias="at-linf")
    trades_linf: AdversarialConfig = Field(alias="trades-linf")
    gradnorm: GradientNormConfig | None = None  # the controls: a conf that does not name one cannot run it
    noise: NoiseConfig | None = None
    oi: AlignedConfig
    cm: AlignedConfig
    nn: AlignedConfig
    sbg: AlignedConfig
    at_pag: AlignedConfig = Field(alias="at+pag")  # alignment added to adversarial training
    trades_pag: AlignedConfig = Field(alias="trades+pag")

    @model_validator(mode="after")
    def _adversaries_are_what_they_are_called(self) -> "MethodsConfig":
        for method in get_args(RobustMethod):
            config, norm = self.adversarial(method), "L2" if method.endswith("l2") else "Linf"
            if config.norm != norm:
                raise ValueError(f"{method}.norm: expected {norm}, got {config.norm}")
            if (config.beta is not None) != method.startswith("trades"):
                expected = "a number, as TRADES weighs by it" if config.beta is None else "null, as only TRADES has it"
                raise ValueError(f"{method}.beta: expected {expected} (got {config.beta})")
        return self

    def adversarial(self, method: RobustMethod) -> AdversarialConfig:
        return self.of(method)  # type: ignore[return-value]

    def of(self, method: Baseline) -> Section | None:
        """The section of a method without alignment; None where a control has none."""
        return getattr(self, method.replace("-", "_"))

    def aligned(self, realization: Realization, robust: RobustMethod | None) -> AlignedConfig:
        if robust is None:
            return getattr(self, realization)
        return self.trades_pag if robust.startswith("trades") else self.at_pag
