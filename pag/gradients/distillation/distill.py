"""Distillation: g(x, y) of every training image and class, from any source, into a gradient store."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import torch
from torch import Tensor

from pag.foundation.config.section import Computable
from pag.foundation.scratch import Scratch
from pag.gradients.distillation.kept_shards import shards_folder
from pag.gradients.distillation.store_writer import StoreWriter, required_bytes
from pag.images.dataset import Split
from pag.store.format.shards import Shape

# images float32 (B, C, H, W) in [0, 1] and their indices int64 (B,) in the split → float32 (B, K, C, H, W)
Gradients = Callable[[Tensor, Tensor], Tensor]

PREVIEW_CLASSES = 10  # columns that a figure has room for


@dataclass(frozen=True)
class Summary:
    """What a distillation gave."""

    images: int
    images_per_second: float
    cosine_mean: float  # of the stored directions with the float gradients
    cosine_min: float
    bytes: int


def distill(
    gradients: Gradients,
    split: Split,
    path: Path,
    *,
    num_classes: int,
    attributes: Mapping[str, Any],
    bits: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    announce: Callable[[str], None] = print,
    scratch: Scratch | None = None,
) -> Summary:
    """Write the store at `path`: the gradients of all images of `split`.

    attributes: what the gradients are of, for GradientStore.open's `expect`. progress: called with the number of images
    after each batch, and once with those that an earlier run has made or other processes are to make. announce: told
    beforehand what room it takes. Raises ValueError before any work when the disk or the memory has no room; a failure
    leaves no store behind. scratch: keeps finished shards, and the open one every so many minutes, and
    distillation goes on from there; the store is the same to the byte.

    Where several processes have joined, each makes its share of the shards, and the first one publishes the store.
    """
    channels, height, width = split.images.shape[1:]
    shape = (len(split), num_classes, channels, height, width)
    waiting = shards_folder(scratch, path)
    kept = sum(file.stat().st_size for file in waiting.rglob("*") if file.is_file()) if waiting else 0
    announce(check_room(path, shape, bits, batch_size, attributes.get("realization"), kept))
    start = time.perf_counter()
    with StoreWriter(path, shape, attributes, bits, scratch) as writer:
        number = sum(end - begin for begin, end in writer.spans)
        if number < len(split) and progress is not None:
            progress(len(split) - number)
        for begin, end in writer.spans:
            # The batches are those of an uninterrupted run, so that what a network makes of one has the same bits.
            for first in range(begin // batch_size * batch_size, end, batch_size):
                batch = split.unit(slice(first, first + batch_size)).to(device)
                made = gradients(batch, torch.arange(first, first + len(batch)))
                wanted = made[max(0, begin - first) : end - first]
                writer.append(wanted)
                if progress is not None:
                    progress(len(wanted))
    rate = number / (time.perf_counter() - start)
    return Summary(len(split), rate, writer.cosine_mean, writer.cosine_min, required_bytes(shape, bits))


def check_room(
    path: Path, shape: Shape, bits: int, batch_size: int, realization: str | None = None, kept: int = 0
) -> str:
    """One line on the disk and memory that a store of `realization` takes. kept: bytes of it that are there already.

    Raises ValueError when one of them has no room for it; the message says what takes less.
    """
    needed = required_bytes(shape, bits)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    size = f"{path}: {shape[0]} images × {shape[1]} classes in {bits} bits"
    if needed - kept > free:
        targets = 4 * int(np.prod(shape[1:]))  # float32, one of each class
        computed = f"add {realization} to heuristics.computed ({readable(targets)}), "
        smaller = computed if realization in get_args(Computable) else ""
        smaller += f"set distill.bits to 4 ({readable(required_bytes(shape, 4))}), " if bits == 8 else ""
        raise ValueError(
            f"{size} need {readable(needed)}, and {folder} has {readable(free)} free: {smaller}lower data.train_limit, "
            "or choose another realization"
        )
    # float32; one batch is made, of scores of its size, while another is written
    alive = min(batch_size, shape[0])
    in_memory = 3 * alive * int(np.prod(shape[1:])) * 4
    available = psutil.virtual_memory().available
    if in_memory > available:
        raise ValueError(
            f"{size}: batches of {alive} images need {readable(in_memory)} of memory, and {readable(available)} are "
            f"available: set distill.batch_size to at most {max(1, alive * available // in_memory)}, or free some"
        )
    return (
        f"{size} take {readable(needed)} of {readable(free)} on disk, "
        f"and {readable(in_memory)} of {readable(available)} of memory beside the model"
    )


def preview(
    gradients: Gradients, train: Split, num_classes: int, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """What a figure of the realisation shows: the first image of each of the first PREVIEW_CLASSES classes.

    images: float32 (n, C, H, W) in [0, 1]; gradients: float32 (n, n, C, H, W), by image and by target class.
    """
    shown = min(num_classes, PREVIEW_CLASSES)
    indices = np.array([np.flatnonzero(train.labels == label)[0] for label in range(shown)])
    images = train.unit(indices)
    # Image by image: with 200 classes the gradients of one are already 10 MB.
    rows = [
        gradients(images[row : row + 1].to(device), torch.from_numpy(indices[row : row + 1]))[0, :shown].cpu()
        for row in range(shown)
    ]
    return {"images": images.numpy(), "gradients": torch.stack(rows).numpy()}


def readable(number: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
