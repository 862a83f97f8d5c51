"""Inputs and models that would read as robust: refused by name, or attacked all the same."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks.faults.bench import PASSED, SILENT, Bench, Case, Finding, last_line, refused
from benchmarks.faults.forks import Fork
from benchmarks.faults.workspace import Workspace
from pag.evaluation.evaluate import evaluate
from pag.evaluation.standard import quick
from pag.images.dataset import load
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device

Change = Callable[[Tensor], Tensor]


def _one(images: Tensor, value: float) -> Tensor:
    images[3, 0, 2, 2] = value
    return images


# name → (images as they are given, a word of the line that refuses them)
IMAGES: dict[str, tuple[Change, str]] = {
    "a NaN pixel": (lambda x: _one(x, float("nan")), "NaN"),
    "an infinite pixel": (lambda x: _one(x, float("inf")), "infinity"),
    "a pixel of 1.01": (lambda x: _one(x, 1.01), "[0, 1]"),
    "a pixel of -0.01": (lambda x: _one(x, -0.01), "[0, 1]"),
    "0..255": (lambda x: x * 255, "[0, 1]"),
    "normalised": (lambda x: (x - 0.5) / 0.25, "[0, 1]"),
    "whole numbers": (lambda x: (x * 255).byte(), "images"),
}
LABELS: dict[str, tuple[Change, str]] = {
    "a class that is none": (lambda y: y.index_fill(0, torch.tensor([2]), 10), "label"),
    "a negative class": (lambda y: y.index_fill(0, torch.tensor([2]), -1), "label"),
    "floats": (lambda y: y.float(), "labels"),
    "one too few": (lambda y: y[:-1], "labels"),
}


class Changed(nn.Module):
    """A classifier whose logits go through `change`."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.model(x))


# name → (what it does to the logits, a word of the refusal or of the warning)
MODELS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "NaN logits": (lambda z: z * float("nan"), "NaN"),
    "NaN for one class": (lambda z: z.index_fill(1, torch.tensor([3]), float("nan")), "NaN"),
    "a tuple": (lambda z: (z, z), "tuple"),
    "float16": (lambda z: z.half(), "float16"),
    "float64": (lambda z: z.double(), "float64"),
    "detached": (lambda z: z.detach(), "gradient"),
    "one-hot": (lambda z: nn.functional.one_hot(z.argmax(1), 10).float(), "gradient"),
    "no image axis": (lambda z: z.flatten(), "logits"),
    "logits times 10⁵": (lambda z: z * 1e5, "logits"),
    "logits times 10⁹": (lambda z: z * 1e9, "logits"),
    "logits of the batch's mean": (lambda z: z - z.mean(0, keepdim=True), "batch"),
}


def cases() -> Iterator[Case]:
    expected = "refused in one line, or a warning and no higher accuracy"
    for name, (change, word) in IMAGES.items():
        yield Case("flattery", f"images: {name}", expected, partial(_measured, word, {"images": change}))
    for name, (change, word) in LABELS.items():
        yield Case("flattery", f"labels: {name}", expected, partial(_measured, word, {"labels": change}))
    for name, (change, word) in MODELS.items():
        yield Case("flattery", f"model: {name}", expected, partial(_measured, word, {"logits": change}))
    yield Case("flattery", "model in training mode", expected, partial(_measured, "train", {"training": True}))
    yield Case("flattery", "nothing wrong with it", "measured", partial(_measured, "", {}))


def _measured(word: str, changes: dict[str, Any], _: Bench, workspace: Workspace) -> Finding:
    outcome = Fork(workspace.folder, partial(_evaluate, changes)).wait()
    if outcome.code:
        return refused(outcome, (word,))
    found = json.loads(outcome.out.splitlines()[-1])
    observed = f"robust accuracy {found['robust']:.2f}, warnings {found['warnings']}"
    if not word:
        return Finding(observed, PASSED)
    said = any(word in warning for warning in found["warnings"])
    return Finding(observed if said else f"no warning; {observed}; {last_line(outcome)}", PASSED if said else SILENT)


def _evaluate(changes: dict[str, Any]) -> None:
    """In the child: the classifier of the miniature, attacked through the library as a user would."""
    from pag.foundation.artifacts import load_weights

    @click.command()
    def command() -> None:
        from pag.classifiers import build

        images = load(paths.images("digits"))
        model = build("cnn", images.num_classes, images.image_shape, seed=0)
        model.load_state_dict(load_weights(paths.classifier("digits", "cnn", "sbg") / "weights.safetensors")[0])
        model.to(best_device()).eval()
        given: Any = Changed(model, changes["logits"]).eval() if "logits" in changes else model
        if "training" in changes:
            given = model.train().__call__  # a function of a module in training mode
        x, y = images.test.unit()[:20], torch.from_numpy(images.test.labels[:20]).clone()
        x, y = changes.get("images", lambda x: x)(x), changes.get("labels", lambda y: y)(y)
        found = evaluate(given, x, y, {"Linf": [0.1]}, attack=quick(2, 1))
        click.echo(json.dumps({"robust": found.robust_accuracy["Linf"][0.1], "warnings": found.warnings}))

    sys.argv = ["evaluate"]
    run_stage(command)
