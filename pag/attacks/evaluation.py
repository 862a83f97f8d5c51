"""What a classifier's metrics file says about its accuracy: clean, under AutoAttack, under the Foolbox attacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pag.attacks.autoattack import AutoAttackResult, evaluate_autoattack, frozen, predict
from pag.attacks.foolbox import evaluate_foolbox
from pag.config.conf import EvaluationConfig


@dataclass(frozen=True)
class Evaluation:
    """metrics: fractions in 0..1, ready for JSON. subset: (n,) indices of the attacked images, in test set order."""

    metrics: dict[str, Any]
    subset: Tensor
    autoattack: AutoAttackResult


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: EvaluationConfig,
    seed: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cache: Path | None = None,
) -> Evaluation:
    """Clean accuracy on the whole test set, attacks on its class-balanced part of ``config.images``.

    images: (N, C, H, W) in [0, 1], labels: (N,), on the model's device. progress and cache: see evaluate_autoattack.
    """
    subset = torch.from_numpy(balanced_subset(labels.cpu().numpy(), config.images or len(labels)))
    attacked, attacked_labels = images[subset], labels[subset]
    autoattack = evaluate_autoattack(
        model,
        attacked,
        attacked_labels,
        config.threat_models,
        batch_size=config.batch_size,
        seed=seed,
        progress=progress,
        cache=cache,
    )
    foolbox = evaluate_foolbox(
        model, attacked, attacked_labels, config.foolbox, batch_size=config.batch_size, seed=seed
    )
    metrics = {
        "clean_accuracy": clean_accuracy(model, images, labels, config.batch_size),
        "n_clean": len(images),
        "robust_accuracy": {
            norm: {str(eps): result.robust_accuracy(eps) for eps in result.eps}
            for norm, result in autoattack.by_norm.items()
        },
        "n_examples": len(attacked),
        "autoattack_warnings": autoattack.warnings,
        "foolbox": {
            name: {
                "accuracy": result.accuracy,
                "eps": result.eps,
                "distance": result.distance_name,
                "median_distance": result.median_distance,
                "warnings": result.warnings,
            }
            for name, result in foolbox.items()
        },
    }
    return Evaluation(metrics, subset, autoattack)


def clean_accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> float:
    """The fraction of images (N, C, H, W) that `model`, in eval mode, classifies correctly."""
    with frozen(model):
        return (predict(model, images, batch_size).argmax(dim=1) == labels).double().mean().item()


def balanced_subset(labels: np.ndarray, n: int) -> np.ndarray:
    """Ascending indices (n,) of a part of the test set in which class counts differ by at most one.

    It takes the first images of every class, so the same test set always gives the same part, and a smaller part lies
    in a larger one. A class that has too few images is taken whole and the others fill up.
    """
    if not 1 <= n <= len(labels):
        raise ValueError(
            f"a subset of {n} images was asked for: expected between 1 and {len(labels)}, the whole test set"
        )
    by_class = np.argsort(labels, kind="stable")
    sorted_labels = labels[by_class]
    rank = np.empty(len(labels), dtype=np.int64)  # of an image among those of its class
    rank[by_class] = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    return np.sort(np.lexsort((labels, rank))[:n])
