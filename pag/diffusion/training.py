"""Training the class-conditional DDPM by the recipe of improved-diffusion."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pag.diffusion.losses import NoisyBatch, diffusion_loss
from pag.diffusion.model.images import to_signed
from pag.diffusion.model.schedule import NoiseSchedule, timesteps_of
from pag.diffusion.model.unet import build_unet
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.finite import MAX_LOSS, Watch
from pag.foundation.global_batch import see_whole_batch
from pag.foundation.interrupts import held
from pag.foundation.processes import Part, add_up, from_first, part_of
from pag.foundation.scratch import Scratch
from pag.foundation.seeding import derive_seed, generator, own_random_state
from pag.images.dataset import ImageDataset


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

    def of(self, part: Part | None) -> "Draw":
        """The rows that are one process's."""
        if part is None:
            return self
        rows = part.rows
        return Draw(self.rows[rows], self.t[rows], self.drop_class[rows], self.noise[rows])


def draw_step(
    seed: int, step: int, num_images: int, num_classes: int, trained_t: Tensor, shape: tuple[int, ...]
) -> Draw:
    """What step number `step` draws for a batch of `shape`: a function of (seed, step) only, so no step has to be
    replayed to get at a later one. A class is dropped with probability 1/C (Ganz et al. 2023, appendix G.2): the
    null class is seen a little more often than each of the others, whose share is (1 − 1/C)/C."""
    rng = generator(seed, "diffusion", step)
    rows = torch.randint(num_images, shape[:1], generator=rng)
    t = trained_t[torch.randint(len(trained_t), shape[:1], generator=rng)]
    drop_class = torch.rand(shape[:1], generator=rng) < 1 / num_classes
    return Draw(rows, t, drop_class, torch.randn(shape, generator=rng))


def ema_decay(step: int, decay: float) -> float:
    """Decay of the weights' moving average at a step counted from 0: a warm-up, then `decay`."""
    return min(decay, (1 + step) / (10 + step))


