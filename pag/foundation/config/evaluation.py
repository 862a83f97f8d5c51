"""`evaluation` of a conf: what every classifier is measured against."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pag.foundation.config.section import (
    AttackSteps,
    BatchSize,
    Count,
    Distance,
    Norm,
    Radius,
    Range,
    Section,
    check_radius,
)


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
