"""A network of somebody else, from its folder: code, weights, and what is checked before it is attacked."""

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pag.evaluation.admission import admit
from pag.evaluation.workers import pickled
from pag.foundation.allocator import out_of_memory
from pag.foundation.artifacts import sha256
from pag.foundation.config.external import EXTERNAL, External
from pag.foundation.config.section import ConfigError
from pag.images.balance import balanced
from pag.images.dataset import ImageDataset

LOOKED_AT = 32  # test images on which a network is tried


def try_external(
    folder: Path, config: External, images: ImageDataset, name: str, device: torch.device, processes: int
) -> list[str]:
    """What is doubtful about a network, which is not attacked. processes: that would share the attacks.

    Raises ConfigError in one line for what `load_external` refuses, and for what the attacks would.
    """
    model, _ = load_external(folder, config, images, name, device)
    rows = balanced(images.test.labels, LOOKED_AT, 0, "tried")
    x, labels = images.test.unit(rows).to(device), torch.from_numpy(images.test.labels[rows]).to(device)
    try:
        if device.type == "cpu" and processes > 1:
            pickled(model)
        return admit(model, x, labels, LOOKED_AT).warnings
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None


def load_external(
    folder: Path, config: External, images: ImageDataset, name: str, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network in eval mode and without gradients for its weights, and its description, as `load_trained` gives.

    folder: goes to the front of sys.path, for this process and its workers, so that the code in it imports itself.
    The network maps images (B, C, H, W) float32 in [0, 1] to logits (B, num_classes): it is called on two test images.
    Raises ConfigError in one line for anything else. The code is run: it is as trusted as the rest of the repository.
    """
    config.require_files(folder)
    model = _build(folder, config)
    if config.weights is not None:
        weights = _read(folder / config.weights)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            problem = " ".join(str(error).split())
            raise ConfigError(f"{folder / config.weights} does not fit {config.function}: {problem[:300]}") from None
    model = model.to(device).requires_grad_(False).eval()
    _require_logits(model, folder, images, device)
    about = {"dataset": images.name, "arch": EXTERNAL, "run": name, "method": name, "dataset_hash": images.content_hash}
    return model, {**about, "training_seed": None, "sha256": _digest(folder)}


def _build(folder: Path, config: External) -> nn.Module:
    """What the function returns, without its weights. Raises ConfigError in one line where that is no network."""
    if (path := str(folder.resolve())) not in sys.path:
        sys.path.insert(0, path)
    module_name, function_name = config.function.split(":")
    where = f"{folder}: {config.function}"
    try:
        module = importlib.import_module(module_name)
        model = getattr(module, function_name)()
    except (Exception, SystemExit) as error:  # a script that reads its arguments ends the process
        if out_of_memory(error):
            raise
        raise ConfigError(f"{where} fails: {type(error).__name__}: {error}") from error
    if not Path(module.__file__ or "").resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{where} is {module.__file__}: expected a module in the folder, give it a name of its own")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} returns a {type(model).__name__}: expected a torch.nn.Module")
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict; a pickle of anything but tensors is not unpickled."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's own text advises to unpickle whatever it is
        what, safe = type(error).__name__, path.suffix == ".safetensors"
        expected = "a whole file, is it cut off or a pointer of git-lfs?" if safe else "a state dict, save it alone"
        raise ConfigError(f"{path} holds no weights ({what}): expected {expected}") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"a dict of {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise ConfigError(f"{path} is {found[:100]}: expected tensors by name, save model.state_dict() alone")
    return content


def _require_logits(model: nn.Module, folder: Path, images: ImageDataset, device: torch.device) -> None:
    shown = images.test.unit(slice(2)).to(device)
    try:
        with torch.no_grad():
            logits = model(shown)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ConfigError(f"{folder} fails on images {tuple(shown.shape)} of {images.name}: {error}") from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (expected := (len(shown), images.num_classes)):
        raise ConfigError(
            f"{folder} gives {found} for {len(shown)} images of {images.name}: expected logits {expected}"
        )


def _digest(folder: Path) -> str:
    """Of every file, code and weights; what Python compiles there is left out, as DVC leaves it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    listed = "".join(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()
