"""Single measurements: seconds of one step of each kind of work, by the functions that the stages use."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyautoattack import AutoAttack
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cifar10.settings import Scale
from pag.classifiers import build
from pag.config.conf import ClassifierConfig, Conf, DiffusionConfig, DistillConfig
from pag.datasets.base import ImageDataset, Split, to_unit
from pag.diffusion.schedule import gradient_t
from pag.diffusion.training import train
from pag.diffusion.unet import build_unet
from pag.gradients.distill import Gradients, distill
from pag.gradients.realizations import class_mean
from pag.objectives.alignment import Alignment
from pag.objectives.batch import Objective
from pag.training.batches import Batches
from pag.training.loop import train_classifier
from stages.distill_sbg import score_based
from stages.objectives import robust_objective, vanilla

# Of the standard version, per image: steps of APGD-CE and of APGD-T towards 9 classes, steps of FAB-T, queries.
APGD_STEPS, FAB_STEPS, SQUARE_QUERIES = 100 + 9 * 100, 9 * 100, 5000
REALIZATIONS = ("sbg", "cm")
EPOCHS = 3  # of a training measurement; the last one is timed


class RandomGradients:
    """Class gradients of no meaning, which cost the training loop what a store does."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.pool = np.random.default_rng(0).integers(-127, 128, (64, *shape[1:]), np.int8)

    def read(self, rows: np.ndarray, target_classes: np.ndarray) -> np.ndarray:
        return self.pool[rows[:, None] % len(self.pool), target_classes]


def diffusion_seconds(
    images: ImageDataset, config: DiffusionConfig, scale: Scale, device: torch.device
) -> tuple[float, float]:
    """Seconds until the first step is done, and seconds of a later step."""
    count = max(6, 2 * scale.calibration_steps)
    start, times = time.perf_counter(), []
    config = config.model_copy(update={"steps": count})
    train(
        images,
        config,
        0,
        device,
        on_step=lambda step, loss: times.append(time.perf_counter()),
    )
    middle, last = count // 2, count - 2  # the very last loss is not read a step late, as the others are
    return times[0] - start, (times[last] - times[middle]) / (last - middle)


def distillation_seconds(
    images: ImageDataset, diffusion: DiffusionConfig, config: DistillConfig, scale: Scale, device: torch.device
) -> tuple[float, float]:
    """Seconds of one image, written to a store: SBG of an untrained network, and CM."""
    channels, side, _ = images.image_shape
    weights = build_unet(diffusion, channels, side, images.num_classes).state_dict()
    sbg = score_based(weights, diffusion, images, gradient_t(diffusion, config.t), config, 0, device)
    cm = class_mean(images.train, images.levels, images.num_classes)
    return tuple(_stored(gradients, images, config, scale, device) for gradients in (sbg, cm))  # type: ignore[return-value]


def _stored(
    gradients: Gradients, images: ImageDataset, config: DistillConfig, scale: Scale, device: torch.device
) -> float:
    def write(count: int, folder: str) -> float:
        noise = np.random.default_rng(0).standard_normal(images.image_shape, np.float32)  # an untrained U-Net gives 0
        jitter = torch.from_numpy(noise).to(device)
        return distill(
            lambda x, indices: gradients(x, indices) + jitter,
            images.train.images[:count],
            Path(folder) / str(count),
            levels=images.levels,
            num_classes=images.num_classes,
            attributes={},
            bits=config.bits,
            batch_size=config.batch_size,
            device=device,
        ).images_per_second

    with tempfile.TemporaryDirectory() as folder:
        write(scale.calibration_images // 2, folder)
        return 1 / write(4 * scale.calibration_images, folder)


def training_seconds(
    images: ImageDataset, method: str, conf: Conf, config: ClassifierConfig, steps: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of the first epoch of `steps`, where compilers work, over a later one; and seconds of a later step."""
    arch, name = method.split("/")
    split = images.train.select(np.arange(steps * config.batch_size) % len(images.train))
    objective, gradients = _objective(name, arch, images, conf)
    random = RandomGradients((len(split), *gradients)) if gradients else None
    batches = Batches(split, images.levels, config, 0, device, random)
    times = [time.perf_counter()]
    train_classifier(
        build(arch, images.num_classes, images.image_shape, 0),
        batches,
        objective,
        Split(split.images[:0], split.labels[:0]),
        config.model_copy(update={"epochs": EPOCHS, "lr": 1e-6}),  # random directions must not end in NaN
        on_epoch=lambda row: times.append(time.perf_counter()),
    )
    epochs = np.diff(times)
    return float(epochs[0] - epochs[-1]), float(epochs[-1]) / len(batches)


def _objective(name: str, arch: str, images: ImageDataset, conf: Conf) -> tuple[Objective, tuple[int, ...] | None]:
    """The objective, and for an alignment run the shape (K, C, H, W) of an image's gradients."""
    if name == "vanilla":
        return vanilla, None
    if name in REALIZATIONS:
        weight = conf.methods.aligned(name, None).for_arch(arch)  # type: ignore[arg-type]
        return Alignment(weight, images.num_classes, conf.alignment.gradient_of), (
            images.num_classes,
            *images.image_shape,
        )
    return robust_objective(name, conf.methods), None  # type: ignore[arg-type]


def attack_seconds(images: ImageDataset, arch: str, count: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the standard AutoAttack on images that withstand it all: however few they are, and for each of them.

    From a few steps of each attack on `count` images and on a tenth of them: a GPU waits for its host at both sizes.
    """
    few = max(1, count // 10)
    seconds, least = (_attack_seconds(images, arch, size, device) for size in (count, few))
    each = max(0.0, seconds - least) / (count - few)
    return max(0.0, least - few * each), each


def _attack_seconds(images: ImageDataset, arch: str, count: int, device: torch.device) -> float:
    model = build(arch, images.num_classes, images.image_shape, 0)
    model.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]
    x = to_unit(images.test.images[:count], images.levels).to(device)
    labels = model(x).argmax(1)  # by its own labels an untrained network makes no mistake
    attacks = AutoAttack(model, norm="L2", eps=1e-4, seed=0, device=device, version="standard")
    attacks.apgd.n_iter, attacks.fab.n_iter, attacks.square.n_queries = 10, 5, 50
    attacks.fab.target_class = 2

    def seconds(call: Callable[[], Any]) -> float:
        call()
        start = time.perf_counter()
        call()
        _synchronize(device)
        return time.perf_counter() - start

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        apgd = seconds(lambda: attacks.apgd.perturb(x, labels)) / attacks.apgd.n_iter
        fab = seconds(lambda: attacks.fab.attack_single_run(x, labels, is_targeted=True)) / attacks.fab.n_iter
        square = seconds(lambda: attacks.square.perturb(x, labels)) / attacks.square.n_queries
    return APGD_STEPS * apgd + FAB_STEPS * fab + SQUARE_QUERIES * square


def attention_backends(conf: Conf, device: torch.device) -> list[str]:
    """Which implementations of scaled dot-product attention take the U-Net's shapes and precision here."""
    heads = max(1, conf.diffusion.channels * conf.diffusion.multipliers[-1] // conf.diffusion.head_dim)
    dtype = torch.bfloat16 if conf.diffusion.precision == "bf16" else torch.float32
    query = torch.randn(2, heads, 64, conf.diffusion.head_dim, device=device, dtype=dtype, requires_grad=True)
    working = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            with sdpa_kernel(backend):
                torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
            working.append(backend.name.lower())
        except RuntimeError:
            continue
    return working


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
