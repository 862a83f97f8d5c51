"""The files that a report is made of: metrics of a run, its timings, and the toy experiment's metrics."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pag.foundation.artifacts import ArtifactError, require

Accuracy = Annotated[float, Field(ge=0, le=1)]
NOTE = re.compile(r"\d+ classes: ")  # how our notes on the attacks begin, beside what AutoAttack flags


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FoolboxMetrics(_Record):
    """One attack of the paper's Table 6."""

    eps: float | None  # in the attack's own distance; None: the smallest perturbation that it found
    accuracy: Accuracy
    clean_accuracy: Accuracy | None = None  # of the same images
    distance: str
    median_distance: float | None = None


class SanityMetrics(_Record):
    """One sign of an evaluation that flatters."""

    name: str
    passed: bool
    detail: str  # the numbers that decided


class Metrics(_Record):
    """results/metrics/<dataset>/<arch>/<method>.json"""

    clean_accuracy: Accuracy
    attacked_clean_accuracy: Accuracy | None = None  # of exactly the images under attack
    robust_accuracy: dict[str, dict[float, Accuracy | None]]  # norm -> radius -> AutoAttack accuracy
    n_examples: Annotated[int, Field(ge=1)]  # images under attack
    n_clean: Annotated[int, Field(ge=1)]  # images behind the clean accuracy
    chance_accuracy: Accuracy | None = None  # of naming the commonest class of these images
    alignment: Annotated[float, Field(ge=-1, le=1)] | None = None  # mean cosine with SBG on held-out images
    alignment_weight: float | None = None
    classes_per_image: int | str | None = None
    seed: int
    autoattack_warnings: list[str]
    train_seconds: float | None = None
    seconds_per_step: float | None = None
    train_images: int | None = None
    foolbox: dict[str, FoolboxMetrics] = Field({})
    sanity: list[SanityMetrics] | None = None  # None: not asked for
    hardware: str
    train_hardware: str | None = None  # beside the timings, where the training took place here
    data_note: str | None = None
    attack: str | None = None  # how it departs from AutoAttack's standard version: then the numbers are no results

    @property
    def note(self) -> str | None:
        """What must stand beside every number of this file."""
        return "; ".join(part for part in (self.data_note, self.attack) if part) or None

    @property
    def flags(self) -> list[str]:
        """What AutoAttack itself flagged as a reason to distrust one of its numbers."""
        return [warning for warning in self.autoattack_warnings if not NOTE.match(warning)]

    @property
    def notes(self) -> list[str]:
        """How the attacks differ from the standard version on few classes: our own words."""
        return [warning for warning in self.autoattack_warnings if NOTE.match(warning)]


class Spread(_Record):
    """Mean and standard deviation over the toy seeds."""

    mean: Accuracy
    std: float
    values: list[Accuracy]


class ToyScores(_Record):
    clean: Spread
    pgd: Spread


class ToyMetrics(_Record):
    """results/metrics/toy.json"""

    seeds: int
    vanilla: ToyScores
    nn: ToyScores


Record = TypeVar("Record", bound=_Record)


def metrics_files(folder: Path, name: str) -> list[Path]:
    """The metrics of a run and, where its training took place here, the timings of it."""
    timings = folder / "timings" / name
    return [folder / "metrics" / name, *([timings] if timings.exists() else [])]


def read_record(record: type[Record], *paths: Path) -> Record:
    """One record from the keys of one or several JSON files; errors name the file that was read last."""
    content: dict[str, Any] = {}
    try:
        for path in paths:
            content |= json.loads(require(path).read_text())
        return record.model_validate(content)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}): delete it and run `dvc repro`") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        message = f"{path}: {key}: {problem['msg']} (got {_short(problem['input'])})"
        raise ArtifactError(f"{message}: delete it and run `dvc repro`") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
