"""Finished parts of an evaluation in a scratch folder, each found again by all that it was computed from."""

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pag.foundation.scratch import Scratch

SAME = 1e-3  # of the largest logit: another number of threads or images at once differs by far less


class Cache:
    """Outcomes of attacks on one model; `about` is a dict of tensors and values that describes the part."""

    def __init__(self, folder: Path, model: nn.Module, package: str) -> None:
        """package: the distribution that attacks; an outcome of another version of it is not taken up."""
        versions = f"{package} {importlib.metadata.version(package)} torch {torch.__version__}"
        self._key = _digest(versions, repr(model), model.state_dict())
        self._scratch = Scratch(folder, {"model": self._key})

    def require_same(self, images: Tensor, logits: Tensor) -> None:
        """Raise ValueError if the folder is of a model that has other logits on these images.

        Weights do not tell two functions apart, or modules that differ in code or in a plain attribute.
        """
        about = {"logits on": images}
        known = self.load(about, logits.device)
        if known is None:
            self.save(about, logits)
        elif known.shape != logits.shape or (known - logits).abs().max() > SAME * known.abs().max():
            raise ValueError(
                f"{self._scratch.folder} holds attacks on another model with the same weights, or the model is random: "
                "give each model a cache of its own"
            )

    def load(self, about: dict[str, Any], device: torch.device) -> Any:
        """The outcome of a part; None where there is none, or a damaged one."""
        return self._scratch.load(self._name(about), device)

    def save(self, about: dict[str, Any], outcome: Any) -> None:
        self._scratch.save(self._name(about), outcome)

    def _name(self, about: dict[str, Any]) -> str:
        return f"{_digest(self._key, about)}.pt"


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
