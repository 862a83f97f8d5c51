"""evaluate: clean accuracy, AutoAttack, Foolbox, gradient alignment, and the pictures of large-eps attacks."""

import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from pag.attacks.autoattack import evaluate_autoattack, predict
from pag.attacks.foolbox import evaluate_foolbox
from pag.attacks.large_eps import large_eps_grid
from pag.checkpoint import ArtifactError, load_weights, save_arrays, save_json
from pag.classifiers import build
from pag.config.conf import Conf, EvaluationConfig, load_conf
from pag.config.params import load_params
from pag.datasets.balance import balanced
from pag.datasets.base import ImageDataset, load, to_unit
from pag.gradients.store import GradientStore
from pag.objectives.measure import gradient_alignment, gradients_by_class
from stages import paths
from stages.command import run_stage
from stages.device import best_device, hardware

MAX_CLASSES_SHOWN = 10


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("method")
def main(dataset: str, arch: str, method: str) -> None:
    seed, conf, images = load_params().seed, load_conf(dataset), load(paths.images(dataset))
    device = best_device()
    weights, about = load_weights(paths.classifier(dataset, arch, method) / "weights.safetensors")
    store = open_heldout(images, about)
    model = build(arch, images.num_classes, images.image_shape, seed=0)
    model.load_state_dict(weights)
    model.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]

    split = images.split(conf.evaluation.split)
    scratch = paths.scratch("evaluate", dataset, arch, method, about["sha256"])
    metrics: dict[str, Any] = {
        "clean_accuracy": clean_accuracy(model, images, conf.evaluation, device),
        **attacked(model, images, conf.evaluation, seed, device, scratch),
        # the held-out images are test images: nothing is chosen by them
        "alignment": heldout_alignment(model, images, store, device) if conf.evaluation.split == "test" else None,
        "alignment_weight": about.get("lambda"),
        "classes_per_image": about.get("classes_per_image"),
        "n_clean": len(split),
        "chance_accuracy": float(np.bincount(split.labels).max() / len(split)),
        "train_images": len(images.train),
        "seed": about["training_seed"],
        "hardware": hardware(device),
        "data_note": data_note(conf),
    }
    save_large_eps(model, images, conf, arch, method, device)
    save_json(paths.metrics(dataset, arch, method), metrics)
    shutil.rmtree(scratch, ignore_errors=True)


def open_heldout(images: ImageDataset, about: dict[str, Any]) -> GradientStore:
    """SBG of held-out images; refused if the classifier belongs to other images or to another diffusion model."""
    if about["dataset_hash"] != images.content_hash:
        raise ArtifactError(f"{about['method']} was trained on other images of {images.name}: run `dvc repro`")
    store = GradientStore.open(
        paths.gradients(images.name, "heldout"), {"dataset_hash": images.content_hash, "split": "test"}
    )
    if about.get("diffusion_sha256") not in (None, store.attributes["diffusion_sha256"]):
        raise ArtifactError(
            f"{about['method']} was aligned with another diffusion model than {store.path} is of: run `dvc repro`"
        )
    return store


def data_note(conf: Conf) -> str | None:
    """What must stand beside the numbers: of the data, and of a split that is not for results."""
    notes = [conf.data.note, "validation images" if conf.evaluation.split == "validation" else None]
    return ", ".join(note for note in notes if note) or None


def clean_accuracy(model: nn.Module, images: ImageDataset, config: EvaluationConfig, device: torch.device) -> float:
    """Accuracy in [0, 1] on all images of the split."""
    split, size = images.split(config.split), config.batch_size
    x = to_unit(split.images, images.levels)
    predictions = torch.cat([predict(model, batch.to(device), size).argmax(1) for batch in x.split(size)])
    return float((predictions.cpu().numpy() == split.labels).mean())


def attacked(
    model: nn.Module, images: ImageDataset, config: EvaluationConfig, seed: int, device: torch.device, scratch: Path
) -> dict[str, Any]:
    """AutoAttack at every radius and the Foolbox attacks, on the images of the split or a class-balanced part of them.

    Finished parts are kept in the folder `scratch` until the caller removes it.
    """
    split = images.split(config.split)
    subset = split.select(balanced(split.labels, config.images))
    x, labels = to_unit(subset.images, images.levels).to(device), torch.from_numpy(subset.labels).to(device)
    with Progress() as progress:
        task = progress.add_task("AutoAttack", total=len(x) * sum(map(len, config.threat_models.values())))
        result = evaluate_autoattack(
            model,
            x,
            labels,
            config.threat_models,
            batch_size=config.batch_size,
            seed=seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            cache=scratch,
        )
    metrics: dict[str, Any] = {
        "robust_accuracy": {
            norm: {str(eps): found.robust_accuracy(eps) for eps in found.eps} for norm, found in result.by_norm.items()
        },
        "n_examples": len(x),
        "autoattack_warnings": result.warnings,
    }
    if config.foolbox:
        found = evaluate_foolbox(
            model, x, labels, config.foolbox, batch_size=config.batch_size, seed=seed, cache=scratch
        )
        metrics["foolbox"] = {
            name: {
                "eps": attack.eps,
                "accuracy": attack.accuracy,
                "distance": attack.distance_name,
                "median_distance": attack.median_distance,
                "warnings": attack.warnings,
            }
            for name, attack in found.items()
        }
    return metrics


def heldout_alignment(model: nn.Module, images: ImageDataset, store: GradientStore, device: torch.device) -> float:
    """Mean cosine between the input gradients of `model` and SBG, over the held-out images and all classes."""
    rows = np.array(store.attributes["rows"])
    cosines: list[Tensor] = []
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 32)):
        x = to_unit(images.test.images[rows[part]], images.levels).to(device)
        directions = torch.from_numpy(store.read_all_classes(part)).to(device)
        cosines.append(gradient_alignment(model, x, directions))
    return torch.cat(cosines).mean().item()


def save_large_eps(
    model: nn.Module, images: ImageDataset, conf: Conf, arch: str, method: str, device: torch.device
) -> None:
    """Test images, one of each of the first classes, moved far towards every class; the gradients that point there."""
    config = conf.evaluation.large_eps
    rows = np.array([np.flatnonzero(images.test.labels == y)[0] for y in range(min(config.images, images.num_classes))])
    x = to_unit(images.test.images[rows], images.levels).to(device)
    shown = min(images.num_classes, MAX_CLASSES_SHOWN)
    moved = large_eps_grid(model, x, config.eps, config.steps, shown)
    gradients = torch.stack(list(gradients_by_class(model, x, shown)), dim=1)
    arrays = {
        "images": x.cpu().numpy(),
        "labels": images.test.labels[rows],
        "adversarial": moved.cpu().numpy(),
        "gradients": gradients.cpu().numpy(),
        "eps": np.array(config.eps),
        "class_names": np.array(images.class_names[:shown]),
    }
    save_arrays(paths.large_eps(images.name, arch, method), arrays)


if __name__ == "__main__":
    run_stage(main)
