"""conf/<dataset>.yaml: how the whole chain runs on one dataset. Each section has its file beside this one."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pag.foundation.config.data import DataConfig
from pag.foundation.config.diffusion import DiffusionConfig, DistillConfig, HeuristicsConfig
from pag.foundation.config.evaluation import EvaluationConfig
from pag.foundation.config.section import ConfigError, Section, load, nearest
from pag.foundation.config.training import AlignmentConfig, ClassifierConfig, MethodsConfig


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
    def _keys_of_dvc_are_there(self) -> "Conf":
        if "note" not in self.data.model_fields_set:
            raise ValueError("data.note: missing, expected a text or null: dvc.yaml names this key")
        return self

    @model_validator(mode="after")
    def _level_in_schedule(self) -> "Conf":
        if self.distill.t is not None and self.distill.t >= self.diffusion.timesteps:
            raise ValueError(
                f"distill.t = {self.distill.t} lies outside the schedule 0..{self.diffusion.timesteps - 1}"
            )
        return self


def load_conf(dataset: str, folder: Path = Path("conf")) -> Conf:
    """The conf of one dataset. Raises ConfigError with one line that names the key and the nearest valid one."""
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "toy")
    if dataset not in known:
        raise ConfigError(f"unknown dataset '{dataset}'{nearest(dataset, known)} (each has a file conf/<dataset>.yaml)")
    return load(Conf, folder / f"{dataset}.yaml")
