"""conf/<dataset>.yaml: how the whole chain runs on one dataset; every key with its meaning, unit and range."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from pag.foundation.config.section import (
    AttackSteps,
    Baseline,
    BatchSize,
    Candidates,
    Classes,
    Computable,
    ConfigError,
    Count,
    Depth,
    Distance,
    Draws,
    Epochs,
    Fraction,
    GradientOf,
    LearningRate,
    Level,
    Norm,
    Padding,
    Precision,
    Radius,
    Range,
    Realization,
    RobustMethod,
    Section,
    Share,
    Side,
    Timesteps,
    TrainingSteps,
    Weight,
    Width,
    load,
    nearest,
    without_activation,
)


class DataConfig(Section):
    """Where the images come from and how they are split."""

    loader: str  # a name of pag.datasets.LOADERS
    root: str | None = None  # folder or archive of the raw files; a relative path starts at the repository
    download: bool = False  # may the loader fetch missing raw files
    # The validation part: model selection may look only at it. Where the source has one of its own, nothing is cut.
    validation_fraction: Fraction = 0.1  # of the training images, stratified
    test_fraction: Fraction | None = None  # only for sources without an official test part
    train_limit: Count | None = None  # keep this many training images, class-balanced
    test_limit: Count | None = None
    image_size: Side | None = None  # resize to this side in pixels (folders of larger images); null keeps the source's
    allow_overlap: bool = False  # may over 1 % of a part's images be in another part too, or have two labels
    allow_dark: bool = False  # may the largest raw value be below a quarter of white
    note: str | None = None  # stands beside every number of the report, e.g. "JPEG copy"


class CheckpointConfig(Section):
    """A class-conditional network of guided-diffusion or improved-diffusion, converted instead of trained."""

    path: str  # EMA weights (ema_*.pt) or raw ones (model*.pt); a relative path starts at the repository
    # of the file, as sha256sum says it: other weights are other gradients
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    attention_order: Literal["legacy", "new"] = "legacy"  # new: trained with use_new_attention_order


class DiffusionConfig(Section):
    """The class-conditional DDPM: schedule, U-Net, training."""

    checkpoint: CheckpointConfig | None = None  # null: train; otherwise the values of training do nothing

    schedule: Literal["cosine", "linear"] = "cosine"
    timesteps: Timesteps = 4000
    rescale_timesteps: bool = True  # the network sees t · 1000 / timesteps
    learn_sigma: bool = True
    noise_levels: Literal["all", "single", "band"] = "all"  # which t the training visits
    alpha_bar: Fraction = 0.5  # the level of `single`, and the default level of the gradients
    band: tuple[Fraction, Fraction] = (0.4, 0.6)  # alpha_bar range of `band`
    image_size: Side | None = None  # side the U-Net works at; images are resized bicubically when it differs
    channels: Width = 128
    multipliers: Annotated[list[Depth], Field(min_length=1, max_length=12)] = Field([1, 2, 2, 2])
    blocks: Depth = 3  # residual blocks per resolution
    attention: list[Side] = Field([16, 8])  # resolutions (pixels a side) that have self-attention
    head_dim: Width = 64  # channels of an attention head …
    heads: Width | None = None  # … or as many heads at every level
    scale_shift_norm: bool = True  # time and class scale and shift the normalised features; false: are added before
    resblock_updown: bool = False  # residual blocks change the resolution; false: convolutions
    dropout: Share = 0.3
    steps: TrainingSteps = 200_000
    batch_size: BatchSize = 128
    lr: LearningRate = 1e-4
    ema_decay: Share = 0.9999  # reached by a warm-up min(decay, (1+step)/(10+step))
    precision: Precision = "float32"
    compile: bool = False

    @model_validator(mode="before")
    @classmethod
    def _band_from_list(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("band"), list):
            return {**values, "band": tuple(values["band"])}
        return values

    @model_validator(mode="after")
    def _band_is_ordered(self) -> "DiffusionConfig":
        if self.band[0] >= self.band[1]:
            raise ValueError(f"band is [low, high] in alpha_bar with low < high, got {list(self.band)}")
        return self


class DistillConfig(Section):
    """The gradients of every training image and class; what concerns the heuristics alone is theirs."""

    t: Level | None = None  # noise level of SBG as a timestep; null: diffusion.alpha_bar
    noise_draws: Draws = 1  # noise samples averaged per image (SBG)
    bits: Literal[4, 8] = 8  # of the stored direction, per pixel
    batch_size: BatchSize = 64  # images held at once; the stored bytes do not depend on it
    heldout_images: Count = 200  # class-balanced test images on which gradient alignment is measured


class HeuristicsConfig(Section):
    """OI, CM and NN; a section of its own, so that a change here leaves the score-based gradients as they are."""

    nn_candidates: Candidates = 1000  # size of the limited set D_y that NN searches, per class
    computed: list[Computable] = Field([])  # no store for these: training computes the same directions as it reads them

    @model_validator(mode="after")
    def _computed_once(self) -> "HeuristicsConfig":
        if len(set(self.computed)) < len(self.computed):
            raise ValueError(f"computed names a realization twice: {', '.join(self.computed)}")
        return self


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


class LargeEpsConfig(Section):
    """Targeted PGD far outside the threat model, which shows perceptually aligned gradients."""

    eps: Radius  # L2
    steps: AttackSteps = 40
    images: Count = 6  # test images (rows of the grid)


class AttackConfig(Section):
    """Which AutoAttack. `quick` is for choosing values on validation images and for smoke tests, never for results."""

    version: Literal["standard", "quick"] = "standard"  # quick: APGD-CE and APGD-T alone, with the budget below
    steps: AttackSteps | None = None  # of quick, of each attack; null: 20 (the standard version has 100)
    # of quick's APGD-T; null: 9, as in the standard
    target_classes: Annotated[int, Range(1, 9, "the standard version has as many")] | None = None

    @model_validator(mode="after")
    def _standard_is_standard(self) -> "AttackConfig":
        given = [key for key in ("steps", "target_classes") if getattr(self, key) is not None]
        if self.version == "standard" and given:
            raise ValueError(f"{given[0]} belongs to `version: quick`: the standard version has its own budget")
        return self


class EvaluationConfig(Section):
    """What every classifier is measured against."""

    attack: AttackConfig = Field(default_factory=AttackConfig)
    threat_models: dict[Norm, Annotated[list[Radius], Field(min_length=1)]]
    split: Literal["test", "validation"] = "test"  # validation: to choose values by; the report says which
    images: Count | None = None  # class-balanced images under attack, drawn by `seed`; null: all of the split
    batch_size: BatchSize = 256
    foolbox: dict[str, Distance | None] = Field({})  # attack -> eps in its own distance; null: smallest found
    curve: dict[Norm, Annotated[list[Radius], Field(min_length=1)]] = Field({})  # radii of a quick attack, for a figure
    sanity: Count | None = None  # class-balanced images for the checks of the evaluation itself; null: no checks
    large_eps: LargeEpsConfig

    @model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, values: Any) -> Any:
        """`foolbox: null` switches the attacks off, as `curve: null` does; `dvc exp run -S` cannot empty a section."""
        if not isinstance(values, dict):
            return values
        return {key: {} if key in ("foolbox", "curve") and value is None else value for key, value in values.items()}

    @model_validator(mode="after")
    def _radii_in_range(self) -> "EvaluationConfig":
        for key, threat_models in (("threat_models", self.threat_models), ("curve", self.curve)):
            for norm, radii in threat_models.items():
                if radii != sorted(set(radii)):
                    raise ValueError(f"{key}.{norm} must be an increasing list of radii, got {radii}")
                for eps in radii:
                    check_radius(norm, eps, f"{key}.{norm}")
        return self


class Conf(Section):
    """conf/<dataset>.yaml"""

    data: DataConfig
    diffusion: DiffusionConfig
    distill: DistillConfig
    heuristics: HeuristicsConfig
    classifier: ClassifierConfig
    alignment: AlignmentConfig
    methods: MethodsConfig
    evaluation: EvaluationConfig
    variants: dict[str, Any] = Field({})  # further runs by name: see runs.py
    external: dict[str, Any] = Field({})  # networks of others by name: see external.py

    @model_validator(mode="after")
    def _level_in_schedule(self) -> "Conf":
        if self.distill.t is not None and self.distill.t >= self.diffusion.timesteps:
            raise ValueError(
                f"distill.t = {self.distill.t} lies outside the schedule 0..{self.diffusion.timesteps - 1}"
            )
        return self


def check_radius(norm: Norm, eps: float, key: str = "eps", pixels: int | None = None) -> None:
    """Refuse a radius that means nothing on images in [0, 1].

    key: the parameter's name for the message. pixels: C·H·W of an image, where it is known.
    """
    diameter = 1.0 if norm == "Linf" else math.inf if pixels is None else math.sqrt(pixels)
    if not 0 < eps <= diameter:
        most = "" if diameter == math.inf else f" and at most {diameter:.4g}: no two images are farther apart"
        raise ValueError(f"{key} = {eps} for {norm}: expected above 0{most}")


def load_conf(dataset: str, folder: Path = Path("conf")) -> Conf:
    """The conf of one dataset. Raises ConfigError with one line that names the key and the nearest valid one."""
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "toy")
    if dataset not in known:
        raise ConfigError(f"unknown dataset '{dataset}'{nearest(dataset, known)}; each has a file conf/<dataset>.yaml")
    return load(Conf, folder / f"{dataset}.yaml")
