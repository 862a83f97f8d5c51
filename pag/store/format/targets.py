"""g(x, y) = r_y − x with the same target r_y for every image x: what the realisations OI and CM have in common.

Their targets alone can stand in the place of a store (see ../computed.py):

    <folder>/zarr.json            group; what the gradients are of and all files with their SHA-256, as in a store
    <folder>/targets/zarr.json    array float32 (K, C, H, W) in [0, 1]: the targets r_y
    <folder>/targets/c/0/0/0/0    its only chunk
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec

from pag.foundation.artifacts import atomic_directory
from pag.store.format.record import describe, fingerprint, save_record

ARRAY, CHUNK = "targets/zarr.json", "targets/c/0/0/0/0"


@dataclass(frozen=True)
class FixedTargets:
    """Called as the other realisations are (see realizations.py), or for a few classes an image."""

    targets: Tensor  # r_y: (K, C, H, W) in [0, 1]

    def __call__(self, images: Tensor, indices: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """images (B, C, H, W) → gradients towards `classes` (B, k) as (B, k, C, H, W), or None for all K.

        `indices` are not looked at: a fixed target does not depend on which image it is.
        """
        targets = self.targets.to(images.device)
        return (targets if classes is None else targets[classes]) - images[:, None]


def save_targets(path: Path, source: FixedTargets, num_images: int, attributes: Mapping[str, Any], bits: int) -> None:
    """Write what it takes to compute the gradients of `num_images` images at `path`; a failure leaves nothing behind.

    attributes: what the gradients are of (JSON values). bits: of the directions that are read, 8 or 4.
    """
    targets = source.targets.numpy()
    with atomic_directory(path) as folder:
        zarr.create_array(
            folder / "targets",
            data=targets,
            chunks=targets.shape,
            filters=None,
            compressors=[Crc32cCodec()],
            fill_value=0,
            dimension_names=("class", "channel", "row", "column"),
            attributes={"meaning": "g(x, y) = target y − image x, pixels in [0, 1]"},
            zarr_format=3,
            config={"write_empty_chunks": True},  # targets of black pixels are written as well
        )
        files = {name: fingerprint(folder / name) for name in (ARRAY, CHUNK)}
        save_record(folder, describe(attributes, (num_images, *targets.shape), bits), files)
