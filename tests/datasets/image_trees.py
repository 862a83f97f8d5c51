"""Images, trees of images and archives of them, generated; the real archives where they are at hand."""

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("PAG_SHARED", Path(__file__).parents[2] / "../shared"))


def real_archive(name: str) -> Path:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here; PAG_SHARED names the folder that has data/{name}")
    return path.resolve()


def write_image(path: Path, size: tuple[int, int] = (6, 6), mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)


def pack(folder: Path, archive: Path, order: Callable[[list[Path]], list[Path]] = sorted) -> Path:
    """`folder` with its own name as the only top folder, in an archive of the suffix's kind."""
    paths = order(sorted(folder.rglob("*")))
    names = [path.relative_to(folder.parent).as_posix() for path in paths]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path, name in zip(paths, names, strict=True):
                zipped.write(path, name)
    else:
        with tarfile.open(archive, f"w:{archive.suffix[1:].replace('tar', '')}") as tar:
            for path, name in zip(paths, names, strict=True):
                tar.add(path, name, recursive=False)
    return archive
