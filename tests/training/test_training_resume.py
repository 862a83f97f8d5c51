"""An interrupted training of a classifier goes on from its scratch file as if nothing had happened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pag.classifiers import build
from pag.foundation.config.conf import ClassifierConfig
from pag.images.dataset import Split
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.training import loop
from pag.training.batches import Batches

SHAPE = (1, 8, 8)


class Interrupted(BaseException):
    pass


def run(optimizer: str, **options: Any) -> tuple[nn.Module, loop.History]:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (24, *SHAPE)).astype(np.uint8), np.arange(24, dtype=np.int64) % 3)
    config = ClassifierConfig(epochs=4, batch_size=8, lr=0.01, lr_schedule="cosine", optimizer=optimizer)  # type: ignore[arg-type]
    model = build("cnn", 3, SHAPE, seed=0)
    batches = Batches(split, config, 0, torch.device("cpu"))
    return model, loop.train_classifier(model, batches, cross_entropy, split, config, **options)


def interrupt_after(epoch: int) -> Any:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Interrupted

    return on_epoch


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.usefixtures("two_threads")
def test_it_ends_with_the_same_bits(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SCRATCH_SECONDS", 0.0)
    scratch = tmp_path / "scratch" / "training.pt"
    with pytest.raises(Interrupted):
        run(optimizer, on_epoch=interrupt_after(2), scratch=scratch)
    seen: list[float] = []
    resumed, history = run(optimizer, on_epoch=lambda row: seen.append(row["epoch"]), scratch=scratch)
    whole, reference = run(optimizer)
    assert seen == [3, 4]
    assert history.rows == reference.rows and history.steps == reference.steps
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_the_time_before_the_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SCRATCH_SECONDS", 0.0)
    scratch = tmp_path / "training.pt"
    with pytest.raises(Interrupted):
        run("sgd", on_epoch=interrupt_after(3), scratch=scratch)
    saved = torch.load(scratch, weights_only=True)["history"]
    _, history = run("sgd", scratch=scratch)
    assert history.seconds > saved["seconds"] > 0
