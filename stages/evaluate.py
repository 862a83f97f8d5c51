"""evaluate: clean accuracy, AutoAttack, Foolbox, gradient alignment, and the pictures of large-eps attacks."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from pag.classifiers import require_known
from pag.classifiers.accuracy import correct
from pag.evaluation.evaluate import Evaluation, evaluate
from pag.evaluation.external import load_external
from pag.evaluation.outcomes import outcome_arrays
from pag.evaluation.pictures import MAX_CLASSES_SHOWN, pictures
from pag.evaluation.sanity import sanity_checks
from pag.evaluation.standard import Budget, quick
from pag.evaluation.trained import load_trained
from pag.foundation.artifacts import ArtifactError, save_arrays, save_json
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.evaluation import AttackConfig
from pag.foundation.config.external import EXTERNAL, external_of
from pag.foundation.config.params import load_params
from pag.foundation.config.runs import run_of
from pag.foundation.config.section import check_radius
from pag.foundation.processes import is_first
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset, Split, load
from pag.store.reader import GradientStore
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device, hardware
from stages.shared.progress import progress


@click.command()
@click.argument("dataset")
@click.argument("arch")
@click.argument("run")
def main(dataset: str, arch: str, run: str) -> None:
    params, conf = load_params(), load_conf(dataset)
    if arch == EXTERNAL:
        network = external_of(conf, dataset, run)
        images = load(paths.images(dataset))
        model, about = load_external(paths.external(run), network, images, run, best_device())
    else:
        folder = paths.classifier(dataset, arch, run)
        if not folder.exists():  # is a name misspelt?
            require_known(arch)
            run_of(run, dataset, arch, params, conf)
        images = load(paths.images(dataset))
        model, about = load_trained(folder, images, arch, run, best_device())
    with paths.scratch("evaluate", dataset, arch, run, about["sha256"]) as scratch:
        evaluate_run(model, about, images, conf, params.seed, scratch.folder)


def evaluate_run(
    model: nn.Module, about: dict[str, Any], images: ImageDataset, conf: Conf, seed: int, scratch: Path
) -> None:
    """Measure `model`, whose description is `about`, and write the outs of the stage."""
    for norm, radii in conf.evaluation.curve.items():  # before the other attacks, which take long
        for eps in radii:
            check_radius(norm, eps, f"evaluation.curve.{norm}", math.prod(images.image_shape))
    store = open_heldout(images, about)
    names = images.name, about["arch"], about["run"]
    split, config = images.split(conf.evaluation.split), conf.evaluation
    rows = balanced(split.labels, config.images, seed, "attacked")
    attacked = split.select(rows)
    # the held-out images are test images: nothing is chosen by them
    heldout = images.test.unit(np.array(store.attributes["rows"]))
    directions = (heldout, store) if config.split == "test" else None
    options: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": seed,
        "processes": min(len(config.threat_models), torch.get_num_threads()),
        "cache": scratch,
    }
    what = f"{about['run']} on {images.name}"
    with progress(f"attacks on {what}", unit="images × radii") as told:
        found = evaluate(
            model,
            *tensors(attacked),
            config.threat_models,
            attack=budget(config.attack),
            foolbox=config.foolbox,
            directions=directions,
            progress=lambda done, total, held: told.at(done, total, f"{done - held:,} broken, {held:,} robust"),
            **options,
        )
    curve, checks = {}, None
    if config.curve:
        with progress(f"accuracy over radii of {what}"):
            curve = evaluate(model, *tensors(attacked), config.curve, attack=quick(), **options).by_norm
    if config.sanity is not None:
        chosen = split.select(balanced(split.labels, config.sanity, seed, "attacked"))
        with progress(f"checks of the attacks on {what}"):
            found_by = sanity_checks(model, *tensors(chosen), config.threat_models, **options)
        checks = [asdict(check) for check in found_by]
    clean = correct(model, split, best_device(), config.batch_size)
    if not is_first():
        return
    record = {
        **identity(about),
        "clean_accuracy": float(clean.mean()),
        **measured(found),
        "sanity": checks,
        "n_examples": len(attacked),
        **setting(images, conf, about),
    }
    outcomes = {"rows": rows, "labels": attacked.labels, "clean_correct": clean}
    save_arrays(paths.outcomes(*names), outcomes | outcome_arrays(found.by_norm, curve))
    save_pictures(model, images, conf, paths.large_eps(*names))
    save_json(paths.record(*names), record, sealed=True)
    save_json(paths.metrics(*names), {about["run"]: headline(record, config.split)})


def setting(images: ImageDataset, conf: Conf, about: dict[str, Any]) -> dict[str, Any]:
    """What the numbers are to be read by."""
    split = images.split(conf.evaluation.split)
    return {
        "split": conf.evaluation.split,
        "image_shape": list(images.image_shape),
        "num_classes": images.num_classes,
        "n_clean": len(split),
        "chance_accuracy": float(np.bincount(split.labels).max() / len(split)),
        "train_images": None if about["arch"] == EXTERNAL else len(images.train),
        "hardware": hardware(best_device()),
        "data_note": data_note(conf),
    }


def identity(about: dict[str, Any]) -> dict[str, Any]:
    """Which classifier the numbers are of; the report compares it with what was asked for."""
    return {
        "dataset": about["dataset"],
        "dataset_hash": about["dataset_hash"],
        "arch": about["arch"],
        "run": about["run"],
        "method": about["method"],
        "weights_sha256": about["sha256"],
        "alignment_weight": about.get("lambda"),
        "classes_per_image": about.get("classes_per_image"),
        "gradient_of": about.get("gradient_of"),
        "penalty": about.get("penalty"),
        "seed": about["training_seed"],
    }


def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.unit(), torch.from_numpy(split.labels)


def open_heldout(images: ImageDataset, about: dict[str, Any]) -> GradientStore:
    """SBG of held-out images; refused if the classifier was aligned with another diffusion model's gradients."""
    expect = {"dataset_hash": images.content_hash, "split": "test"}
    store = GradientStore.open(paths.gradients(images.name, "heldout"), expect)
    if about.get("diffusion_sha256") not in (None, store.attributes["diffusion_sha256"]):
        raise ArtifactError(
            f"{about['run']} was aligned with another diffusion model than {store.path} is of: run `dvc repro`"
        )
    return store


