"""scikit-learn's handwritten digits: 1,797 real grey images of 8 × 8 pixels, shipped with the package."""

import numpy as np
from sklearn.datasets import load_digits

from pag.datasets.source import Source
from pag.foundation.config.data import DataConfig
from pag.images.dataset import Split


def read(config: DataConfig, seed: int) -> Source:
    """All images as (1797, 1, 8, 8); their pixels are the whole numbers 0..16, kept as they are."""
    images, labels = load_digits(return_X_y=True)
    everything = Split(images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64))
    return Source(everything, None, tuple(str(digit) for digit in range(10)), levels=16)
