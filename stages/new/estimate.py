"""About how long an experiment takes on this machine: a few steps of its own networks, timed now, times their number.

Of nothing but vanilla, AT-L2, CM, NN and SBG, with ratios of docs/benchmarks.md; on a CPU as if one thread did it all.
"""

import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from pag.classifiers import build
from pag.diffusion.training import Trainer
from pag.foundation.config.conf import Conf
from pag.images.dataset import ImageDataset
from pag.training.batches import Batches

TIMED = 4  # steps
PLAIN_TO_ALIGNED = 1.06  # in plain steps, for each aligned class (docs/benchmarks.md, RN-18)
PLAIN_TO_ADVERSARIAL = 5.6  # a step of AT with seven steps of PGD (the same)
PASSES_PER_IMAGE = 8000  # of AutoAttack, forward, for each image and norm: its larger radii break what is hard to break
STARTING = 12.0  # seconds for each stage, DVC's part among them


def minutes(images: ImageDataset, conf: Conf, arch: str, device: torch.device) -> dict[str, float]:
    """part of the experiment → minutes, of vanilla, AT-L2, CM, NN and SBG on these images."""
    config, train, classes = conf.diffusion, len(images.train), images.num_classes
    trainer = Trainer(images, config, 0, device)
    diffusion_step = _seconds(trainer.step, device)
    scores = diffusion_step / config.batch_size / 3 * (classes + 1)  # an image; a step is three forward passes

    model = build(arch, classes, images.image_shape, 0).to(device)
    x, labels = images.train.unit(slice(conf.classifier.batch_size)), torch.from_numpy(images.train.labels)
    x, labels = x.to(device), labels[: len(x)].to(device)
    plain_step = _seconds(lambda number: cross_entropy(model(x), labels).backward(), device)
    with torch.no_grad():
        forward = _seconds(lambda number: model(x), device) / len(x)
    k = conf.alignment.classes_per_image
    aligned = 1 + PLAIN_TO_ALIGNED * (classes if k == "all" else k)
    steps = conf.classifier.epochs * len(Batches(images.train, conf.classifier, 0, device))
    attacked = conf.evaluation.images or len(images.test)
    norms = conf.evaluation.threat_models
    seconds = {
        "diffusion": config.steps * diffusion_step + STARTING,
        "gradients": (train + conf.distill.heldout_images) * scores * conf.distill.noise_draws + 3 * STARTING,
        "classifiers": steps * plain_step * (1 + PLAIN_TO_ADVERSARIAL + 3 * aligned) + 5 * STARTING,
        "AutoAttack": 5 * (attacked * len(norms) * PASSES_PER_IMAGE * forward + STARTING),
    }
    return {part: each / 60 for part, each in seconds.items()}


def _seconds(step: Callable[[int], object], device: torch.device) -> float:
    """Of a step, the shortest of a few; on a CPU of one thread's own work, whatever else the machine does."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return min(_timed(step, number, clock, device) for number in range(TIMED))
    finally:
        torch.set_num_threads(threads)


def _timed(step: Callable[[int], object], number: int, clock: Callable[[], float], device: torch.device) -> float:
    start = clock()
    step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start
