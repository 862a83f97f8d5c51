"""An interrupted training of a classifier goes on from its scratch as if nothing had happened."""

import itertools
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pag.foundation import interrupts
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.scratch import Scratch
from pag.images.dataset import Split
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.training import batches as batches_module
from pag.training import loop
from pag.training.batch import Batch
from pag.training.batches import Batches

SHAPE = (1, 8, 8)
STEPS = 12  # 4 epochs of 3


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def every_step_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")


def network(dropout: float) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
        )


class KilledAt:
    """Cross-entropy that dies in the forward pass of a step, after BatchNorm has changed its statistics."""

    def __init__(self, step: int | None) -> None:
        self.step, self.calls = step, 0

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        terms = cross_entropy(model, batch)
        if self.calls == self.step:
            raise Killed
        return terms


def run(
    scratch: Path | None = None,
    killed_at: int | None = None,
    optimizer: str = "sgd",
    dropout: float = 0.5,
    seed: int = 0,
    on_epoch: Callable[[loop.History], None] = lambda history: None,
    **options: Any,
) -> tuple[dict[str, Tensor], loop.History, int]:
    """The weights, the history and the number of steps that were taken."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (24, *SHAPE)).astype(np.uint8), np.arange(24, dtype=np.int64) % 3)
    changes = {"epochs": 4, "batch_size": 8, "lr": 0.01, "lr_schedule": "cosine", "optimizer": optimizer, **options}
    config = ClassifierConfig(**changes)
    model, objective = network(dropout), KilledAt(killed_at)
    kept = Scratch(scratch, {"optimizer": optimizer}) if scratch is not None else None
    batches = Batches(split, config, seed, torch.device("cpu"))
    history = loop.train_classifier(model, batches, objective, split, config, on_epoch, scratch=kept)
    return model.state_dict(), history, objective.calls


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 12], ids=lambda step: f"step{step}")
def test_it_ends_with_the_same_bits(step: int, optimizer: str, tmp_path: Path) -> None:
    """Within an epoch, at its ends, in the first and in the last step; dropout included."""
    with pytest.raises(Killed):
        run(tmp_path, step, optimizer)
    resumed, history, calls = run(tmp_path, None, optimizer)
    whole, reference, _ = run(None, None, optimizer)
    assert calls == STEPS - (step - 1)  # nothing that was kept is done again
    assert history.rows == reference.rows and history.steps == reference.steps
    assert equal(resumed, whole)


def test_the_time_of_both_parts_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by one second whenever it is looked at."""

    clock = SimpleNamespace(perf_counter=itertools.count(1000).__next__)
    for module in (loop, batches_module):
        monkeypatch.setattr(module, "time", clock)
    with pytest.raises(Killed):
        run(tmp_path / "killed", 5)
    resumed, whole = run(tmp_path / "killed")[1], run(tmp_path / "whole")[1]
    assert whole.seconds_waited == 4 * (3 + 1)  # the end of an epoch is waited for, too
    assert (resumed.seconds, resumed.seconds_waited) == (whole.seconds, whole.seconds_waited)


def test_a_signal_in_a_step_is_kept_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass has changed BatchNorm's statistics when it comes; no minute has passed since the start."""
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "1000")

    class Signalled(KilledAt):
        def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            terms = super().__call__(model, batch)
            if self.calls == 5:
                signal.raise_signal(signal.SIGTERM)
            return terms

    with monkeypatch.context() as patch, interrupts.handled():
        patch.setitem(globals(), "KilledAt", Signalled)
        with pytest.raises(interrupts.Interrupted):
            run(tmp_path)
        assert interrupts.exit_code() == 143
    with interrupts.handled():
        resumed, _, calls = run(tmp_path)
    assert calls == STEPS - 5 and equal(resumed, run()[0])


@pytest.mark.parametrize("content", [b"", b"short", None, "flipped", "cut"], ids=str)
def test_a_damaged_state_costs_one_step(content: bytes | str | None, tmp_path: Path, capsys) -> None:
    with pytest.raises(Killed):
        run(tmp_path, 8)
    whole = bytearray((tmp_path / "training").read_bytes())
    if content == "flipped":
        whole[len(whole) // 2] ^= 1
    damaged = {"flipped": bytes(whole), "cut": bytes(whole[:1000]), None: bytes(1000)}
    (tmp_path / "training").write_bytes(content if isinstance(content, bytes) else damaged[content])
    resumed, _, calls = run(tmp_path)
    assert calls == STEPS - 6
    assert equal(resumed, run()[0])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "training is not taken up" in said[0] and "training.damaged" in said[0]


def test_another_seed_draws_other_dropout_masks_and_no_dropout_draws_none() -> None:
    """Order and augmentation differ as well, so the masks are looked at themselves."""
    seen: list[Tensor] = []

    def masks(seed: int) -> list[bytes]:
        class Spy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                seen.append(nn.functional.dropout(torch.ones(64), 0.5, self.training))
                return x

        split = Split(np.zeros((16, *SHAPE), np.uint8), np.arange(16, dtype=np.int64) % 3)
        config = ClassifierConfig(epochs=2, batch_size=8)
        model = nn.Sequential(Spy(), nn.Flatten(), nn.Linear(64, 3))
        seen.clear()
        loop.train_classifier(model, Batches(split, config, seed, torch.device("cpu")), cross_entropy, split, config)
        return [mask.numpy().tobytes() for mask in seen if mask.min() == 0]

    first, again, other = masks(0), masks(0), masks(1)
    assert first == again and len(set(first)) == 4
    assert not set(first) & set(other)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_told_after_an_interruption_begins_with_the_epochs_before_it(tmp_path: Path) -> None:
    told: list[list[float]] = []

    def on_epoch(history: loop.History) -> None:
        told.append([row["epoch"] for row in history.rows])

    with pytest.raises(Killed):
        run(tmp_path, 8, on_epoch=on_epoch)  # in the third epoch
    assert told == [[], [1], [1, 2]]
    told.clear()
    run(tmp_path, on_epoch=on_epoch)
    assert told == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]


def test_the_time_before_the_interruption_counts(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, 8)
    saved = Scratch(tmp_path, {"optimizer": "sgd"}).load("training")["history"]
    assert run(tmp_path)[1].seconds > saved["seconds"] > 0


def test_the_time_of_every_step_counts_and_that_of_saving_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a look puts on by a second: a state is kept after each of three steps in four epochs."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    monkeypatch.setattr(loop, "_save", lambda *state: [loop.time.perf_counter() for _ in range(100)])
    assert run(tmp_path)[1].seconds == 4 * (3 + 1)


def test_a_bad_step_leaves_the_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()[0]

    def infinite(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = cross_entropy(model, batch)
        bad = Scratch(tmp_path, {"optimizer": "sgd"}).load("training")["history"]["steps"] == 6 if calls else False
        calls.append(1)
        return {"cross_entropy": terms["cross_entropy"] * (math.inf if bad else 1)}

    calls: list[int] = []
    monkeypatch.setattr(KilledAt, "__call__", lambda self, model, batch: infinite(model, batch))
    with pytest.raises(FloatingPointError, match=r"the loss is inf at step 7 \(epoch 3, batch 1\)"):
        run(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")
    resumed, _, calls_after = run(tmp_path)
    assert calls_after == STEPS - 6 and equal(resumed, whole)
