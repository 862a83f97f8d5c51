"""Files are whole or absent."""

import json
from pathlib import Path

import pytest
import torch

from pag.foundation.artifacts import ArtifactError, load_weights, require, save_weights
from pag.foundation.atomic import atomic_directory, atomic_file


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "out") as folder:
        (folder / "half").write_text("written")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file.txt") as path:
        path.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_block_leaves_the_previous_version(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "file.txt") as path:
        path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file.txt") as path:
        path.write_text("new")
        raise RuntimeError
    assert (tmp_path / "file.txt").read_text() == "old"


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_directory(tmp_path / "out") as folder:
            (folder / content).write_text(content)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_weights_round_trip_with_their_description(tmp_path: Path) -> None:
    weights = {"w": torch.arange(6.0).view(2, 3).T}
    save_weights(tmp_path / "weights.safetensors", weights, {"arch": "cnn"})
    loaded, about = load_weights(tmp_path / "weights.safetensors")
    assert torch.equal(loaded["w"], weights["w"])
    assert about["arch"] == "cnn"


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"w": torch.zeros(4)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is not the file its description"):
        load_weights(path)


def test_missing_artifact_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"missing: run `dvc repro`"):
        require(tmp_path / "weights.safetensors")


def test_same_weights_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / f"{name}.safetensors", {"w": torch.ones(3), "b": torch.zeros(1)}, {"x": 1})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.json").read_text())
