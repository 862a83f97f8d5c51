"""Files that are whole or absent: atomic writes, content hashes, model weights with their description."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file


class ArtifactError(ValueError):
    """An artifact of an earlier stage is missing, damaged, or of another run; the message is one line for the user."""


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block succeeds; a failure leaves nothing behind."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to that becomes `path` when the block succeeds; the suffix is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_json(path: Path, content: Any) -> None:
    """Write JSON for people and git: indented, keys in the given order, newline at the end."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one .npz; the same arrays give the same bytes."""
    with atomic_file(path) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]


def load_json(path: Path) -> Any:
    return json.loads(require(path).read_text())


def require(path: Path) -> Path:
    """`path`, or an error that says which stage's output is missing."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it in an earlier stage")
    return path


def sha256(path: Path) -> str:
    with open(require(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(path: Path, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write `weights` as safetensors at `path` and what they are, with their hash, beside it as JSON."""
    with atomic_file(path) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)
    save_json(path.with_suffix(".json"), {**about, "sha256": sha256(path)})


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights at `path` and their description. Raises ArtifactError when they are missing or changed."""
    about = load_json(path.with_suffix(".json"))
    if sha256(path) != about["sha256"]:
        raise ArtifactError(f"{path} is not the file its description {path.with_suffix('.json').name} was written for")
    return load_file(path), about
