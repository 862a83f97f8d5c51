"""Training the class-conditional DDPM by the recipe of improved-diffusion."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pag.checkpoint import atomic_file
from pag.config.conf import DiffusionConfig
from pag.diffusion.images import to_signed
from pag.diffusion.losses import NoisyBatch, diffusion_loss
from pag.diffusion.schedule import NoiseSchedule, timesteps_of
from pag.diffusion.unet import build_unet
from pag.seeding import derive_seed, generator

SCRATCH_SECONDS = 30.0  # between two writings of the scratch file, which take a second or two


@dataclass(frozen=True)
class TrainedDiffusion:
    """EMA weights, to be loaded into `build_unet(…)`, and the training loss of every step."""

    ema_weights: dict[str, Tensor]
    losses: list[float]


@dataclass(frozen=True)
class Draw:
    """The random part of one training step, on the CPU."""

    rows: Tensor  # (B,) int64, which images
    t: Tensor  # (B,) int64, among the trained noise levels
    drop_class: Tensor  # (B,) bool, train this image without its class
    noise: Tensor  # (B, C, H, W)


def draw_step(
    seed: int, step: int, num_images: int, num_classes: int, trained_t: Tensor, shape: tuple[int, ...]
) -> Draw:
    """What step number `step` draws for a batch of `shape`: a function of (seed, step) only, so no step has to be
    replayed to get at a later one. A class is dropped with probability 1/num_classes: the null class is seen as
    often as each of the others (Ganz et al. 2023, appendix H)."""
    rng = generator(seed, "diffusion", step)
    rows = torch.randint(num_images, shape[:1], generator=rng)
    t = trained_t[torch.randint(len(trained_t), shape[:1], generator=rng)]
    drop_class = torch.rand(shape[:1], generator=rng) < 1 / num_classes
    return Draw(rows, t, drop_class, torch.randn(shape, generator=rng))


def ema_decay(step: int, decay: float) -> float:
    """Decay of the weights' moving average at a step counted from 0: a warm-up, then `decay`."""
    return min(decay, (1 + step) / (10 + step))


def train(
    images: np.ndarray,
    labels: np.ndarray,
    levels: int,
    num_classes: int,
    config: DiffusionConfig,
    seed: int,
    device: torch.device | str,
    on_step: Callable[[int, float], None] | None = None,
    scratch: Path | None = None,
) -> TrainedDiffusion:
    """Train on `images` uint8 (N, C, H, W) with values 0..levels and `labels` (N,), from scratch.

    `on_step(step, loss)` is called once a step, in order. Raises FloatingPointError naming the first step whose loss
    is not finite, ValueError when the architecture does not fit the images.

    scratch: a file that the state of the training goes to now and then. Where it exists already, training goes on from
    there, and since a step's draws depend on nothing but its number, the result is the uninterrupted one's. It must be
    of the same arguments; the caller names it so, and removes it.
    """
    assert images.dtype == np.uint8 and images.ndim == 4, (images.dtype, images.shape)
    device = torch.device(device)
    data = torch.tensor(np.asarray(images), device=device)  # a byte per pixel: any of our data sets fits
    classes = torch.tensor(np.asarray(labels), device=device)
    channels, height, width = images.shape[1:]
    if config.image_size is None and height != width:
        raise ValueError(f"images are {height}×{width}, the U-Net needs square ones: set diffusion.image_size")
    side = config.image_size or height
    schedule, trained_t = NoiseSchedule.from_config(config), timesteps_of(config)
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format  # slower on CPU at small sizes
    batch_shape = (config.batch_size, channels, side, side)

    # Initial weights and dropout inside the network come from the global RNG: seed it here, give it back afterwards.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "diffusion", "weights"))
        model = build_unet(config, channels, height, num_classes).to(device, memory_format=layout)  # type: ignore[call-overload]
        network = torch.compile(model, dynamic=False) if config.compile else model
        weights = list(model.parameters())
        values = [weight.detach() for weight in weights]  # the same memory, outside of autograd
        ema = [value.clone() for value in values]
        optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=0.0, fused=True)
        history = _LossHistory(on_step, config.lr)
        if scratch is not None and scratch.exists():
            history.losses = _resume(scratch, values, ema, optimizer, device)
        saved = time.monotonic()

        for step in range(len(history.losses), config.steps):
            # Draw the batch, its noise levels and its noise.
            draw = draw_step(seed, step, len(data), num_classes, trained_t, batch_shape)
            rows = draw.rows.to(device, non_blocking=True)
            x0 = to_signed(data[rows] / levels, side)
            noise = draw.noise.to(device, non_blocking=True)
            class_labels = classes[rows].masked_fill(draw.drop_class.to(device, non_blocking=True), num_classes)
            x_t = schedule.add_noise(x0, draw.t, noise).contiguous(memory_format=layout)

            # Update the weights.
            torch.manual_seed(derive_seed(seed, "diffusion", "dropout", step))
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                output = network(x_t, draw.t.to(device, non_blocking=True), class_labels)
            loss = diffusion_loss(output.float(), NoisyBatch(x0, draw.t, noise, x_t), schedule, levels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

            # Update the moving average.
            torch._foreach_lerp_(ema, values, 1 - ema_decay(step, config.ema_decay))
            history.add(loss.detach())
            if scratch is not None and time.monotonic() - saved > SCRATCH_SECONDS:
                _save(scratch, values, ema, optimizer, history.finish())
                saved = time.monotonic()

    names = [name for name, _ in model.named_parameters()]
    return TrainedDiffusion(dict(zip(names, ema, strict=True)), history.finish())


def _save(
    path: Path, values: list[Tensor], ema: list[Tensor], optimizer: torch.optim.Optimizer, losses: list[float]
) -> None:
    """The state of the training after step number len(losses)."""
    with atomic_file(path) as partial:
        torch.save({"weights": values, "ema": ema, "optimizer": optimizer.state_dict(), "losses": losses}, partial)


def _resume(
    path: Path, values: list[Tensor], ema: list[Tensor], optimizer: torch.optim.Optimizer, device: torch.device
) -> list[float]:
    """Put the saved state in place; the losses of the steps it has seen."""
    state = torch.load(path, map_location=device, weights_only=True)
    torch._foreach_copy_(values, state["weights"])
    torch._foreach_copy_(ema, state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    return state["losses"]


class _LossHistory:
    """Losses as numbers, read one step late so that an accelerator need not wait for the host."""

    def __init__(self, on_step: Callable[[int, float], None] | None, lr: float) -> None:
        self.losses: list[float] = []
        self.pending: Tensor | None = None
        self.on_step = on_step
        self.lr = lr

    def add(self, loss: Tensor) -> None:
        self._read_pending()
        self.pending = loss

    def finish(self) -> list[float]:
        self._read_pending()
        return self.losses

    def _read_pending(self) -> None:
        if self.pending is None:
            return
        step, loss = len(self.losses), self.pending.item()
        self.pending = None
        if not math.isfinite(loss):
            raise FloatingPointError(f"diffusion loss is {loss} at step {step}: lower diffusion.lr (now {self.lr})")
        self.losses.append(loss)
        if self.on_step is not None:
            self.on_step(step, loss)
