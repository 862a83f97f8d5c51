"""AutoAttack at the digits' four threat models: radii that share work against four separate official runs.

The network is the digits' CNN after a short adversarial training, since robust images are what costs time: each
meets every attack with its full budget. Both sides get the same network, frozen, and the same batch size; the official
runs use all threads, ours divides them among its processes, whose start is part of its time.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
import pyautoattack
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import report
from pag.classifiers import build
from pag.datasets.preparation import prepare
from pag.evaluation.autoattack import evaluate_autoattack, frozen
from pag.foundation.allocator import keep_freed_memory
from pag.foundation.config.conf import load_conf
from pag.foundation.config.section import Norm
from pag.foundation.seeding import generator
from pag.images.balance import balanced
from pag.threat.pgd import pgd
from pag.threat.threat_model import ThreatModel

EPOCHS = 8
BATCH_SIZE = 100

Radii = Mapping[Norm, Sequence[float]]


def adversarially_trained(images: Tensor, labels: Tensor) -> nn.Module:
    """The small CNN after a few epochs of PGD training at L2 0.5."""
    model = build("cnn", 10, (1, 8, 8), seed=0)
    optimizer = torch.optim.Adam(model.parameters())
    draws = generator(0, "benchmark")
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 0.004 * (1 - epoch / EPOCHS)
        for batch in torch.randperm(len(images), generator=draws).split(64):
            x_adv = pgd(model, images[batch], labels[batch], ThreatModel("L2", 0.5), 5, 0.15, draws)
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), labels[batch]).backward()
            optimizer.step()
    return model


def separate_runs(model: nn.Module, images: Tensor, labels: Tensor, radii: Radii) -> dict[str, float]:
    """Robust accuracy of one official run per threat model."""
    accuracies = {}
    with frozen(model):
        for norm, values in radii.items():
            for eps in values:
                official = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=0, version="standard")
                _, predicted = official.run_standard_evaluation(images, labels, batch_size=BATCH_SIZE)
                accuracies[f"{norm} {eps}"] = (predicted == labels).double().mean().item()
    return accuracies


def shared_run(model: nn.Module, images: Tensor, labels: Tensor, radii: Radii) -> dict[str, float]:
    result = evaluate_autoattack(model, images, labels, radii, batch_size=BATCH_SIZE, seed=0, processes=len(radii))
    return {f"{norm} {eps}": r.robust_accuracy(eps) for norm, r in result.by_norm.items() for eps in r.eps}


def run(count: int) -> dict[str, Any]:
    """Each side once: a run is tens of seconds of the same small operations, so it needs no warm-up or median."""
    keep_freed_memory()  # as the stages and our processes do: for the official runs too
    conf = load_conf("digits")
    digits = prepare("digits", conf.data, seed=0)
    model = adversarially_trained(digits.train.unit(), torch.from_numpy(digits.train.labels)).eval()
    test = digits.test.select(balanced(digits.test.labels, count, 0, "attacked"))
    attacked = (model, test.unit(), torch.from_numpy(test.labels))
    sides = {"separate": separate_runs, "shared": shared_run}
    seconds, robust_accuracy = {}, {}
    for name, side in sides.items():
        start = time.perf_counter()
        robust_accuracy[name] = side(*attacked, conf.evaluation.threat_models)
        seconds[name] = time.perf_counter() - start
    return {
        "shared_over_separate": seconds["separate"] / seconds["shared"],
        "images": count,
        "seconds": seconds,
        "robust_accuracy": robust_accuracy,
    }


@click.command()
@click.option("--images", default=70, show_default=True, help="Test images, class-balanced.")
@click.option("--json", is_flag=True, help="Print one JSON object as the last line.")
def main(images: int, json: bool) -> None:
    report("evaluation", run(images), json)


if __name__ == "__main__":
    main()
