"""JSON, arrays and weights, and one door to read them: what was written, or one line that names the file.

JSON can be sealed: a key with the hash of all others, so that a description that was damaged, cut or edited is refused.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from pag.foundation.atomic import atomic_file, write_bytes

if TYPE_CHECKING:  # PyTorch takes seconds to load, and most artifacts do without
    import torch

SEAL = "seal"  # of JSON: the SHA-256 of all other keys
PLACE = "written as"  # of .npz: the path, which says of which run the arrays are
REMAKE = "make it again with `dvc repro`"


class ArtifactError(ValueError):
    """An artifact of an earlier stage is missing, damaged, or of another run; the message is one line for the user."""


def save_json(path: Path, content: Any, sealed: bool = False) -> None:
    """Write JSON for people and git: indented, keys in the given order, newline at the end.

    sealed: of a dict, with a hash that `load_json(…, sealed=True)` asks for.
    """
    content = {**content, SEAL: _seal(content)} if sealed else content
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def load_json(path: Path, sealed: bool = False, keys: Collection[str] = ()) -> Any:
    """The content of a JSON file; a sealed one comes without its seal.

    keys: what it must have; a whole file of another kind lacks them.
    Raises ArtifactError when it is missing, no JSON, of another kind, or, if `sealed`, not as it was written.
    """
    try:
        content = json.loads(require(path).read_bytes())
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path} is damaged, it is no JSON: {REMAKE}") from None
    if sealed and (not isinstance(content, dict) or content.pop(SEAL, None) != _seal(content)):
        raise ArtifactError(f"{path} is damaged or was edited, its content is not what its seal says: {REMAKE}")
    if lacking := [key for key in keys if key not in content]:
        raise ArtifactError(f"{path} has no {lacking[0]}, it describes something else: {REMAKE}")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    # as it reads back: tuples as lists, keys as text
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one .npz; the same arrays give the same bytes in the same place, which they record."""
    content = io.BytesIO()
    np.savez(content, **arrays, **{PLACE: np.array(path.as_posix())})  # type: ignore[arg-type]
    write_bytes(path, content.getbuffer())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; raises ArtifactError when it is missing or damaged, or was written for another place.

    Each member is read to its end before numpy sees it: only then does zipfile compare its checksum.
    """
    with _readable(path), zipfile.ZipFile(require(path)) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        arrays = {name: np.load(io.BytesIO(member), allow_pickle=False) for name, member in members.items()}
    place = str(arrays.pop(PLACE, "another tool's file"))
    if not path.as_posix().endswith(place):  # stages write relative to the repository
        raise ArtifactError(f"{path} is of other work, it was written as {place}: {REMAKE}")
    return arrays


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file, as np.save does: that has an error of its own, without a number, for a full disk."""
    with atomic_file(path) as partial, open(partial, "wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), array, allow_pickle=False)


def load_array(path: Path) -> np.ndarray:
    """An .npy file, memory-mapped read-only; raises ArtifactError when it is missing or its form is damaged.

    It has no checksum: whoever wrote it compares the content with a hash of its own.
    """
    with _readable(path):
        return np.load(require(path), mmap_mode="r", allow_pickle=False)


def save_weights(path: Path, weights: "dict[str, torch.Tensor]", about: dict[str, Any]) -> str:
    """Write `weights` as safetensors at `path`, and beside it, sealed, what they are and their hash as JSON.

    Returns the hash, which tells whatever is measured of these weights from that of others.
    """
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = safetensors.torch.save(tensors)
    write_bytes(path, content)
    digest = hashlib.sha256(content).hexdigest()
    save_json(path.with_suffix(".json"), {**about, "sha256": digest}, sealed=True)
    return digest


def load_weights(path: Path, keys: Collection[str] = ()) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """The weights at `path` and their description, which must have `keys`.

    Raises ArtifactError when they are missing, changed, or of another kind.
    """
    import safetensors.torch

    about = load_json(path.with_suffix(".json"), sealed=True, keys=keys)
    if sha256(path) != about.get("sha256"):
        raise ArtifactError(
            f"{path} is not the file its description {path.with_suffix('.json').name} was written for: {REMAKE}"
        )
    with _readable(path):
        return safetensors.torch.load_file(path), about


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a library raises over the bytes of a damaged file, as one line: numpy parses headers with Python's own
    parser, so that is SyntaxError or TokenError as well as ValueError, BadZipFile or an allocation of 10¹⁸ bytes."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}): {REMAKE}") from None


def require(path: Path) -> Path:
    """`path`, or an error that says which stage's output is missing."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it in an earlier stage")
    return path


def folder_of(folder: str | Path, name: str, what: str) -> Path:
    """The file `name` of a folder that a caller gave, or an error that says how such a folder looks and what is there.

    what: a kind of artifact and where the pipeline keeps it.
    """
    path = Path(folder) / name
    if not path.exists():
        found = sorted(entry.name for entry in Path(folder).iterdir()) if Path(folder).is_dir() else None
        there = "there is no such folder"
        if found is not None:
            there = f"it holds {', '.join(found[:5]) or 'nothing'}{', …' * (len(found) > 5)}"
        raise ArtifactError(f"{folder}: expected the folder of {what}, with {name}; {there}")
    return path


def sha256(path: Path) -> str:
    with open(require(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