class Trainer:
    """The network, its moving average, the optimizer and the images, and how one step changes them.

    Initial weights and dropout inside the network come from the global RNG, which is seeded here: callers keep it in
    `own_random_state`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        config: DiffusionConfig,
        seed: int,
        device: torch.device,
        channels_last: bool | None = None,
    ) -> None:
        """channels_last: the memory layout of weights and images; None means on a GPU only, since it is slower on a
        CPU at small sizes. The other arguments are those of `train`."""
        self.levels, self.num_classes = dataset.levels, dataset.num_classes
        self.config, self.seed, self.device = config, seed, device
        self.images = torch.tensor(dataset.train.images, device=device)  # a byte per pixel: any of our data sets fits
        self.labels = torch.tensor(dataset.train.labels, device=device)
        channels, height, width = dataset.image_shape
        if config.image_size is None and height != width:
            raise ValueError(f"images are {height}×{width}, the U-Net needs square ones: set diffusion.image_size")
        self.side = config.image_size or height
        self.batch_shape = (config.batch_size, channels, self.side, self.side)
        self.part = part_of(config.batch_size)
        self.schedule, self.trained_t = NoiseSchedule.from_config(config), timesteps_of(config)
        channels_last = device.type == "cuda" if channels_last is None else channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

        torch.manual_seed(derive_seed(seed, "diffusion", "weights"))
        model = build_unet(config, channels, height, self.num_classes)
        self.model = model.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        see_whole_batch(self.model, self.part)
        self.network = torch.compile(self.model, dynamic=False) if config.compile else self.model
        weights = list(self.model.parameters())
        self.values = [weight.detach() for weight in weights]  # the same memory, outside of autograd
        self.ema = [value.clone() for value in self.values]
        self.optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=0.0, fused=True)
        self.watch = Watch(weights, device, self.advice)

    def step(self, number: int) -> Tensor:
        """Take step `number`, counted from 0; returns its loss, which is still being computed on a GPU.

        Where several processes have joined, each computes its part of the batch, and all take the same step.
        """
        # Draw the batch, its noise levels and its noise.
        draw = draw_step(self.seed, number, len(self.images), self.num_classes, self.trained_t, self.batch_shape)
        draw = draw.of(self.part)
        rows = draw.rows.to(self.device, non_blocking=True)
        x0 = to_signed(self.images[rows] / self.levels, self.side)
        noise = draw.noise.to(self.device, non_blocking=True)
        drop_class = draw.drop_class.to(self.device, non_blocking=True)
        class_labels = self.labels[rows].masked_fill(drop_class, self.num_classes)
        x_t = self.schedule.add_noise(x0, draw.t, noise).contiguous(memory_format=self.layout)

        # Update the weights.
        torch.manual_seed(derive_seed(self.seed, "diffusion", "dropout", number))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output = self.network(x_t, draw.t.to(self.device, non_blocking=True), class_labels)
        loss = diffusion_loss(output.float(), NoisyBatch(x0, draw.t, noise, x_t), self.schedule, self.levels)
        loss = loss if self.part is None else self.part.weight * loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        add_up([loss, *(p.grad for p in self.model.parameters() if p.grad is not None)])
        self.watch.look(number, loss)
        self.optimizer.step()

        # Update the moving average.
        torch._foreach_lerp_(self.ema, self.values, 1 - ema_decay(number, self.config.ema_decay))
        return loss

    def advice(self, step: int, problem: str) -> str:
        return f"{problem} at step {step} of the diffusion model: lower diffusion.lr (now {self.config.lr})"

    def ema_weights(self) -> dict[str, Tensor]:
        """The moving average by parameter name, as `build_unet(…).load_state_dict` takes it."""
        return dict(zip((name for name, _ in self.model.named_parameters()), self.ema, strict=True))

    def state(self) -> dict[str, Any]:
        """What the training goes on from."""
        return {"weights": self.values, "ema": self.ema, "optimizer": self.optimizer.state_dict()}

    def resume(self, state: dict[str, Any]) -> None:
        """Put a saved state in place."""
        torch._foreach_copy_(self.values, state["weights"])
        torch._foreach_copy_(self.ema, state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(
    dataset: ImageDataset,
    config: DiffusionConfig,
    seed: int,
    device: torch.device | str,
    on_step: Callable[[list[float]], None] | None = None,
    scratch: Scratch | None = None,
) -> TrainedDiffusion:
    """Train on the training images of `dataset` and their classes, from scratch.

    `on_step(losses)` is called after every step with the losses of all steps so far. Raises FloatingPointError naming
    the first step whose loss or gradients are not finite or have run away, or weights that have, ValueError when the
    architecture does not fit the images.

    scratch: keeps the state of the training now and then, and training goes on from what it holds: since a step's
    draws depend on nothing but its number, the result is the uninterrupted one's. Raises Interrupted, when told to
    stop, with the state after the step kept.
    """
    device = torch.device(device)
    with own_random_state(device), held() if scratch else nullcontext():
        trainer = Trainer(dataset, config, seed, device)
        history = _LossHistory(on_step, trainer.advice)
        if scratch is not None and (kept := from_first(lambda: scratch.load("training", device))) is not None:
            trainer.resume(kept["trainer"])
            history.losses = kept["losses"]
        for step in range(len(history.losses), config.steps):
            history.add(trainer.step(step))
            if scratch is not None and scratch.due():
                trainer.watch.check(step)
                scratch.save("training", {"trainer": trainer.state(), "losses": history.finish()})
        trainer.watch.check(config.steps - 1)
    return TrainedDiffusion(trainer.ema_weights(), history.finish())


class _LossHistory:
    """Losses as numbers, read one step late so that an accelerator need not wait for the host."""

    def __init__(self, on_step: Callable[[list[float]], None] | None, advice: Callable[[int, str], str]) -> None:
        self.losses: list[float] = []
        self.pending: Tensor | None = None
        self.on_step = on_step
        self.advice = advice

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
        if not loss <= MAX_LOSS:
            raise FloatingPointError(self.advice(step, f"the loss is {loss}"))
        self.losses.append(loss)
        if self.on_step is not None:
            self.on_step(self.losses)
