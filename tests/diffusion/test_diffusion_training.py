"""The diffusion training loop: what it draws, averages, learns and refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pag.diffusion import training
from pag.diffusion.model.schedule import timesteps_of
from pag.foundation.config.diffusion import DiffusionConfig
from pag.images.dataset import ImageDataset, Split

SIZES: dict[str, Any] = {"channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": [], "head_dim": 8}


def small(**changes: Any) -> DiffusionConfig:
    recipe = {"timesteps": 100, "steps": 3, "batch_size": 8, "lr": 1e-3, "learn_sigma": False}
    return DiffusionConfig.model_validate({**SIZES, **recipe, **changes})


def two_classes(images: np.ndarray, levels: int) -> ImageDataset:
    split = Split(images, np.arange(len(images)) % 2, levels)
    return ImageDataset.create("two", ("0", "1"), train=split, validation=split, test=split)


def two_flat_classes() -> ImageDataset:
    """Black and white images of side 8 with pixel values 0 and 16."""
    values = (16 * (np.arange(20) % 2)).astype(np.uint8)
    return two_classes(np.tile(values[:, None, None, None], (1, 1, 8, 8)), 16)


def run(config: DiffusionConfig, seed: int = 0, **changes: Any) -> training.TrainedDiffusion:
    return training.train(two_flat_classes(), config, seed, "cpu", **changes)


class Recorder(nn.Module):
    """A network stand-in with one weight that remembers its inputs."""

    def __init__(self, first_nan: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self.first_nan = first_nan

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        self.seen.append((x_t, t, class_labels))
        broken = self.first_nan is not None and len(self.seen) > self.first_nan
        return x_t * self.weight * (float("nan") if broken else 1)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_null_class_is_drawn_as_often_as_a_class(num_classes: int) -> None:
    drops = [
        training.draw_step(0, step, 50, num_classes, torch.arange(9), (128, 1, 1, 1)).drop_class for step in range(200)
    ]
    rate, draws = float(torch.cat(drops).float().mean()), 200 * 128
    assert rate == pytest.approx(1 / num_classes, abs=5 * (0.25 / draws) ** 0.5)


def test_a_step_draws_the_same_without_its_predecessors() -> None:
    shape = (16, 1, 4, 4)
    first, again = (training.draw_step(3, 7, 50, 10, torch.arange(100), shape) for _ in range(2))
    other = training.draw_step(3, 8, 50, 10, torch.arange(100), shape)
    for name in ("rows", "t", "drop_class", "noise"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.noise, other.noise)
    assert not torch.equal(first.rows, other.rows)


@pytest.mark.parametrize("noise_levels", ["single", "band", "all"])
def test_network_sees_trained_levels_and_right_classes(monkeypatch: pytest.MonkeyPatch, noise_levels: str) -> None:
    recorder = Recorder()
    monkeypatch.setattr(training, "build_unet", lambda *_: recorder)
    config = small(noise_levels=noise_levels, steps=40, schedule="linear", timesteps=1000)
    run(config)
    x_t, t, labels = (torch.cat(parts) for parts in zip(*recorder.seen, strict=True))

    trained = timesteps_of(config)
    assert torch.isin(t, trained).all()
    assert t.min() < trained[0] + len(trained) / 4 + 1
    assert t.max() > trained[-1] - len(trained) / 4 - 1
    assert set(labels.tolist()) == {0, 1, 2}
    little_noise = t < 400  # the mean of 64 pixels tells black from white
    brightness = x_t.mean(dim=(1, 2, 3))
    assert (brightness[(labels == 0) & little_noise] < 0).all()
    assert (brightness[(labels == 1) & little_noise] > 0).all()


def test_ema_starts_with_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training.ema_decay(0, 0.9999) == pytest.approx(0.1)
    assert training.ema_decay(90, 0.9999) == pytest.approx(0.91)
    assert training.ema_decay(10**6, 0.9999) == 0.9999

    recorder, weights = Recorder(), [1.0]
    monkeypatch.setattr(training, "build_unet", lambda *_: recorder)
    for steps in (1, 2):  # the first run's single step is the second run's first: same draws, same start
        nn.init.ones_(recorder.weight)
        trained = run(small(steps=steps, ema_decay=0.15))
        weights.append(recorder.weight.item())
    expected = 0.15 * (0.1 * weights[0] + 0.9 * weights[1]) + 0.85 * weights[2]
    assert trained.ema_weights["weight"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_training_lowers_the_loss(learn_sigma: bool) -> None:
    losses = run(small(steps=40, noise_levels="single", learn_sigma=learn_sigma, lr=1e-2)).losses
    assert len(losses) == 40
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.usefixtures("two_threads")
def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = run(small(dropout=0.3))
    assert torch.equal(torch.rand(1), expected)
    torch.rand(5)
    again, other = run(small(dropout=0.3)), run(small(dropout=0.3), seed=1)
    assert first.losses == again.losses
    assert all(torch.equal(tensor, again.ema_weights[name]) for name, tensor in first.ema_weights.items())
    assert first.losses != other.losses


def test_weights_fit_the_network_they_are_of() -> None:
    config = small(learn_sigma=True)
    model = training.build_unet(config, in_channels=1, image_size=8, num_classes=2)
    model.load_state_dict(run(config).ema_weights)


def test_progress_is_reported_in_order() -> None:
    calls: list[list[float]] = []
    trained = run(small(steps=5), on_step=lambda losses: calls.append(losses.copy()))
    assert calls == [trained.losses[: step + 1] for step in range(5)]


def test_nan_stops_the_run_and_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "build_unet", lambda *_: Recorder(first_nan=3))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3 of the diffusion model: lower diffusion\.lr"):
        run(small(steps=20))


def test_nan_in_the_very_last_step_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "build_unet", lambda *_: Recorder(first_nan=4))
    with pytest.raises(FloatingPointError, match="at step 4"):
        run(small(steps=5))


def test_other_working_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(training, "build_unet", lambda *_: recorder)
    oblong = two_classes(np.zeros((4, 3, 12, 10), np.uint8), 255)
    training.train(oblong, small(image_size=16), 0, "cpu")
    assert recorder.seen[0][0].shape == (8, 3, 16, 16)
    with pytest.raises(ValueError, match=r"images are 12×10, .* set diffusion\.image_size"):
        training.train(oblong, small(), 0, "cpu")
