"""Points on a line in the plane: two classes whose modes alternate along it (the paper's appendix G.1)."""

import numpy as np
import torch

from pag.foundation.config.section import ConfigError
from pag.foundation.config.toy import ToyConfig
from pag.foundation.seeding import generator
from pag.images.dataset import ImageDataset, Split


def read_toy(config: ToyConfig, seed: int) -> ImageDataset:
    """Points (x1, 2·x1), float32 (N, 2), with x1 ~ N(centre, 1) for the modes of class 0 and class 1.

    Training: `samples_per_mode` points of every mode. Test: `test_samples` points, classes and modes in turn, so
    that both are balanced. The validation part is empty: nothing is selected on this data set.
    """
    if not all(config.centres):
        raise ConfigError(f"centres: both classes need at least one mode, got {config.centres}")
    modes = [(label, centre) for label, centres in enumerate(config.centres) for centre in centres]
    train = _draw(modes * config.samples_per_mode, seed, "train")
    in_turn = [config.centres[i % 2][i // 2 % len(config.centres[i % 2])] for i in range(config.test_samples)]
    test = _draw([(i % 2, centre) for i, centre in enumerate(in_turn)], seed, "test")
    nothing = train.select(np.arange(0))
    return ImageDataset.create("toy", ("class 0", "class 1"), train=train, validation=nothing, test=test)


def _draw(modes: list[tuple[int, float]], seed: int, part: str) -> Split:
    """One point for every (label, centre) of `modes`."""
    labels, centres = zip(*modes, strict=True)
    noise = torch.randn(len(modes), generator=generator(seed, "toy", part))
    x1 = torch.tensor(centres) + noise
    return Split(torch.stack([x1, 2 * x1], dim=1).numpy(), np.array(labels, dtype=np.int64), levels=1)
