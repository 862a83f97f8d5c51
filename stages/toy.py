"""toy: vanilla against nearest-neighbour alignment on points in the plane, over several seeds (appendix G.1)."""

from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from torch import nn

from pag.classifiers import build
from pag.classifiers.accuracy import accuracy
from pag.foundation.artifacts import save_arrays, save_json
from pag.foundation.config.toy import ToyConfig, load_toy
from pag.foundation.config.training import ClassifierConfig
from pag.gradients.realizations import nearest_neighbour
from pag.images.dataset import ImageDataset, load
from pag.objectives.alignment.objective import Alignment
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.threat.pgd import pgd
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Objective
from pag.training.batches import Batches
from pag.training.loop import train_classifier
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.progress import progress

CPU = torch.device("cpu")  # a network of 160 weights


@dataclass(frozen=True)
class PointGradients:
    """g(x, y) of every training point, in memory."""

    directions: np.ndarray  # (N, K, 2)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.directions.shape

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return self.directions[rows[:, None], target_classes]


def classifier_config(toy: ToyConfig) -> ClassifierConfig:
    return ClassifierConfig(
        epochs=toy.epochs,
        batch_size=toy.batch_size,
        optimizer="adam",
        lr=toy.lr,
        weight_decay=0.0,
        lr_schedule="constant",
        crop_padding=0,
        flip=False,
    )


def train(
    points: ImageDataset, objective: Objective, gradients: PointGradients | None, toy: ToyConfig, seed: int
) -> nn.Module:
    model = build("mlp", points.num_classes, points.image_shape, seed, hidden=toy.hidden)
    batches = Batches(points.train, classifier_config(toy), seed, CPU, gradients, "all")
    train_classifier(model, batches, objective, points.validation, batches.config)
    return model.eval()


def pgd_accuracy(model: nn.Module, points: ImageDataset, toy: ToyConfig) -> float:
    """Accuracy in [0, 1] under L2 PGD from the clean points; points have no bounds."""
    x, labels = points.test.unit(), torch.from_numpy(points.test.labels)
    x_adv = pgd(model, x, labels, ThreatModel("L2", toy.eps), toy.steps, toy.step_size, bounds=None)
    return (model(x_adv).argmax(1) == labels).float().mean().item()


def worst_accuracy(model: nn.Module, points: ImageDataset, eps: float) -> float:
    """Accuracy in [0, 1] where a point counts if the whole disc around it does, as far as a polar grid tells.

    In the plane that can be searched, which no attack along gradients equals.
    """
    x, labels = points.test.unit(), torch.from_numpy(points.test.labels)
    radii, angles = torch.linspace(0, eps, 61), torch.arange(180) * (2 * torch.pi / 180)
    disc = (radii[:, None, None] * torch.stack([angles.cos(), angles.sin()], dim=1)).flatten(0, 1)
    with torch.no_grad():
        held = [(model(x_i + disc).argmax(1) == y_i).all() for x_i, y_i in zip(x, labels, strict=True)]
    return torch.stack(held).float().mean().item()


def boundaries(models: dict[str, nn.Module], points: ImageDataset) -> dict[str, np.ndarray]:
    """Predicted classes on a grid around the test points, for the figure."""
    low, high = points.test.images.min(0) - 15, points.test.images.max(0) + 15
    grid_x, grid_y = (np.linspace(low[axis], high[axis], 400, dtype=np.float32) for axis in (0, 1))
    grid = torch.from_numpy(np.stack(np.meshgrid(grid_x, grid_y), axis=-1))  # (Y, X, 2)
    with torch.no_grad():
        predicted = {name: model(grid.flatten(0, 1)).argmax(1).view(400, 400).numpy() for name, model in models.items()}
    return {"grid_x": grid_x, "grid_y": grid_y, "points": points.test.images, "labels": points.test.labels, **predicted}


def summary(values: list[float]) -> dict[str, float | list[float]]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}


def run_seed(toy: ToyConfig, points: ImageDataset, gradients: PointGradients, seed: int) -> dict[str, nn.Module]:
    """Vanilla and NN, trained from the same initial weights. One thread: the work of a step is tiny."""
    torch.set_num_threads(1)
    aligned = Alignment(toy.weight)
    return {
        "vanilla": train(points, cross_entropy, None, toy, seed),
        "nn": train(points, aligned, gradients, toy, seed),
    }


@click.command()
def main() -> None:
    toy, points = load_toy(), load(paths.images("toy"))
    neighbours = nearest_neighbour(points.train, points.num_classes, 0, toy.nn_candidates)
    x = points.train.unit()
    gradients = PointGradients(neighbours(x, torch.arange(len(x))).numpy())
    parallel = Parallel(n_jobs=min(cpu_count(), toy.seeds), return_as="generator")
    runs = parallel(delayed(run_seed)(toy, points, gradients, seed) for seed in range(toy.seeds))

    scores: dict[str, dict[str, list[float]]] = {
        name: {"clean": [], "pgd": [], "worst": []} for name in ("vanilla", "nn")
    }
    with progress("vanilla and NN on toy", toy.seeds, "seeds") as told:
        for seed, models in enumerate(runs):
            for name, model in models.items():
                scores[name]["clean"].append(accuracy(model, points.test, CPU))
                scores[name]["pgd"].append(pgd_accuracy(model, points, toy))
                scores[name]["worst"].append(worst_accuracy(model, points, toy.eps))
            if seed == 0:
                arrays = boundaries(models, points)
            so_far = ", ".join(f"{name} {np.mean(scores[name]['worst']):.1%}" for name in models)
            told.at(seed + 1, figures=f"accuracy at the worst point {so_far}")

    save_arrays(paths.TOY_ARRAYS, arrays)
    summaries = {name: {key: summary(v) for key, v in s.items()} for name, s in scores.items()}
    identity = {"dataset": points.name, "dataset_hash": points.content_hash}
    save_json(paths.TOY_RECORD, {**identity, "seeds": toy.seeds, **summaries}, sealed=True)
    headline = {f"toy {name}": {key: s["mean"] for key, s in of.items()} for name, of in summaries.items()}
    save_json(paths.TOY_METRICS, headline)


if __name__ == "__main__":
    run_stage(main)
