"""What the distilling stages share: progress, the store's description, the arrays of its figure."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from pag.foundation.artifacts import save_arrays
from pag.foundation.config.diffusion import DistillConfig
from pag.foundation.processes import is_first
from pag.foundation.scratch import Scratch
from pag.gradients.distillation.distill import Gradients, distill, preview
from pag.images.dataset import ImageDataset, Split
from stages.shared import paths
from stages.shared.progress import progress


def write_store(
    gradients: Gradients,
    dataset: ImageDataset,
    split: Split,
    path: Path,
    config: DistillConfig,
    attributes: dict[str, Any],
    device: torch.device,
    scratch: Scratch | None = None,
) -> None:
    """Distil `gradients` for every image of `split` and every class into the store at `path`."""
    with progress(f"{attributes['realization']} on {dataset.name}", len(split), "images") as told:
        summary = distill(
            gradients,
            split,
            path,
            num_classes=dataset.num_classes,
            attributes={"dataset_hash": dataset.content_hash, **attributes},
            bits=config.bits,
            batch_size=config.batch_size,
            device=device,
            progress=told.advance,
            scratch=scratch,
        )
    click.echo(
        f"{path}: {summary.images_per_second:,.0f} images/s, {summary.bytes / 1e6:,.1f} MB, "
        f"cosine {summary.cosine_mean:.5f} (smallest {summary.cosine_min:.5f})"
    )


def write_preview(gradients: Gradients, dataset: ImageDataset, realization: str, device: torch.device) -> None:
    """The arrays behind the report's figure of a realisation."""
    if not is_first():
        return
    arrays = preview(gradients, dataset.train, dataset.num_classes, device)
    shown = len(arrays["images"])
    names = {"labels": np.arange(shown), "class_names": np.array(dataset.class_names[:shown])}
    save_arrays(paths.realization_preview(dataset.name, realization), arrays | names)
