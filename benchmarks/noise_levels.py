"""Diffusion models trained on one noise level, a band or all: whose score-based gradients serve a classifier best?

Digits; every model of a row gets the conf's number of steps, so the same number of images, with seeds 0, 1, … A long
run on all levels is the reference: the cosine is that of the stored directions with its own, over all training images
and classes. `cosine` is taken at the same noise, so it sees the networks' difference alone. `other_noise` has the
reference drawn with other noise; the long run's own value there is the ceiling for the rest. Each set of directions
then trains the conf's CNN, which the standard AutoAttack attacks on the validation images: a default is chosen by this.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness import machine, report
from pag.classifiers import build
from pag.classifiers.accuracy import accuracy
from pag.classifiers.input_gradients import cosine
from pag.datasets.preparation import prepare
from pag.diffusion.model.schedule import gradient_t
from pag.diffusion.model.trained import assemble
from pag.diffusion.training import train
from pag.evaluation.evaluate import evaluate
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.gradients.score import ScoreBased
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset
from pag.objectives.alignment.objective import Alignment
from pag.store.reader import GradientStore
from pag.training.batches import Batches
from pag.training.loop import train_classifier
from stages.shared.device import best_device
from stages.shared.distillation import write_store

ARCH = "cnn"
LEVELS: tuple[Literal["single", "band", "all"], ...] = ("single", "band", "all")
RADII = (0.5, 1.0)  # L2
NOISE_SEED, OTHER_NOISE_SEED = 0, 1  # of the gradients, whatever the model's seed
LONG_SEED = 1000  # of the reference: it must not begin like one of the others


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    conf: Conf
    images: ImageDataset
    folder: Path  # for the gradient stores and what AutoAttack remembers
    device: torch.device


Row = dict[str, list[float]]  # one entry per seed


def compare(bench: Bench, seeds: int, long: int) -> dict[str, Row]:
    """A row for each of LEVELS, and one for a run `long` times as long as theirs, on all levels."""
    config = bench.conf.diffusion.model_copy(update={"noise_levels": "all", "steps": long * bench.conf.diffusion.steps})
    weights, seconds = diffusion_model(bench, config, LONG_SEED, "long")
    reference = distilled(bench, weights, config, NOISE_SEED, "long")
    other_noise = distilled(bench, weights, config, OTHER_NOISE_SEED, "long-other-noise")

    def row(store: GradientStore, seconds: float, seed: int) -> dict[str, float]:
        cosines = {"cosine": mean_cosine(store, reference), "other_noise": mean_cosine(store, other_noise)}
        return {"seconds": seconds, **cosines, **accuracies(bench, store, seed)}

    rows: dict[str, Row] = {}
    for levels in LEVELS:
        found = []
        for seed in range(seeds):
            name = f"{levels}-{seed}"
            config = bench.conf.diffusion.model_copy(update={"noise_levels": levels})
            model, taken = diffusion_model(bench, config, seed, name)
            found.append(row(distilled(bench, model, config, NOISE_SEED, name), taken, seed))
        rows[levels] = by_measure(found)
    of_one_model = [row(reference, seconds, seed) for seed in range(seeds)]  # with a classifier for every seed
    rows["long"] = by_measure(of_one_model)
    return rows


def by_measure(found: Sequence[Mapping[str, float]]) -> Row:
    return {key: [one[key] for one in found] for key in found[0]}


def diffusion_model(bench: Bench, config: DiffusionConfig, seed: int, name: str) -> tuple[dict[str, Tensor], float]:
    """Averaged weights after training with `config`, and the seconds it took."""
    start = time.perf_counter()
    trained = train(
        bench.images,
        config,
        seed,
        bench.device,
        on_step=progress(f"diffusion {name}", config.steps, start),
    )
    return trained.ema_weights, time.perf_counter() - start


def progress(name: str, steps: int, start: float) -> Callable[[list[float]], None]:
    """A line after every tenth of the steps."""

    def on_step(losses: list[float]) -> None:
        done = len(losses)
        if 10 * done // steps > 10 * (done - 1) // steps:
            click.echo(f"{name}: step {done} of {steps}, loss {losses[-1]:.4f}, {time.perf_counter() - start:.0f} s")

    return on_step


def distilled(
    bench: Bench, weights: dict[str, Tensor], config: DiffusionConfig, noise_seed: int, name: str
) -> GradientStore:
    """SBG of a trained model at the conf's noise level, for all training images and classes, from a store."""
    distill, images = bench.conf.distill, bench.images
    t = gradient_t(config, distill.t)
    model = assemble(weights, config, images.num_classes, images.image_shape, bench.device, "not on disk")
    gradients = ScoreBased(model, t, distill.noise_draws, noise_seed)
    path = bench.folder / f"{name}.zarr"
    write_store(gradients, images, images.train, path, distill, {"realization": "sbg", "t": t}, bench.device)
    return GradientStore.open(path)


