"""train: one classifier, by whatever method the run names; weights, curve and timings out.

For instance:

    python -m stages.train digits cnn vanilla
    python -m stages.train digits cnn at-l2+sbg
    python -m stages.train digits cnn lambda-0-5
"""

# The rooms of the objectives and of the gradient store are imported where a run needs them: a group of runs in dvc.yaml
# depends on what its runs load and on nothing else (tests/pipeline holds it).

import csv
from pathlib import Path
from typing import Any

import click
from torch import Tensor, nn

from pag.classifiers import build, require_known
from pag.foundation.artifacts import save_json, save_weights, sha256
from pag.foundation.atomic import atomic_directory, atomic_file
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.runs import Run, run_of
from pag.foundation.processes import is_first
from pag.images.dataset import ImageDataset, load
from pag.training.batch import Batch, ClassGradients, Objective
from pag.training.batches import Batches
from pag.training.loop import History, train_classifier
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
    require_known(arch)  # names before files, which a misspelt one does not have
    chosen = run_of(run, dataset, arch, params, conf)
    train_run(chosen, arch, load(paths.images(dataset)), conf)


def train_run(run: Run, arch: str, images: ImageDataset, conf: Conf) -> None:
    """Train a new network of architecture `arch` as `run` says and write the outs of the stage."""
    gradients = class_gradients(run, images)
    objective = objective_of(run, conf)
    about = describe(run, arch, images, gradients)
    model = build(arch, images.num_classes, images.image_shape, run.training_seed)
    k = run.alignment.classes_per_image
    batches = Batches(images.train, conf.classifier, run.training_seed, best_device(), gradients, k)
    settings = [conf.classifier, *([conf.methods.of(run.baseline)] if run.baseline else [])]
    # the store's record has the hashes of its files: other directions, another training
    of_store = run.realization and sha256(paths.gradients(images.name, run.realization) / "zarr.json")
    sections = [section.model_dump(mode="json") for section in settings if section is not None]
    with paths.scratch("train", about, sections, of_store) as scratch:
        with progress(f"{run.name} on {images.name}", conf.classifier.epochs * len(batches), "steps") as told:

            def on_epoch(history: History) -> None:
                if (machine := hardware(best_device())) not in history.machines:
                    history.machines.append(machine)
                if history.steps > told.done:
                    told.goes_on(history.steps)
                if not history.rows:
                    return
                told.at(told.done, figures=figures(history.rows[-1], conf.classifier.epochs))
                if is_first():
                    save_curve(paths.curve(images.name, arch, run.name), history)  # so far, for `dvc plots show`

            history = train_classifier(
                model,
                batches,
                objective,
                images.validation,
                conf.classifier,
                on_step=told.at,
                on_epoch=on_epoch,
                scratch=scratch,
            )
        if is_first():
            save(model, history, about, images.name)
    click.echo(f"{run.name}: validation accuracy {history.rows[-1]['validation_accuracy']:.3f}")


def figures(row: dict[str, float], epochs: int) -> str:
    """What a training says of its last epoch."""
    losses = (f"{name.replace('_', ' ')} {value:.3g}" for name, value in row.items() if name != "epoch")
    return f"epoch {row['epoch']} of {epochs}: {', '.join(losses)}"


def class_gradients(run: Run, images: ImageDataset) -> ClassGradients | None:
    """The gradients that an alignment run aligns with, opened and checked against the images."""
    if run.realization is None:
        return None
    from pag.store.computed import open_distilled

    return open_distilled(paths.gradients(images.name, run.realization), images, run.realization)


def objective_of(run: Run, conf: Conf) -> Objective:
    """What the run minimises: a baseline, alignment, or the sum of both."""
    terms: list[Objective] = []
    if run.baseline is not None:
        from pag.objectives.baselines.build import baseline_objective

        terms.append(baseline_objective(run, conf.methods))
    if run.realization is not None:
        from pag.objectives.alignment.objective import Alignment

        aligned = Alignment(run.weight, run.alignment.gradient_of)
        terms.append(aligned.term if terms else aligned)

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {name: loss for term in terms for name, loss in term(model, batch).items()}

    return objective


def describe(run: Run, arch: str, images: ImageDataset, gradients: ClassGradients | None) -> dict[str, Any]:
    """What stands beside the weights: all that tells this classifier from others."""
    about: dict[str, Any] = {"dataset": images.name, "arch": arch, "run": run.name, "method": run.method}
    about |= {
        "dataset_hash": images.content_hash,
        "num_classes": images.num_classes,
        "image_shape": list(images.image_shape),
    }
    if gradients is not None:
        about |= {
            "lambda": run.weight,
            "classes_per_image": run.alignment.classes_per_image,
            "gradient_of": run.alignment.gradient_of,
            "diffusion_sha256": gradients.attributes.get("diffusion_sha256"),
        }
    if run.penalty is not None:
        about["penalty"] = run.penalty
    return {**about, "training_seed": run.training_seed}


def save_curve(out: Path, history: History) -> None:
    with atomic_file(out) as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, history.rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history.rows)


def save(model: nn.Module, history: History, about: dict[str, Any], dataset: str) -> None:
    names = dataset, about["arch"], about["run"]
    with atomic_directory(paths.classifier(*names)) as folder:
        digest = save_weights(folder / "weights.safetensors", model.state_dict(), about)
    identity = {"dataset": dataset, "arch": about["arch"], "run": about["run"], "weights_sha256": digest}
    timings = {**identity, **history.timings(), "train_hardware": ", then ".join(history.machines)}
    save_json(paths.timings(*names), timings, sealed=True)


if __name__ == "__main__":
    run_stage(main, shared=True)
