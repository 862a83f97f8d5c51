"""Finished parts of an evaluation in a scratch folder, each found again by all that it was computed from."""

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pag.foundation.artifacts import atomic_file


class Cache:
    """Outcomes of attacks on one model; `about` is a dict of tensors and values that describes the part."""

    def __init__(self, folder: Path, model: nn.Module, package: str) -> None:
        """package: the distribution that attacks; an outcome of another version of it is not taken up."""
        self.folder = folder
        versions = f"{package} {importlib.metadata.version(package)} torch {torch.__version__}"
        self._key = _digest(versions, repr(model), model.state_dict())

    def __contains__(self, about: dict[str, Any]) -> bool:
        return self._file(about).exists()

    def load(self, about: dict[str, Any], device: torch.device) -> Any:
        return torch.load(self._file(about), map_location=device, weights_only=True)

    def save(self, about: dict[str, Any], outcome: Any) -> None:
        with atomic_file(self._file(about)) as partial:
            torch.save(outcome, partial)

    def _file(self, about: dict[str, Any]) -> Path:
        return self.folder / f"{_digest(self._key, about)}.pt"


def _digest(*parts: object) -> str:
    """A hash of nested dicts of tensors and values."""
    hasher = hashlib.sha256()
    for part in parts:
        _update(hasher, part)
    return hasher.hexdigest()


def _update(hasher: "hashlib._Hash", part: object) -> None:
    if isinstance(part, dict):
        for name, value in part.items():
            hasher.update(f"{name}=".encode())
            _update(hasher, value)
    elif isinstance(part, Tensor):
        hasher.update(f"{part.dtype}{tuple(part.shape)}".encode())
        hasher.update(part.detach().cpu().contiguous().numpy().tobytes())
    else:
        hasher.update(f"{part!r};".encode())
