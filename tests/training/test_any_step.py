"""A training that is stopped after arbitrary steps, as often as one likes, ends with the uninterrupted one's bytes."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from pag.classifiers import build
from pag.diffusion.training import train
from pag.foundation.config.conf import load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.training import ClassifierConfig
from pag.foundation.scratch import Scratch
from pag.images.dataset import ImageDataset, Split
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.training.batches import Batches
from pag.training.loop import train_classifier

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


class Killed(BaseException):
    pass


def split(count: int) -> Split:
    images = np.random.default_rng(count).integers(0, 17, (count, 1, 8, 8), dtype=np.uint8)
    return Split(images, np.arange(count) % 3, levels=16)


def dies_after(scratch: Scratch, states: int) -> Scratch:
    """A scratch whose process dies as soon as so many states are kept."""
    save, kept = scratch.save, []

    def counting(name: str, state: Any) -> None:
        save(name, state)
        kept.append(name)
        if len(kept) == states:
            raise Killed

    scratch.save = counting  # type: ignore[method-assign]
    return scratch


def classifier(scratch: Scratch | None, config: ClassifierConfig) -> dict[str, torch.Tensor]:
    model = build("cnn", 3, (1, 8, 8), seed=0)
    train_classifier(model, Batches(split(20), config, 0, CPU), GaussianNoise(0.1), split(6), config, scratch=scratch)
    return model.state_dict()


def diffusion(scratch: Scratch | None, config: DiffusionConfig) -> dict[str, torch.Tensor]:
    dataset = ImageDataset.create("own", ("a", "b", "c"), train=split(20), validation=split(6), test=split(6))
    trained = train(dataset, config, 0, CPU, scratch=scratch)
    return {**trained.ema_weights, "losses": torch.tensor(trained.losses)}


def interrupted(work: Any, config: Any, stops: list[int]) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as name, MonkeyPatch.context() as patch:
        patch.setenv("PAG_CHECKPOINT_MINUTES", "0")
        for states in stops:
            try:
                return work(dies_after(Scratch(Path(name), {}), states), config)
            except Killed:
                pass
        return work(Scratch(Path(name), {}), config)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


STOPS = st.lists(st.integers(1, 5), max_size=4)


@settings(max_examples=12, deadline=None)
@given(STOPS, st.sampled_from(["adam", "sgd"]), st.sampled_from([4, 7]), st.booleans())
def test_classifiers(stops: list[int], optimizer: str, batch_size: int, flip: bool) -> None:
    config = ClassifierConfig(epochs=2, batch_size=batch_size, optimizer=optimizer, lr=0.01, crop_padding=1, flip=flip)
    assert equal(interrupted(classifier, config, stops), classifier(None, config))


@settings(max_examples=6, deadline=None)
@given(STOPS, st.sampled_from([0.0, 0.3]))
def test_diffusion_models(stops: list[int], dropout: float) -> None:
    small = {"channels": 16, "head_dim": 16, "steps": 6, "batch_size": 4, "dropout": dropout}
    config = load_conf("digits", ROOT / "conf").diffusion.model_copy(update=small)
    assert equal(interrupted(diffusion, config, stops), diffusion(None, config))
