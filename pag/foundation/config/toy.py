"""conf/toy.yaml: the two-dimensional experiment."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pag.foundation.config.section import Count, NonNegative, Positive, Section, load


class ToyConfig(Section):
    """conf/toy.yaml: the two-dimensional experiment of the paper's appendix G.1."""

    samples_per_mode: Count
    centres: tuple[tuple[float, ...], tuple[float, ...]]  # x1 of the modes of class 0 and class 1
    test_samples: Count
    hidden: Count
    epochs: Count
    batch_size: Count
    lr: Positive
    weight: NonNegative = Field(alias="lambda")
    nn_candidates: Count
    eps: Positive
    steps: Count
    step_size: Positive
    seeds: Annotated[int, Field(ge=2)]  # runs; each trains vanilla and NN from the same initial weights

    @model_validator(mode="before")
    @classmethod
    def _tuples_from_lists(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("centres"), list):
            return {**values, "centres": tuple(tuple(map(float, row)) for row in values["centres"])}
        return values


def load_toy(path: Path = Path("conf/toy.yaml")) -> ToyConfig:
    return load(ToyConfig, path)
