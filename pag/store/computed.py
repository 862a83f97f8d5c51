"""OI and CM without a store: g(x, y) = r_y − x is computed when it is read, as the integers that a store would hold.

A store grows with images × classes, the targets with the classes alone: 9.8 MB instead of 241 GB (121 at 4 bits) for
Tiny ImageNet. In exchange every batch is quantised anew. A batch of 64 images took one core of an AMD EPYC:

    CIFAR, k = 1             8 bits  0.7 ms     4 bits    4 ms    (read from a store in memory: 0.05 ms)
    Tiny ImageNet, k = 10    8 bits   22 ms     4 bits  120 ms

A thread does it while the device works on the batch before. So it is for stores that are too large to keep or to write,
not for speed: where a store fits in memory, reading it is faster.
"""

from pathlib import Path

import numpy as np
import torch
import zarr
from numpy.typing import ArrayLike

from pag.images.dataset import ImageDataset
from pag.images.fixed_targets import FixedTargets
from pag.store.format.quantization import BYTES_AT_ONCE, quantize
from pag.store.format.record import Record, load_record
from pag.store.format.shards import Layout, Shape
from pag.store.format.targets import ARRAY
from pag.store.reader import GradientStore, as_rows


def open_distilled(path: Path, images: ImageDataset, realization: str) -> "GradientStore | ComputedGradients":
    """g(x, y) of the training images, from what the distilling stage left at `path`: a store, or targets alone.

    Raises ArtifactError when that is incomplete, damaged, of other images or of another realization.
    """
    expect = {"dataset_hash": images.content_hash, "realization": realization, "split": "train"}
    record = load_record(path, expect)
    return ComputedGradients(record, images) if ARRAY in record.files else GradientStore(record)


class ComputedGradients:
    """Reads like a GradientStore of the same images, to the byte; made by `open_distilled`."""

    def __init__(self, record: Record, images: ImageDataset) -> None:
        for name in record.files:
            record.verify(name)
        array = zarr.open_array(record.path / "targets", mode="r")
        self._source = FixedTargets(torch.from_numpy(np.asarray(array[:])))
        self._train = images.train
        self.attributes = record.content
        self.shape: Shape = record.shape
        assert self.shape == (len(self._train), *self._source.targets.shape), (self.shape, len(self._train))
        self._layout = Layout(record.shape, record.bits)

    def read(self, indices: ArrayLike, target_classes: ArrayLike) -> np.ndarray:
        """Directions of images `indices` (B,) towards `target_classes` (B, k): a new int8 array (B, k, C, H, W).

        Raises IndexError outside 0..N-1 or 0..K-1.
        """
        indices, classes = as_rows(indices, target_classes)
        directions = np.empty((*classes.shape, *self.shape[2:]), np.int8)
        if directions.size == 0:
            return directions
        self._layout.check_range(indices, classes)
        pixels = int(np.prod(self.shape[2:]))
        # A few images at a time: with all 200 classes of Tiny ImageNet the floats of one are already 10 MB.
        step = max(1, BYTES_AT_ONCE // (4 * pixels * classes.shape[1]))
        for start in range(0, len(indices), step):
            part = slice(start, start + step)
            images = self._train.unit(indices[part])
            gradients = self._source(images, classes=torch.from_numpy(classes[part]))
            quantized, _ = quantize(gradients.reshape(-1, pixels).numpy(), self._layout.bits)
            directions[part] = quantized.reshape(gradients.shape)
        return directions
