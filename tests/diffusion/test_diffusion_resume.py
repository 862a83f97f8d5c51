"""An interrupted training of the diffusion model goes on from its scratch as if nothing had happened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pag.diffusion import training
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.scratch import Scratch
from pag.images.dataset import ImageDataset, Split

CONFIG = DiffusionConfig(
    timesteps=50,
    channels=8,
    multipliers=[1, 1],
    blocks=1,
    attention=[],
    head_dim=8,
    dropout=0.3,
    steps=6,
    batch_size=4,
    lr=1e-3,
)


class Interrupted(BaseException):
    pass


def run(**options: Any) -> training.TrainedDiffusion:
    images = np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8)).astype(np.uint8)
    split = Split(images, np.arange(20) % 2, levels=16)
    dataset = ImageDataset.create("two", ("0", "1"), train=split, validation=split, test=split)
    return training.train(dataset, CONFIG, 0, "cpu", **options)


def interrupt_at(step: int) -> Any:
    def on_step(losses: list[float]) -> None:
        if len(losses) == step + 1:
            raise Interrupted

    return on_step


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.usefixtures("two_threads")
def test_it_ends_with_the_same_bits(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")
    scratch = Scratch(tmp_path / "scratch", {"seed": 0})
    with pytest.raises(Interrupted):
        run(on_step=interrupt_at(step), scratch=scratch)
    seen: list[int] = []
    resumed, whole = run(on_step=lambda losses: seen.append(len(losses)), scratch=scratch), run()
    assert seen[-1] == CONFIG.steps and 0 < len(seen) < CONFIG.steps
    assert resumed.losses == whole.losses
    assert all(torch.equal(resumed.ema_weights[name], weight) for name, weight in whole.ema_weights.items())


def test_without_an_interruption_a_scratch_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")
    seen: list[int] = []
    watched = run(on_step=lambda losses: seen.append(len(losses)), scratch=Scratch(tmp_path, {}))
    assert seen == list(range(1, CONFIG.steps + 1))
    assert watched.losses == run().losses
