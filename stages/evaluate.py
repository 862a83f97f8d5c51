"""evaluate: clean accuracy, AutoAttack, Foolbox, gradient alignment, and the pictures of large-eps attacks."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.progress import Progress
from torch import nn

from pag.classifiers import build
from pag.classifiers.accuracy import accuracy
from pag.evaluation.evaluate import Directions, Evaluation, evaluate
from pag.evaluation.pictures import MAX_CLASSES_SHOWN, pictures
from pag.evaluation.standard import Budget, quick
from pag.foundation.artifacts import ArtifactError, load_weights, save_arrays, save_json
from pag.foundation.config.conf import AttackConfig, Conf, load_conf
from pag.foundation.config.params import load_params
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset, load
from pag.store.reader import GradientStore
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device, hardware


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("run")
def main(dataset: str, arch: str, run: str) -> None:
    seed, conf, images = load_params().seed, load_conf(dataset), load(paths.images(dataset))
    model, about = trained_classifier(images, arch, run)
    with paths.scratch("evaluate", dataset, arch, run, about["sha256"]) as scratch:
        evaluate_run(run, arch, model, about, images, conf, seed, scratch.folder)


def evaluate_run(
    run: str,
    arch: str,
    model: nn.Module,
    about: dict[str, Any],
    images: ImageDataset,
    conf: Conf,
    seed: int,
    scratch: Path,
) -> None:
    """Measure `model`, whose description is `about`, and write the outs of the stage."""
    store = open_heldout(images, about)
    split, config = images.split(conf.evaluation.split), conf.evaluation
    attacked = split.select(balanced(split.labels, config.images))
    with Progress() as progress:
        task = progress.add_task("AutoAttack")
        found = evaluate(
            model,
            attacked.unit(),
            torch.from_numpy(attacked.labels),
            config.threat_models,
            attack=budget(config.attack),
            foolbox=config.foolbox,
            # the held-out images are test images: nothing is chosen by them
            directions=heldout(images, store) if config.split == "test" else None,
            batch_size=config.batch_size,
            seed=seed,
            processes=min(len(config.threat_models), torch.get_num_threads()),
            cache=scratch,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    metrics = {
        "dataset": images.name,
        "arch": arch,
        "run": run,
        "dataset_hash": images.content_hash,
        "weights_sha256": about["sha256"],
        "clean_accuracy": accuracy(model, split, best_device(), config.batch_size),
        **measured(found),
        "n_examples": len(attacked),
        "alignment_weight": about.get("lambda"),
        "classes_per_image": about.get("classes_per_image"),
        "n_clean": len(split),
        "chance_accuracy": float(np.bincount(split.labels).max() / len(split)),
        "train_images": len(images.train),
        "seed": about["training_seed"],
        "hardware": hardware(best_device()),
        "data_note": data_note(conf),
    }
    save_pictures(model, images, conf, arch, run)
    save_json(paths.metrics(images.name, arch, run), metrics, sealed=True)


def trained_classifier(images: ImageDataset, arch: str, run: str) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier of a run on the stage's device, and its description; refused if it is of other images."""
    weights, about = load_weights(
        paths.classifier(images.name, arch, run) / "weights.safetensors",
        keys=("dataset_hash", "method", "training_seed"),
    )
    if about["dataset_hash"] != images.content_hash:
        raise ArtifactError(f"{run} was trained on other images of {images.name}: run `dvc repro`")
    model = build(arch, images.num_classes, images.image_shape, seed=0)
    model.load_state_dict(weights)
    model.to(best_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.requires_grad_(False).eval(), about


def open_heldout(images: ImageDataset, about: dict[str, Any]) -> GradientStore:
    """SBG of held-out images; refused if the classifier was aligned with another diffusion model's gradients."""
    expect = {"dataset_hash": images.content_hash, "split": "test"}
    store = GradientStore.open(paths.gradients(images.name, "heldout"), expect)
    if about.get("diffusion_sha256") not in (None, store.attributes["diffusion_sha256"]):
        raise ArtifactError(
            f"{about['method']} was aligned with another diffusion model than {store.path} is of: run `dvc repro`"
        )
    return store


def heldout(images: ImageDataset, store: GradientStore) -> Directions:
    return Directions(images.test.unit(np.array(store.attributes["rows"])), store)


def budget(config: AttackConfig) -> Budget:
    return Budget() if config.version == "standard" else quick(config.steps, config.target_classes)


def measured(found: Evaluation) -> dict[str, Any]:
    """The part of the metrics that comes from the evaluation."""
    by_norm = found.robust_accuracy.items()
    metrics: dict[str, Any] = {
        "robust_accuracy": {norm: {str(eps): value for eps, value in radii.items()} for norm, radii in by_norm},
        "autoattack_warnings": found.warnings,
        "alignment": found.alignment,
        "attack": found.attack.note,
    }
    if found.foolbox:
        metrics["foolbox"] = {
            name: {
                "eps": attack.eps,
                "accuracy": attack.accuracy,
                "distance": attack.distance_name,
                "median_distance": attack.median_distance,
                "warnings": attack.warnings,
            }
            for name, attack in found.foolbox.items()
        }
    return metrics


def data_note(conf: Conf) -> str | None:
    """What must stand beside the numbers: of the data, and of a split that is not for results."""
    notes = [conf.data.note, "validation images" if conf.evaluation.split == "validation" else None]
    return ", ".join(note for note in notes if note) or None


def save_pictures(model: nn.Module, images: ImageDataset, conf: Conf, arch: str, run: str) -> None:
    """Of test images, one of each of the first classes."""
    config = conf.evaluation.large_eps
    rows = np.array([np.flatnonzero(images.test.labels == y)[0] for y in range(min(config.images, images.num_classes))])
    x = images.test.unit(rows).to(best_device())
    arrays = pictures(model, x, config.eps, config.steps, images.num_classes)
    names = {"labels": images.test.labels[rows], "class_names": np.array(images.class_names[:MAX_CLASSES_SHOWN])}
    save_arrays(paths.large_eps(images.name, arch, run), arrays | names)


if __name__ == "__main__":
    run_stage(main)
