"""SBG: gradients of log p(y|x_t) from the scores of a class-conditional diffusion model.

By Bayes' rule ∇ log p(y|x_t) = ∇ log p(x_t|y) − ∇ log p(x_t). With score = −eps_pred/√(1−ᾱ_t) this is
(eps_pred(x_t, null) − eps_pred(x_t, y)) / √(1−ᾱ_t), which ascends towards class y.

The result for an image is the same to the bit whatever batch it comes in. A network's floats depend on the batch size
and, with several threads, on the position in the batch; so every pass has a fixed number of samples, and an image's
place in it follows from its index alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pag.diffusion.model.images import resize, to_signed
from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.trained import DiffusionModel
from pag.diffusion.model.unet import eps_half
from pag.foundation.config.section import Precision
from pag.foundation.seeding import generator

# Images that share passes, and the most (image, class) samples in one pass, by device. The bound keeps the memory
# independent of the number of classes. Changing either changes the last bits of every gradient.
GROUP = {"cpu": 16, "cuda": 64}
MAX_SAMPLES = {"cpu": 256, "cuda": 1024}


@dataclass(frozen=True)
class ScoreBased:
    """SBG of a trained model at one noise level, to be called as the other realisations are (see realizations.py)."""

    model: DiffusionModel
    t: int
    noise_draws: int
    seed: int

    def __call__(self, x0: Tensor, indices: Tensor) -> Tensor:
        return score_based_gradients(
            self.model.network,
            x0,
            indices,
            self.model.schedule,
            self.t,
            self.model.num_classes,
            self.noise_draws,
            self.seed,
            image_size=self.model.config.image_size,
            precision=self.model.config.precision,
        )


@torch.no_grad()
def score_based_gradients(
    model: nn.Module,
    x0: Tensor,
    indices: Tensor,
    schedule: NoiseSchedule,
    t: int,
    num_classes: int,
    noise_draws: int,
    seed: int,
    *,
    image_size: int | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """g(x, y) for every image and class: float32 (B, num_classes, C, H, W), on x0's device.

    model: eps_pred(x_t, t, y) with the null class num_classes, on x0's device; it is put into eval mode.
    x0: (B, C, H, W) in [0, 1]. indices: (B,) each image's number in its split, which names its noise.
    t: the one noise level. noise_draws: independent draws of x_t to average over; one draw serves all classes.
    image_size: side that the network works at, if it is not the images'; gradients come back at the images' size.
    The gradient is with respect to x_t in [−1, 1] scale, not passed through a clipped x0.
    Raises ValueError when t lies outside the schedule.
    """
    schedule.check_t(t)
    assert len(indices) == len(x0), (indices.shape, x0.shape)
    model.eval()
    group = GROUP.get(x0.device.type, GROUP["cpu"])
    signed = to_signed(x0, image_size)
    gradients = x0.new_empty(len(x0), num_classes, *x0.shape[1:])
    for rows in passes(indices, group):
        slots = indices[rows].cpu() % group
        batch = signed.new_zeros(group, *signed.shape[1:])  # slots that no image takes stay empty
        batch[slots] = signed[rows]
        eps_pred = torch.zeros(len(rows), num_classes + 1, *signed.shape[1:], device=x0.device)
        for draw in range(noise_draws):
            noise = torch.zeros(batch.shape)
            for slot, index in zip(slots.tolist(), indices[rows].tolist(), strict=True):
                noise[slot] = torch.randn(batch.shape[1:], generator=generator(seed, "noise", index, draw))
            x_t = schedule.add_noise(batch, t, noise.to(x0.device))
            eps_pred += _eps_of_all_classes(model, x_t, t, num_classes, slots, precision) / noise_draws
        score = schedule.score_from_eps(eps_pred, t)
        gradients[rows] = _resized(score[:, :num_classes] - score[:, num_classes:], x0.shape[-2:])
    return gradients


def passes(indices: Tensor, group: int) -> list[list[int]]:
    """Rows of a batch in sets where no two images share a slot, index modulo `group`.

    Consecutive indices fill every set, so that batches of a multiple of `group` waste nothing.
    """
    taken = [0] * group
    sets: list[list[int]] = []
    for row, index in enumerate(indices.tolist()):
        number = taken[index % group]
        taken[index % group] += 1
        if number == len(sets):
            sets.append([])
        sets[number].append(row)
    return sets


def _eps_of_all_classes(
    model: nn.Module, x_t: Tensor, t: int, num_classes: int, slots: Tensor, precision: Precision
) -> Tensor:
    """eps_pred (len(slots), num_classes + 1, C, H, W) of the used slots of x_t (group, C, H, W), null class last.

    The (slot, class) pairs are split into equal passes; the last one is filled up with copies of the last pair.
    """
    group, channels = x_t.shape[:2]
    pairs = group * (num_classes + 1)
    count = math.ceil(pairs / MAX_SAMPLES.get(x_t.device.type, MAX_SAMPLES["cpu"]))
    samples = math.ceil(pairs / count)
    used = torch.zeros(group, dtype=torch.bool)
    used[slots] = True

    eps_pred = torch.zeros(pairs, *x_t.shape[1:], device=x_t.device)
    for start in range(0, pairs, samples):
        pair = torch.arange(start, start + samples).clamp(max=pairs - 1)
        slot, label = pair // (num_classes + 1), pair % (num_classes + 1)
        if not used[slot].any():
            continue
        labels = label.to(x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = model(x_t[slot.to(x_t.device)], torch.full_like(labels, t), labels)
        kept = min(samples, pairs - start)
        eps_pred[start : start + kept] = eps_half(output[:kept], channels).float()
    return eps_pred.unflatten(0, (group, num_classes + 1))[slots]


def _resized(gradients: Tensor, size: torch.Size) -> Tensor:
    """(B, K, C, h, w) → (B, K, C, *size)."""
    if gradients.shape[-2:] == size:
        return gradients
    return resize(gradients.flatten(0, 1), (size[0], size[1])).unflatten(0, gradients.shape[:2])
