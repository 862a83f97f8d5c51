"""params.yaml: which experiments to run; what one changes with ``dvc exp run -S``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pag.foundation.config.section import Baseline, ConfigError, Realization, RobustMethod, Section, Seed, Weight, load


class Params(Section):
    """params.yaml: which experiments to run."""

    seed: Seed  # of the data split, the diffusion model and the gradients
    training_seed: Seed  # of the classifiers
    weight: Weight | None = Field(alias="lambda")  # null: the value of conf for dataset, method, architecture
    datasets: list[str]  # empty: the toy experiment alone
    raw: list[str]  # those of them that have raw files of their own
    archs: Annotated[list[str], Field(min_length=1)]
    baselines: list[Baseline]
    heuristics: list[Literal["oi", "cm", "nn"]]  # stores to distil besides SBG's
    realizations: list[Realization]  # alignment runs
    robust: list[RobustMethod]  # combined with each of robust_realizations
    robust_realizations: list[Realization]
    variants: list[str]  # names under `variants` of conf/<dataset>.yaml
    variant_datasets: list[str]  # each variant runs on each of these …
    variant_archs: list[str]  # … with each of these
    externals: list[str]  # names under `external` of conf/<dataset>.yaml …
    external_datasets: list[str]  # … each is evaluated on these
    point_sets: list[Literal["toy"]]  # the two-dimensional experiment, or none
    noise_level_figures: list[str]  # datasets whose SBG is drawn over the noise levels

    @model_validator(mode="after")
    def _nothing_is_listed_twice(self) -> "Params":
        for key, names in self:
            if isinstance(names, list) and len(set(names)) < len(names):
                raise ValueError(f"{key}: '{max(names, key=names.count)}' is listed twice")
        return self

    @model_validator(mode="after")
    def _something_runs(self) -> "Params":
        if not (self.datasets or self.point_sets):
            raise ValueError("datasets and point_sets: both are empty, expected something to run on")
        if self.datasets and not (self.methods() or self.variants or self.externals or self.noise_level_figures):
            raise ValueError(
                f"datasets: nothing is run on {', '.join(self.datasets)}, expected baselines, realizations, robust, "
                "variants, externals or noise_level_figures"
            )
        if self.robust and not self.robust_realizations:
            raise ValueError(f"robust_realizations: empty, expected what is added to {', '.join(self.robust)}")
        return self

    @model_validator(mode="after")
    def _stores_exist(self) -> "Params":
        for name in {*self.realizations, *self.robust_realizations} - {"sbg", *self.heuristics}:
            raise ValueError(f"realization '{name}' is trained on but not distilled: add it to heuristics")
        return self

    @model_validator(mode="after")
    def _what_is_chosen_belongs_to_the_experiment(self) -> "Params":
        for key in ("variant_datasets", "variant_archs"):
            if self.variants and not getattr(self, key):
                raise ValueError(f"{key}: empty, expected what the variants run on ({', '.join(self.variants)})")
        if self.externals and not self.external_datasets:
            raise ValueError(f"external_datasets: empty, expected what {', '.join(self.externals)} are evaluated on")
        chosen = {key: (getattr(self, key), self.datasets) for key in ("raw", "noise_level_figures")}
        if self.variants:
            chosen |= {"variant_datasets": (self.variant_datasets, self.datasets)}
            chosen |= {"variant_archs": (self.variant_archs, self.archs)}
        if self.externals:
            chosen |= {"external_datasets": (self.external_datasets, self.datasets)}
        for key, (names, known) in chosen.items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: '{name}' is not part of the experiment ({', '.join(known)})")
        return self

    def methods(self) -> list[str]:
        """Every method that this experiment trains, in the order of the tables."""
        combined = [f"{robust}+{source}" for robust in self.robust for source in self.robust_realizations]
        return [*self.baselines, *self.realizations, *combined]


def not_looked_at(dataset: str) -> ConfigError:
    """For a data set with raw files that no stage looks at: nobody would notice when they change."""
    return ConfigError(
        f"conf/{dataset}.yaml has data.root, whose files must be looked at: add {dataset} to `raw` of params.yaml, or "
        f"-S 'raw=[{dataset}]' to `dvc exp run`"
    )


def load_params(path: Path = Path("params.yaml")) -> Params:
    return load(Params, path)
