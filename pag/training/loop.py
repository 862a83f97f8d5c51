"""The classifier loop: one loop for every method; what is minimised is an objective that the caller gives."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pag.classifiers.accuracy import accuracy
from pag.foundation.artifacts import atomic_file
from pag.foundation.config.conf import ClassifierConfig
from pag.images.dataset import Split
from pag.training.batch import Objective
from pag.training.batches import Batches

SCRATCH_SECONDS = 10.0  # at least, between two writings of the scratch file


@dataclass
class History:
    """What a training run recorded: one row per epoch, and how its time was spent."""

    rows: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0  # of the steps; validation and saving are not counted
    seconds_waited: float = 0.0  # for data

    def timings(self) -> dict[str, float]:
        return {
            "train_seconds": round(self.seconds, 3),
            "seconds_per_step": round(self.seconds / self.steps, 6),
            "data_wait_fraction": round(self.seconds_waited / self.seconds, 4),
        }


def train_classifier(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    validation: Split,
    config: ClassifierConfig,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    scratch: Path | None = None,
) -> History:
    """Train `model` in place with `objective` for ``config.epochs``; the last weights stay, nothing is selected.

    scratch: a file that the state of the training goes to after an epoch now and then. Where it exists already,
    training goes on from there; an epoch's draws belong to its number, so the result is the uninterrupted one's. It
    must be of the same arguments; the caller names it so, and removes it.

    Raises FloatingPointError with the step at the first loss that is not finite.
    """
    device = batches.device
    model.to(device).to(memory_format=torch.channels_last)
    network = cast(nn.Module, torch.compile(model)) if config.compile else model
    optimizer = build_optimizer(model, config)
    total_steps = config.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(config, step / total_steps))
    stateful: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    history = _resume(scratch, stateful, device) if scratch is not None and scratch.exists() else History()
    earlier_waited = history.seconds_waited
    saved = time.perf_counter()

    for epoch in range(len(history.rows), config.epochs):
        network.train()
        start = time.perf_counter()
        sums: dict[str, Tensor] = {}
        for batch in batches.epoch(epoch):
            # the objective's terms, whose sum is the loss
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                terms = objective(network, batch)
            loss = torch.stack(list(terms.values())).sum()

            # update the weights
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()

            history.steps += 1
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()
            if device.type == "cpu":  # free here; a GPU would wait for it at every step
                _refuse_nan(loss, history.steps)
        _refuse_nan(torch.stack(list(sums.values())).sum(), history.steps)
        history.seconds += time.perf_counter() - start
        history.seconds_waited = earlier_waited + batches.seconds_waited

        row = {"epoch": epoch + 1, **{name: float(total) / len(batches) for name, total in sums.items()}}
        if len(validation.labels):
            row["validation_accuracy"] = accuracy(model, validation, device)
        history.rows.append(row)
        if scratch is not None and time.perf_counter() - saved > SCRATCH_SECONDS:
            _save(scratch, stateful, history)
            saved = time.perf_counter()
        on_epoch(row)
    return history


def _save(path: Path, stateful: dict[str, Any], history: History) -> None:
    """The state of the training after epoch number len(history.rows)."""
    with atomic_file(path) as partial:
        states = {name: part.state_dict() for name, part in stateful.items()}
        torch.save({**states, "history": asdict(history)}, partial)


def _resume(path: Path, stateful: dict[str, Any], device: torch.device) -> History:
    """Put the saved state in place; the history up to there."""
    saved = torch.load(path, map_location=device, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(saved[name])
    return History(**saved["history"])


def build_optimizer(model: nn.Module, config: ClassifierConfig) -> torch.optim.Optimizer:
    parameters, lr, weight_decay = model.parameters(), config.lr, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=weight_decay, fused=True)


def lr_factor(config: ClassifierConfig, progress: float) -> float:
    """The learning rate's factor at `progress` in [0, 1) of the training."""
    if config.lr_schedule == "steps":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    if config.lr_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def _refuse_nan(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step}: lower classifier.lr or lambda, or use precision float32"
        )
