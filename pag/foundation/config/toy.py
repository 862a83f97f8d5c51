"""conf/toy.yaml: the two-dimensional experiment."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pag.foundation.config.section import (
    AttackSteps,
    BatchSize,
    Candidates,
    Count,
    Epochs,
    LearningRate,
    Radius,
    Range,
    Section,
    Weight,
    Width,
    load,
)

Coordinate = Annotated[float, Range(-1e6, 1e6, "float32 keeps no distances there")]


class ToyConfig(Section):
    """conf/toy.yaml: the two-dimensional experiment of the paper's appendix G.1."""

    samples_per_mode: Count
    centres: tuple[tuple[Coordinate, ...], tuple[Coordinate, ...]]  # x1 of the modes of class 0 and class 1
    test_samples: Count
    hidden: Width
    epochs: Epochs
    batch_size: BatchSize
    lr: LearningRate
    weight: Weight = Field(alias="lambda")
    nn_candidates: Candidates
    eps: Radius
    steps: AttackSteps
    step_size: Radius
    # runs; each trains vanilla and NN from the same initial weights
    seeds: Annotated[int, Range(2, 10_000, "more would not end")]

    @model_validator(mode="before")
    @classmethod
    def _tuples_from_lists(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(centres := values.get("centres"), list):
            return {**values, "centres": tuple(tuple(row) if isinstance(row, list) else row for row in centres)}
        return values


def load_toy(path: Path = Path("conf/toy.yaml")) -> ToyConfig:
    return load(ToyConfig, path)
