"""Shuffled, augmented minibatches of images and, for alignment runs, of class gradients that move with them.

Every draw of an epoch is made up front, one per sample, by a generator that belongs to that epoch: an epoch is the same
whether or not the ones before it ran in this process.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pag.foundation.config.training import ClassifierConfig
from pag.foundation.processes import Part, part_of
from pag.foundation.seeding import derive_seed, generator
from pag.images.dataset import Split, to_unit
from pag.training import augment
from pag.training.batch import Batch, ClassGradients

PREFETCHED = 2  # batches that are read ahead while the device works


@dataclass
class Batches:
    """The minibatches of a training split.

    split: uint8 images (N, C, H, W), possibly memory-mapped, and labels (N,).
    gradients: class gradients of the same images in the same order; None for runs without alignment.
    classes_per_image: k, the number of random target classes an image has in an epoch; "all" for every class.
    """

    split: Split
    config: ClassifierConfig
    seed: int
    device: torch.device
    gradients: ClassGradients | None = None
    classes_per_image: int | str = 1
    seconds_waited: float = field(default=0.0, init=False)  # time the training loop stood still for data

    def __post_init__(self) -> None:
        if self.gradients is not None:
            num_classes, side = self.gradients.shape[1], self.gradients.shape[-1]
            require_possible(self.config, self.classes_per_image, num_classes, side)
        elif self.split.images.ndim == 4:
            require_possible(self.config, None, 0, self.split.images.shape[-1])

    def __len__(self) -> int:
        return max(1, len(self.split.labels) // self.config.batch_size)

    @property
    def part(self) -> Part | None:
        """Which rows of every batch are this process's; None: all."""
        return part_of(min(self.config.batch_size, len(self.split.labels)))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `first` on; a thread reads ahead.

        The last, smaller one is dropped: BatchNorm needs many."""
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=PREFETCHED)
        stopped = threading.Event()
        reader = threading.Thread(target=self._read_ahead, args=(epoch, first, ready, stopped), daemon=True)
        reader.start()
        try:
            while True:
                start = time.perf_counter()
                item = ready.get()
                self.seconds_waited += time.perf_counter() - start
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            while reader.is_alive():  # the reader may wait for room in the queue
                _drain(ready)
                reader.join(0.01)

    def _read_ahead(self, epoch: int, first: int, ready: queue.Queue, stopped: threading.Event) -> None:
        try:
            for batch in self._read(epoch, first):
                if stopped.is_set():
                    return
                ready.put(batch)
            ready.put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            ready.put(error)

    def _read(self, epoch: int, first: int) -> Iterator[Batch]:
        count = len(self.split.labels)
        order = torch.randperm(count, generator=generator(self.seed, "order", epoch)).numpy()
        plan = augment.draw(count, self.config.crop_padding, self.config.flip, self.seed, epoch)
        targets = self._target_classes(epoch)
        part = self.part
        for step in range(first, len(self)):
            # sorted, since neighbouring rows of a memory map share pages; a batch is a set
            rows = np.sort(order[step * self.config.batch_size : (step + 1) * self.config.batch_size])
            rows = rows if part is None else rows[part.rows]
            raw = torch.from_numpy(self.split.images[rows])
            images = self._to_device(augment.apply(plan, torch.from_numpy(rows), raw))
            yield Batch(
                images=to_unit(images, self.split.levels),
                labels=self._to_device(torch.from_numpy(self.split.labels[rows])),
                seed=derive_seed(self.seed, "objective", epoch, step),
                target_classes=None if targets is None else self._to_device(targets[rows]),
                class_gradients=None if targets is None else self._directions(rows, targets[rows], plan),
                part=part,
            )

    def _target_classes(self, epoch: int) -> Tensor | None:
        """(N, k) distinct random classes of every image for this epoch."""
        if self.gradients is None:
            return None
        count, num_classes = self.gradients.shape[:2]
        if self.classes_per_image == "all":
            return torch.arange(num_classes).expand(count, num_classes)
        owner = generator(self.seed, "target classes", epoch)
        k = int(self.classes_per_image)
        if k == 1:
            return torch.randint(num_classes, (count, 1), generator=owner)
        return torch.rand(count, num_classes, generator=owner).topk(k, dim=1).indices

    def _directions(self, rows: np.ndarray, target_classes: Tensor, plan: augment.AugmentationPlan) -> Tensor:
        assert self.gradients is not None
        directions = torch.from_numpy(self.gradients.read(rows, target_classes.numpy()))  # int8 (B, k, C, H, W)
        return self._to_device(augment.apply(plan, torch.from_numpy(rows), directions))

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _drain(waiting: queue.Queue) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        pass


def require_possible(config: ClassifierConfig, k: int | str | None, num_classes: int, side: int) -> None:
    """Raises ValueError in one line for what means nothing on images of `side` pixels or with so many classes; k: of
    the run's target classes, None without alignment."""
    if isinstance(k, int) and k > num_classes:
        raise ValueError(
            f"alignment.classes_per_image = {k}, but there are {num_classes} classes: expected at most as many, or all"
        )
    if config.crop_padding >= side:
        raise ValueError(
            f"classifier.crop_padding = {config.crop_padding}, but there are {side} pixels a side: expected fewer"
        )
