"""`diffusion`, `distill` and `heuristics` of a conf: where the gradients come from."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pag.foundation.config.section import (
    BatchSize,
    Candidates,
    Computable,
    Count,
    Depth,
    Draws,
    Fraction,
    LearningRate,
    Level,
    Precision,
    Section,
    Share,
    Side,
    Timesteps,
    TrainingSteps,
    Width,
)


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
