"""What a folder of gradients is of, and that it is whole: the attributes of its Zarr group, written last.

    content   what the gradients are of: dataset hash, realization, seed … and their shape
    files     every other file of the folder with its size and SHA-256
    sha256    of both, which protects the hashes of all files

Neither a store nor computed gradients can be opened without it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pag.foundation.artifacts import ArtifactError, save_json, sha256
from pag.store.format.shards import Shape

GROUP = "zarr.json"
DAMAGED = "is damaged or of another store: remove the store and run `dvc repro`"


@dataclass(frozen=True)
class Record:
    """A folder whose files are all there and have the recorded sizes; their bytes are compared by `verify`."""

    path: Path
    content: dict[str, Any]
    files: dict[str, tuple[int, str]]  # name → size, SHA-256

    @property
    def shape(self) -> Shape:
        """(N, K, C, H, W)"""
        return (self.content["num_images"], self.content["num_classes"], *self.content["image_shape"])

    @property
    def bits(self) -> int:
        return self.content["bits"]

    def verify(self, name: str) -> None:
        """Raises ArtifactError when the file `name` is not the one that was recorded."""
        if sha256(self.path / name) != self.files[name][1]:
            raise ArtifactError(f"{self.path / name} {DAMAGED}")


def describe(attributes: Mapping[str, Any], shape: Shape, bits: int) -> dict[str, Any]:
    """The content of a record: `attributes` (JSON values) and the shape (N, K, C, H, W)."""
    images, classes, *image_shape = shape
    return {**attributes, "num_images": images, "num_classes": classes, "image_shape": image_shape, "bits": bits}


def fingerprint(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    return path.stat().st_size, sha256(path)


def save_record(folder: Path, content: Mapping[str, Any], files: Mapping[str, tuple[int, str]]) -> None:
    """Make `folder` a Zarr group. To be called last: without its record nothing in a folder can be opened."""
    record = {"content": content, "files": files}
    attributes = {**record, "sha256": _digest(record)}
    save_json(folder / GROUP, {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def load_record(path: Path, expect: Mapping[str, Any] | None = None, present: bool = True) -> Record:
    """The record of the folder `path`, every file's presence and size checked against it, if they must be `present`.

    expect: attributes that it must have. Raises ArtifactError with one line when the folder is missing, incomplete,
    damaged, or of something else than expected.
    """
    record = _read(path)
    for name, (size, _) in record.files.items() if present else ():
        file = path / name
        if not file.exists():
            raise ArtifactError(f"{path} is incomplete, it has no {name}: run `dvc repro`, which makes it anew")
        if file.stat().st_size != size:
            raise ArtifactError(
                f"{file} has {file.stat().st_size} bytes, expected {size}: run `dvc repro` to remake it"
            )
    for key, expected in (expect or {}).items():
        if record.content.get(key) != _as_json(expected):
            raise ArtifactError(
                f"{path} has {key} = {_short(record.content.get(key))}, but this run needs {_short(expected)}: "
                "run `dvc repro`, which makes it anew"
            )
    return record


def _read(path: Path) -> Record:
    if not path.exists():
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it in an earlier stage")
    if not (path / GROUP).exists():
        raise ArtifactError(
            f"{path} is no gradient store or is incomplete, it has no {GROUP}: expected a folder such as "
            "data/<dataset>/gradients/sbg.zarr; `dvc repro` makes it anew"
        )
    try:
        attributes = json.loads((path / GROUP).read_bytes())["attributes"]
        intact = attributes.pop("sha256") == _digest(attributes)
        record = Record(path, attributes["content"], attributes["files"])
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise ArtifactError(f"{path / GROUP} {DAMAGED}")
    return record


def _digest(attributes: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    """`value` as it comes back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 24 else repr(value)
