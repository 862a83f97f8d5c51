"""The files that a report is made of: metrics of a run, its timings, and the toy experiment's metrics.

All are sealed, and say what they are of: those of another run, edited ones, and such as no evaluation can give, are
refused in one line.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pag.foundation.artifacts import REMAKE, ArtifactError, load_json

Accuracy = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FoolboxMetrics(_Record):
    """One attack of the paper's Table 6."""

    eps: float | None  # in the attack's own distance; None: the smallest perturbation that it found
    accuracy: Accuracy
    clean_accuracy: Accuracy | None = None  # of the same images
    distance: str
    median_distance: float | None = None
    warnings: list[str] = Field([])  # Foolbox's own, and what is doubtful about the network


class SanityMetrics(_Record):
    """One sign of an evaluation that flatters."""

    name: str
    passed: bool
    detail: str  # the numbers that decided


class Metrics(_Record):
    """results/records/<dataset>/<arch>/<method>.json"""

    dataset_hash: str
    weights_sha256: str
    clean_accuracy: Accuracy
    attacked_clean_accuracy: Accuracy | None = None  # of exactly the images under attack
    robust_accuracy: dict[str, dict[float, Accuracy | None]]  # norm -> radius -> AutoAttack accuracy
    n_examples: Annotated[int, Field(ge=1)]  # images under attack
    n_clean: Annotated[int, Field(ge=1)]  # images behind the clean accuracy
    chance_accuracy: Accuracy | None = None  # of naming the commonest class of these images
    alignment: Annotated[float, Field(ge=-1, le=1)] | None = None  # mean cosine with SBG on held-out images
    alignment_weight: float | None = None
    classes_per_image: int | str | None = None
    gradient_of: str | None = None
    penalty: float | None = None
    seed: int | None  # None: of an external network, whose training is not known
    warnings: list[str]  # reasons to distrust its numbers
    notes: list[str]  # how the attacks differ from the standard version on few classes
    train_seconds: float | None = None
    seconds_per_step: float | None = None
    train_images: int | None = None
    image_shape: tuple[int, int, int] | None = None  # (C, H, W); None, as the next: of an earlier version
    num_classes: int | None = None
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
    def untimed(self) -> str | None:
        """Why a time of the training is missing, where one is."""
        if self.train_seconds is None:
            others = self.seed is None
            return "trained by others" if others else "trained elsewhere, or its file of timings was not kept"
        if self.seconds_per_step is None:
            return "its training changed the machine, so a mean over steps would be that of none"
        return None


class Spread(_Record):
    """Mean and standard deviation over the toy seeds."""

    mean: Accuracy
    std: float
    values: list[Accuracy]


class ToyScores(_Record):
    clean: Spread
    pgd: Spread
    worst: Spread  # of the points of a grid over each test point's disc


class ToyMetrics(_Record):
    """results/records/toy.json"""

    seeds: int
    vanilla: ToyScores
    nn: ToyScores


def read_metrics(folder: Path, dataset: str, arch: str, run: str) -> Metrics:
    """The metrics of a run in `folder`/records and, where its training took place here, its timings.

    Raises ArtifactError when one is damaged, edited, or of another run, or when a robust accuracy is above the clean
    one of the same images or above that of a smaller radius.
    """
    path, timings = (folder / kind / dataset / arch / f"{run}.json" for kind in ("records", "timings"))
    asked_for: dict[str, Any] = {"dataset": dataset, "arch": arch, "run": run}
    content = _content(path, asked_for)
    if timings.exists():
        asked_for["weights_sha256"] = content.get("weights_sha256")
        content = _content(timings, asked_for) | content
    metrics = _checked(Metrics, content, path)
    _require_possible(metrics, path)
    return metrics


def read_toy_metrics(folder: Path) -> ToyMetrics:
    """The metrics of the points in the plane; errors as above."""
    path = folder / "records" / "toy.json"
    return _checked(ToyMetrics, _content(path, {"dataset": "toy"}), path)


def require_same_images(metrics: Mapping[str, Metrics], dataset: str) -> None:
    """Raises ArtifactError when runs of one data set, by name, were measured on different images."""
    of_hash: dict[str, str] = {}
    for name, found in metrics.items():
        of_hash.setdefault(found.dataset_hash, name)
    if len(of_hash) > 1:
        names = ", ".join(of_hash.values())
        raise ArtifactError(f"{dataset}: the metrics of {names} are of different versions of the images: {REMAKE}")


def _content(path: Path, asked_for: Mapping[str, Any]) -> dict[str, Any]:
    content = load_json(path, sealed=True)
    for key, expected in asked_for.items():
        if content.get(key) != expected:
            raise ArtifactError(f"{path} has {key} = {_short(content.get(key))}, expected {_short(expected)}: {REMAKE}")
    return content


Record = TypeVar("Record", bound=_Record)


def _checked(record: type[Record], content: dict[str, Any], path: Path) -> Record:
    try:
        return record.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        message = f"{path}: {key}: {problem['msg']} (got {_short(problem['input'])})"
        raise ArtifactError(f"{message}: delete it and run `dvc repro`") from None


def _require_possible(metrics: Metrics, path: Path) -> None:
    """An example within a radius is within every larger one, and an image that is misclassified needs none."""
    clean = metrics.attacked_clean_accuracy
    if clean is None:
        clean = metrics.clean_accuracy if metrics.n_examples == metrics.n_clean else 1.0
    for norm, radii in metrics.robust_accuracy.items():
        measured = [(0.0, clean), *((eps, value) for eps, value in sorted(radii.items()) if value is not None)]
        for (smaller, above), (larger, below) in pairwise(measured):
            if below > above:
                raise ArtifactError(
                    f"{path}: robust_accuracy.{norm}: {below:.3f} at radius {larger:g} is above {above:.3f} at "
                    f"{smaller:g}, which no evaluation gives: {REMAKE}"
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