def budget(config: AttackConfig) -> Budget:
    return Budget() if config.version == "standard" else quick(config.steps, config.target_classes)


def headline(record: dict[str, Any], split: str) -> dict[str, float | None]:
    """What DVC compares, a column of `dvc exp show` each: of every norm the smallest radius.

    Numbers to choose by have other names than results, so that no comparison takes the ones for the others.
    """
    marks = [mark for mark, there in (("quick", record["attack"]), (split, split != "test")) if there]
    mark = f" ({', '.join(marks)})" if marks else ""
    numbers = {f"clean{mark}": record["clean_accuracy"]}
    for norm, radii in record["robust_accuracy"].items():
        eps = min(radii, key=float)
        numbers[f"{norm} {float(eps):.3g}{mark}"] = radii[eps]
    return {**numbers, "cosine": record["alignment"]}


def measured(found: Evaluation) -> dict[str, Any]:
    """The part of the record that comes from the evaluation."""
    by_norm = found.robust_accuracy.items()
    numbers: dict[str, Any] = {
        "attacked_clean_accuracy": found.clean_accuracy,
        "robust_accuracy": {norm: {str(eps): value for eps, value in radii.items()} for norm, radii in by_norm},
        "warnings": found.warnings,
        "notes": found.notes,
        "alignment": found.alignment,
        "attack": found.attack.note,
    }
    if found.foolbox:
        numbers["foolbox"] = {
            name: {
                "eps": attack.eps,
                "clean_accuracy": attack.clean_accuracy,
                "accuracy": attack.accuracy,
                "distance": attack.distance_name,
                "median_distance": attack.median_distance,
                "warnings": attack.warnings,
            }
            for name, attack in found.foolbox.items()
        }
    return numbers


def data_note(conf: Conf) -> str | None:
    """What must stand beside the numbers: of the data, and of a split that is not for results."""
    notes = [conf.data.note, "validation images" if conf.evaluation.split == "validation" else None]
    return ", ".join(note for note in notes if note) or None


def save_pictures(model: nn.Module, images: ImageDataset, conf: Conf, path: Path) -> None:
    """Of test images, one of each of the first classes."""
    config = conf.evaluation.large_eps
    rows = np.array([np.flatnonzero(images.test.labels == y)[0] for y in range(min(config.images, images.num_classes))])
    x = images.test.unit(rows).to(best_device())
    arrays = pictures(model, x, config.eps, config.steps, images.num_classes)
    names = {"labels": images.test.labels[rows], "class_names": np.array(images.class_names[:MAX_CLASSES_SHOWN])}
    save_arrays(path, arrays | names)


if __name__ == "__main__":
    run_stage(main, shared=True)