def mean_cosine(store: GradientStore, reference: GradientStore) -> float:
    """Of the directions in two stores, over all images and classes."""
    assert store.shape == reference.shape, (store.shape, reference.shape)
    cosines = [
        cosine(*(torch.from_numpy(side.read_all_classes(rows)).float() for side in (store, reference)))
        for rows in np.array_split(np.arange(len(store)), max(1, len(store) // 64))
    ]
    return torch.cat(cosines).mean().item()


def accuracies(bench: Bench, store: GradientStore, seed: int) -> dict[str, float]:
    """Of the CNN trained with the directions in `store`: on the validation images, a part of them under attack."""
    conf, images = bench.conf, bench.images
    model = build(ARCH, images.num_classes, images.image_shape, seed)
    k = conf.alignment.classes_per_image
    batches = Batches(images.train, conf.classifier, seed, bench.device, store, k)
    weight = conf.methods.sbg.for_arch(ARCH)
    objective = Alignment(weight, conf.alignment.gradient_of)
    train_classifier(model, batches, objective, images.validation, conf.classifier)
    model.requires_grad_(False).eval()
    clean = accuracy(model, images.validation, bench.device)
    rows = balanced(images.validation.labels, conf.evaluation.images, 0, "attacked")
    attacked = images.validation.select(rows)
    found = evaluate(model, attacked.unit(), torch.from_numpy(attacked.labels), {"L2": RADII}, cache=bench.folder)
    robust = {f"L2 {eps}": found.robust_accuracy["L2"][eps] for eps in RADII}
    listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in {"clean": clean, **robust}.items())
    click.echo(f"{store.path.stem}, classifier with seed {seed}: {listed}")
    return {"clean": clean, **robust}


def show(rows: Mapping[str, Row], settings: Mapping[str, Any]) -> None:
    """The rows as a table, mean ± standard deviation over the seeds."""
    percents = ("clean", *(f"L2 {eps}" for eps in RADII))
    about = {
        **settings,
        "standard error of an L2 accuracy up to": f"{50 / settings['images'] ** 0.5:.1f} %",
        **machine(),
    }
    caption = ", ".join(f"{key} {value}" for key, value in about.items())
    table = Table("noise levels", "seconds", "cosine", "other noise", *percents, title="noise_levels", caption=caption)
    for name, row in rows.items():
        cells = [spread(row["seconds"], 1), spread(row["cosine"], 4), spread(row["other_noise"], 4)]
        table.add_row(name, *cells, *(spread([100 * value for value in row[key]], 1) for key in percents))
    Console(width=max(100, Console().width)).print(table)


def spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(set(values)) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="0, 1, …, for every row")
@click.option("--long", type=click.IntRange(min=1), default=8, show_default=True, help="times the steps: the reference")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=144,
    show_default=True,
    help="attacked, class-balanced; all by default",
)
@click.option("--steps", type=click.IntRange(min=1), help="of the other runs; conf/digits.yaml's by default")
@click.option("--json", is_flag=True, help="one JSON object on the last line")
def main(seeds: int, long: int, images: int, steps: int | None, json: bool) -> None:
    conf = load_conf("digits")
    diffusion = conf.diffusion.model_copy(update={"steps": steps or conf.diffusion.steps})
    radii = {"threat_models": {"L2": list(RADII)}, "split": "validation", "images": images, "foolbox": {}}
    evaluation = conf.evaluation.model_copy(update=radii)
    conf = conf.model_copy(update={"diffusion": diffusion, "evaluation": evaluation})
    digits = prepare("digits", conf.data, seed=0)
    settings = {
        "training_images": len(digits.train),
        "steps": diffusion.steps,
        "batch_size": diffusion.batch_size,
        "alpha_bar": diffusion.alpha_bar,
        "long": long,
        "seeds": seeds,
        "images": min(images, len(digits.validation)),
    }
    with tempfile.TemporaryDirectory() as name:
        rows = compare(Bench(conf, digits, Path(name), best_device()), seeds, long)
    if json:
        means = {name: {key: statistics.mean(values) for key, values in row.items()} for name, row in rows.items()}
        report("noise_levels", {**settings, "means": means, "per_seed": rows}, json)
    else:
        show(rows, settings)


if __name__ == "__main__":
    main()
