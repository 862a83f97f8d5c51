"""Finished parts of an evaluation in a scratch folder, each found again by all that it was computed from."""

import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pag.evaluation.admission import SAME, look
from pag.evaluation.wrapped import parts_of
from pag.foundation.scratch import Scratch

SAME_GRADIENT = 0.1  # of their norm: rounding may switch a unit of a ReLU network on or off
_ROOMS = Path(__file__).parents[1]
_ATTACKING = ("evaluation", "threat", "foundation")  # and its seeds


class Cache:
    """Outcomes of attacks on one model, which is not random.

    Weights do not tell two functions apart, or modules that differ in code or in a plain attribute; nor do logits tell
    a defence that hides its gradient from the same one with a gradient. So a part is kept with both.
    """

    def __init__(self, folder: Path, model: nn.Module, package: str) -> None:
        """package: the distribution that attacks; an outcome of another version of it is not taken up."""
        versions = f"{package} {importlib.metadata.version(package)} torch {torch.__version__}"
        states = [part.state_dict() for part in parts_of(model)]
        self._model, self._key = model, _digest(versions, _code(), repr(model), *states)
        self._scratch = Scratch(folder, {"model": self._key})

    def outcome(self, about: dict[str, Any], images: Tensor, attack: Callable[[], Any]) -> Any:
        """What `attack` returns, from the folder if it is there. about: tensors and values that describe the part.

        Raises ValueError if the folder has it of a model with other logits or input gradients on `images`.
        """
        name = f"{_digest(self._key, about)}.pt"
        logits, gradients = look(self._model, images)
        kept = self._scratch.load(name, images.device)
        if kept is None:
            kept = {"logits": logits, "gradients": gradients, "outcome": attack()}
            self._scratch.save(name, kept)
        elif not (
            kept["logits"].shape == logits.shape
            and (kept["logits"] - logits).abs().max() <= SAME * logits.abs().max()
            and (kept["gradients"] - gradients).nan_to_num().norm() <= SAME_GRADIENT * gradients.nan_to_num().norm()
        ):
            raise ValueError(
                f"{self._scratch.folder} holds attacks on another model with the same weights: give each model a cache "
                "of its own"
            )
        return kept["outcome"]


def _code() -> str:
    """A hash of the code that an outcome comes from: another version may attack in another way."""
    files = [path for room in _ATTACKING for path in sorted(_ROOMS.joinpath(room).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


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
        content = part.detach().cpu().contiguous().flatten()  # as bytes, since NumPy has no bfloat16
        hasher.update(content.view(torch.uint8).numpy().tobytes())
    else:
        hasher.update(f"{part!r};".encode())
