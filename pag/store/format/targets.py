"""Targets that stand in the place of a store, where gradients are computed while training (see ../computed.py).

<folder>/zarr.json            group; what the gradients are of and all files with their SHA-256, as in a store
<folder>/targets/zarr.json    array float32 (K, C, H, W) in [0, 1]: the targets r_y
<folder>/targets/c/0/0/0/0    its only chunk
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec

from pag.foundation.atomic import atomic_directory
from pag.images.fixed_targets import FixedTargets
from pag.store.format.record import describe, fingerprint, save_record

ARRAY, CHUNK = "targets/zarr.json", "targets/c/0/0/0/0"


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
