"""The classifier loop: one loop for every method; what is minimised is an objective that the caller gives."""

import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from pag.classifiers import fastest_layout
from pag.classifiers.accuracy import accuracy
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.finite import MAX_LOSS, Watch
from pag.foundation.global_batch import see_whole_batch
from pag.foundation.interrupts import held
from pag.foundation.processes import add_up, from_first
from pag.foundation.scratch import Scratch
from pag.foundation.seeding import derive_seed, own_random_state
from pag.images.dataset import Split
from pag.training.batch import Batch, Objective
from pag.training.batches import Batches


@dataclass
class History:
    """What a training run recorded: one row per epoch, and how its time was spent."""

    rows: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0  # of the steps; validation and saving are not counted
    seconds_waited: float = 0.0  # for data
    machines: list[str] = field(default_factory=list)  # where it ran, in words, as the caller names them

    def timings(self) -> dict[str, float | None]:
        """For the metrics. seconds_per_step is None where machines took turns: the mean would be that of none."""
        return {
            "train_seconds": round(self.seconds, 3),
            "seconds_per_step": round(self.seconds / self.steps, 6) if len(self.machines) < 2 else None,
            "data_wait_fraction": round(self.seconds_waited / self.seconds, 4),
        }


def train_classifier(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    validation: Split,
    config: ClassifierConfig,
    on_epoch: Callable[[History], None] = lambda history: None,
    on_step: Callable[[int], None] = lambda steps: None,
    scratch: Scratch | None = None,
) -> History:
    """Train `model` in place with `objective` for ``config.epochs``; the last weights stay, nothing is selected.

    on_epoch: called at the start, with what an earlier process has done, and after every epoch.
    on_step: called with the number of steps taken.
    scratch: keeps the state of the training now and then, and training goes on from what it holds. What a step draws,
    dropout in the network included, belongs to its number, so the result is the uninterrupted one's.

    Where several processes have joined, each is called with the same arguments, computes its part of every batch and
    ends with the same weights; the gradients are added up after the backward pass, of which there is one.

    Raises FloatingPointError with the step at the first loss or gradient that is not finite and for weights or losses
    that have run away; such a state is not kept. Raises Interrupted, when told to stop, with the state after the step
    kept.
    """
    device = batches.device
    model.to(device).to(memory_format=fastest_layout(model))
    see_whole_batch(model, batches.part)
    network = cast(nn.Module, torch.compile(model)) if config.compile else model
    optimizer = build_optimizer(model, config)
    per_epoch = len(batches)
    total_steps = config.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(config, step / total_steps))
    watch = Watch(model.parameters(), device, functools.partial(_advice, per_epoch))
    stateful: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    history, sums = _resume(scratch, stateful, device)
    earlier_waited = history.seconds_waited
    on_epoch(history)

    def count_time(since: float) -> None:
        history.seconds += time.perf_counter() - since
        history.seconds_waited = earlier_waited + batches.seconds_waited

    with own_random_state(device), held() if scratch else nullcontext():
        for epoch in range(len(history.rows), config.epochs):
            network.train()
            start = time.perf_counter()
            for batch in batches.epoch(epoch, first=history.steps - epoch * per_epoch):
                torch.manual_seed(derive_seed(batches.seed, "dropout", history.steps))
                optimizer.zero_grad(set_to_none=True)
                loss, terms = _differentiate(network, objective, batch, config.precision == "bf16")
                watch.look(history.steps + 1, loss)
                optimizer.step()
                schedule.step()

                history.steps += 1
                on_step(history.steps)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term
                if scratch is not None and scratch.due():
                    watch.check(history.steps)
                    count_time(start)
                    _save(scratch, stateful, history, sums)
                    start = time.perf_counter()
            watch.check(history.steps)
            count_time(start)

            row = {"epoch": epoch + 1, **_mean_terms(sums, per_epoch, history.steps)}
            if len(validation.labels):
                row["validation_accuracy"] = accuracy(model, validation, device)
            history.rows.append(row)
            sums = {}
            if scratch is not None and scratch.due():
                _save(scratch, stateful, history, sums)
            on_epoch(history)
    return history


def _differentiate(
    network: nn.Module, objective: Objective, batch: Batch, bf16: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the objective's terms, whose sum it is, over the whole batch; its gradients are in the weights."""
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
        terms = objective(network, batch)
    loss = batch.weight * torch.stack(list(terms.values())).sum()
    loss.backward()
    loss, terms = loss.detach(), {name: batch.weight * term.detach() for name, term in terms.items()}
    add_up([loss, *terms.values(), *(p.grad for p in network.parameters() if p.grad is not None)])
    return loss, terms


def _mean_terms(sums: dict[str, Tensor], per_epoch: int, steps: int) -> dict[str, float]:
    """The objective's terms over an epoch; raises FloatingPointError where they have run away."""
    means = {name: float(total) / per_epoch for name, total in sums.items()}
    if means.get("cross_entropy", 0) > MAX_LOSS:
        problem = f"the mean cross-entropy of an epoch is {means['cross_entropy']:.3g}, the training has run away"
        raise FloatingPointError(_advice(per_epoch, steps, problem))
    return means


def _save(scratch: Scratch, stateful: dict[str, Any], history: History, sums: dict[str, Tensor]) -> None:
    """The state after step number `history.steps`. sums: of the objective's terms, in the epoch that is running."""
    states = {name: part.state_dict() for name, part in stateful.items()}
    scratch.save("training", {**states, "history": asdict(history), "sums": sums})


def _resume(
    scratch: Scratch | None, stateful: dict[str, Any], device: torch.device
) -> tuple[History, dict[str, Tensor]]:
    """Put the state that was kept in place, if there is one; what is known up to there."""
    saved = from_first(lambda: scratch.load("training", device)) if scratch is not None else None
    if saved is None:
        return History(), {}
    for name, part in stateful.items():
        part.load_state_dict(saved[name])
    return History(**saved["history"]), saved["sums"]


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


def _advice(per_epoch: int, step: int, problem: str) -> str:
    epoch, batch = divmod(step - 1, per_epoch)
    return (
        f"{problem} at step {step} (epoch {epoch + 1}, batch {batch + 1}): "
        "lower classifier.lr or lambda, or use precision float32"
    )
