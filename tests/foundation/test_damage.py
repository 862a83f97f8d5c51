"""Damaged files are one line that names them; what cannot be written leaves the older version and one line."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pag.foundation import atomic
from pag.foundation.artifacts import (
    ArtifactError,
    load_array,
    load_arrays,
    load_json,
    load_weights,
    save_array,
    save_arrays,
    save_json,
    save_weights,
)
from pag.foundation.atomic import atomic_directory, atomic_file, write_bytes
from pag.foundation.scratch import Scratch

CONTENT = {"arch": "cnn", "lambda": 0.5, "rows": [1, 2]}
ARRAYS = {"images": np.arange(48, dtype=np.float32).reshape(3, 16), "class_names": np.array(["cat", "dog"])}


def weights(path: Path) -> None:
    save_weights(path / "weights.safetensors", {"w": torch.arange(6.0)}, CONTENT)


def array(path: Path) -> None:
    np.save(path / "labels.npy", np.arange(6))


# file → (how it is made, how it is read, what reading must give)
FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "sealed.json": (
        lambda folder: save_json(folder / "sealed.json", CONTENT, sealed=True),
        lambda folder: load_json(folder / "sealed.json", sealed=True),
    ),
    "weights.json": (weights, lambda folder: load_weights(folder / "weights.safetensors")[1]),
    "weights.safetensors": (weights, lambda folder: load_weights(folder / "weights.safetensors")[0]["w"].tolist()),
    "arrays.npz": (
        lambda folder: save_arrays(folder / "arrays.npz", ARRAYS),
        lambda folder: {name: array.tolist() for name, array in load_arrays(folder / "arrays.npz").items()},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_and_any_missing_end_is_seen_or_means_nothing(name: str, tmp_path: Path) -> None:
    """Never another content, never another exception."""
    make, read = FILES[name]
    make(tmp_path)
    path, expected = tmp_path / name, read(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for damaged in variants(whole):
        path.write_bytes(damaged)
        try:
            assert read(tmp_path) == expected
        except ArtifactError as error:
            refused += 1
            assert name in str(error) and "dvc repro" in str(error) and "\n" not in str(error)
    assert refused > 0.5 * len(list(variants(whole)))


def variants(whole: bytes) -> Iterator[bytes]:
    places = range(0, len(whole), max(1, len(whole) // 150))
    for place in places:
        yield whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
        yield whole[:place]
    yield whole[:-1]


def test_any_damage_to_an_array_s_header_is_one_line(tmp_path: Path) -> None:
    array(tmp_path)
    path = tmp_path / "labels.npy"
    whole = path.read_bytes()
    for place in range(128):
        for value in (0, 10, 40, 255, whole[place] ^ 1):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                load_array(path)
            except ArtifactError as error:
                assert "labels.npy is damaged" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("key", [*CONTENT, "sha256", "seal"])
def test_a_missing_key_of_a_description_is_seen(key: str, tmp_path: Path) -> None:
    weights(tmp_path)
    about = load_json(tmp_path / "weights.json")
    del about[key]
    save_json(tmp_path / "weights.json", about)
    with pytest.raises(ArtifactError, match=r"weights\.json is damaged or was edited"):
        load_weights(tmp_path / "weights.safetensors")


def test_a_whole_description_of_another_kind_is_refused(tmp_path: Path) -> None:
    weights(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"weights\.json has no diffusion, it describes something else: make it again"
    ):
        load_weights(tmp_path / "weights.safetensors", keys=("arch", "diffusion"))


def test_a_seal_says_nothing_of_how_json_is_laid_out(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"pair": (1, 2), "by radius": {0.5: "x"}}, sealed=True)
    assert load_json(tmp_path / "a.json", sealed=True) == {"pair": [1, 2], "by radius": {"0.5": "x"}}


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.zeros((0, 4)), np.arange(6.0).reshape(2, 3).T])
def test_an_array_s_file_is_numpy_s(array: np.ndarray, tmp_path: Path) -> None:
    save_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = {"w": torch.zeros(100_000)}
WRITERS: dict[str, Callable[[Path], None]] = {
    "weights.safetensors": lambda path: save_weights(path, BIG, {}),
    "arrays.npz": lambda path: save_arrays(path, {"w": BIG["w"].numpy()}),
    "images.npy": lambda path: save_array(path, BIG["w"].numpy()),
    "notes.json": lambda path: save_json(path, ["x" * 100_000]),
    "state": lambda path: Scratch(path.parent, {}).save("state", BIG),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_size_limit_is_one_line_and_the_older_version_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_bytes(path, b"older")
    with file_size_limit(50_000), pytest.raises(OSError, match=f"{name} cannot be written: File too large") as caught:
        WRITERS[name](path)
    assert "\n" not in str(caught.value) and ".partial" not in str(caught.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]


def test_a_limit_within_a_folder_names_the_file_in_its_place(tmp_path: Path) -> None:
    expected = f"{tmp_path}/out/weights.safetensors cannot be written: File too large"
    with file_size_limit(50_000), pytest.raises(OSError) as caught, atomic_directory(tmp_path / "out") as folder:
        save_weights(folder / "weights.safetensors", BIG, {})
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_system_refuses_is_one_line(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_json(tmp_path / "a.json", 1)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    line = rf"a\.json cannot be written: {os.strerror(number)}; what was there before is untouched"
    with pytest.raises(OSError, match=line):
        save_json(tmp_path / "a.json", 2)
    assert load_json(tmp_path / "a.json") == 1


def test_another_error_of_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a") as partial:
        partial.write_bytes((tmp_path / "missing").read_bytes())


KILLED = """
import os, sys
from pathlib import Path
from pag.foundation.atomic import atomic_directory, atomic_file
with atomic_directory(Path(sys.argv[1]) / "folder") as folder, atomic_file(Path(sys.argv[1]) / "a[1].json") as file:
    (folder / "half").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_removed_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2 and all(name.startswith(".partial-") for name in left)
    with atomic_file(tmp_path / "a[1].json") as first, atomic_file(tmp_path / "a[1].json") as second:
        assert first != second and first.exists() and second.exists()
        first.write_text("first")
        second.write_text("second")
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "whole").write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].json", "folder"}
    assert (tmp_path / "a[1].json").read_text() == "first"  # the last to be published


def test_arrays_belong_to_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file of another run is refused; the same place in another copy of the repository is not another one."""
    monkeypatch.chdir(tmp_path)
    for run in ("nn", "sbg"):
        (tmp_path / run).mkdir()
        save_arrays(Path(run, "outcomes.npz"), ARRAYS)
    assert set(load_arrays(tmp_path / "sbg/outcomes.npz")) == set(ARRAYS)
    (tmp_path / "sbg/outcomes.npz").write_bytes((tmp_path / "nn/outcomes.npz").read_bytes())
    with pytest.raises(ArtifactError, match=r"sbg/outcomes.npz is of other work, it was written as nn/outcomes.npz"):
        load_arrays(Path("sbg/outcomes.npz"))
    np.savez(tmp_path / "nn/outcomes.npz", **ARRAYS)
    with pytest.raises(ArtifactError, match="it was written as another tool's file"):
        load_arrays(Path("nn/outcomes.npz"))
