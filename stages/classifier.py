"""What the three training stages share: data in, trained classifier, curve and timings out."""

import csv
import shutil
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from pag.checkpoint import atomic_directory, atomic_file, save_json, save_weights
from pag.classifiers import build
from pag.config.conf import Conf
from pag.config.params import Params
from pag.datasets.base import ImageDataset
from pag.objectives.batch import Objective
from pag.training.batches import Batches, ClassGradients
from pag.training.loop import History, train_classifier
from stages import paths
from stages.device import best_device, hardware


def train_and_save(
    dataset: ImageDataset,
    arch: str,
    method: str,
    objective: Objective,
    params: Params,
    conf: Conf,
    about: dict[str, Any],
    gradients: ClassGradients | None = None,
) -> None:
    """Train `arch` with `objective` and write the outs of a training stage; `about` goes beside the weights."""
    model = build(arch, dataset.num_classes, dataset.image_shape, params.training_seed)
    batches = Batches(
        dataset.train,
        dataset.levels,
        conf.classifier,
        params.training_seed,
        best_device(),
        gradients,
        conf.alignment.classes_per_image,
    )
    settings = [conf.distill, conf.heuristics, conf.classifier, conf.alignment, conf.methods]
    scratch = paths.scratch(
        "classifier",
        [dataset.content_hash, arch, method, params.training_seed, about],
        [section.model_dump(mode="json") for section in settings],
    )
    with _progress() as progress:
        task = progress.add_task(f"{method} on {dataset.name}", total=conf.classifier.epochs)
        history = train_classifier(
            model,
            batches,
            objective,
            dataset.validation,
            conf.classifier,
            on_epoch=lambda row: progress.update(task, completed=row["epoch"]),
            scratch=scratch / "training.pt",
        )
    _save(model, history, dataset, arch, method, {**about, "training_seed": params.training_seed})
    shutil.rmtree(scratch, ignore_errors=True)
    click.echo(f"{method}: validation accuracy {history.rows[-1]['validation_accuracy']:.3f}")


def _save(
    model: nn.Module, history: History, dataset: ImageDataset, arch: str, method: str, about: dict[str, Any]
) -> None:
    with atomic_directory(paths.classifier(dataset.name, arch, method)) as folder:
        description = {"arch": arch, "method": method, "dataset_hash": dataset.content_hash, **about}
        save_weights(folder / "weights.safetensors", model.state_dict(), description)
    with atomic_file(paths.curve(dataset.name, arch, method)) as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, history.rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history.rows)
    save_json(
        paths.timings(dataset.name, arch, method), {**history.timings(), "train_hardware": hardware(best_device())}
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeRemainingColumn()
    )
