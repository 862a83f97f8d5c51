"""A trained classifier with what was measured of it: what every hand-over is made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pag.foundation.artifacts import ArtifactError, load_json
from pag.images.dataset import ImageDataset

KEYS = (
    "weights_sha256",
    "clean_accuracy",
    "robust_accuracy",
    "n_clean",
    "n_examples",
    "split",
    "attack",
    "data_note",
)


@dataclass(frozen=True)
class Measured:
    model: nn.Module
    about: dict[str, Any]  # the description beside the weights
    metrics: dict[str, Any]  # of results/records
    images: ImageDataset  # that it was trained and measured on
    licence: str | None = "mit"  # of the weights; None: whoever publishes them chooses one

    @property
    def name(self) -> str:
        """<dataset>-<arch>-<run>"""
        return "-".join(self.about[key] for key in ("dataset", "arch", "run"))

    @property
    def measured_on(self) -> str:
        """What a reader must know beside a robust accuracy."""
        metrics = self.metrics
        attack = "standard AutoAttack" if metrics["attack"] is None else str(metrics["attack"])
        count, split = metrics["n_examples"], metrics["split"]
        some = f"{count} class-balanced {split} images drawn by seed"
        images = f"all {count} {split} images" if count == len(self.images.split(split)) else some
        return "; ".join([f"{attack} on {images}", *([metrics["data_note"]] if metrics["data_note"] else [])])

    @property
    def mark(self) -> str:
        """Beside the name of a number that is there to choose by, and no result."""
        a_result = self.metrics["attack"] is None and self.metrics["split"] == "test"
        return "" if a_result else " (no result, to choose by)"

    def config(self) -> dict[str, Any]:
        """What tells the model from others, for JSON. The digest is that of the weights' file in data/."""
        about = {("source_sha256" if key == "sha256" else key): value for key, value in self.about.items()}
        return {**about, "class_names": list(self.images.class_names)}


def load_metrics(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The metrics at `path`. Raises ArtifactError when they are missing, damaged, or of other weights than `about`."""
    metrics = load_json(path, sealed=True, keys=KEYS)
    if metrics["weights_sha256"] != about["sha256"]:
        raise ArtifactError(f"{path} was measured on other weights of {about['run']}: run `dvc repro`")
    return metrics
