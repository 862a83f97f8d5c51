"""Gradients computed while training: the same integers as a store's, and refused where a store would be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from pag.foundation.artifacts import ArtifactError
from pag.gradients.distillation.distill import distill
from pag.gradients.realizations import class_mean, one_image
from pag.images.dataset import ImageDataset, Split
from pag.images.fixed_targets import FixedTargets
from pag.store import computed
from pag.store.computed import ComputedGradients, open_distilled
from pag.store.format.targets import save_targets
from pag.store.reader import GradientStore

GREY, COLOUR, ODD, LARGE = (1, 8, 8), (3, 16, 16), (1, 9, 9), (3, 64, 64)
K = 4
SOURCES = {
    "oi": lambda images: one_image(images.train, K, seed=3),
    "cm": lambda images: class_mean(images.train, K),
}
BITS = pytest.mark.parametrize("bits", [8, 4])


def make_images(shape: tuple[int, ...], count: int = 41, seed: int = 0, levels: int = 255) -> ImageDataset:
    """Random pixels, and a black, a white and a one-pixel image among them."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, levels + 1, (count, *shape), dtype=np.uint8)
    pixels[5], pixels[6], pixels[7] = 0, levels, 0
    pixels[7, 0, 0, 0] = 1
    split = Split(pixels, np.arange(count, dtype=np.int64) % K, levels)
    return ImageDataset.create("random", tuple("abcd"), train=split, validation=split, test=split)


def attributes(images: ImageDataset, name: str) -> dict[str, object]:
    return {"dataset_hash": images.content_hash, "realization": name, "split": "train", "seed": 3}


def write_store(path: Path, images: ImageDataset, name: str, bits: int = 8) -> Path:
    distill(
        SOURCES[name](images),
        images.train,
        path,
        num_classes=K,
        attributes=attributes(images, name),
        bits=bits,
        batch_size=7,
        announce=lambda line: None,
    )
    return path


def write_targets(path: Path, images: ImageDataset, name: str = "cm", bits: int = 8) -> Path:
    save_targets(path, SOURCES[name](images), len(images.train), attributes(images, name), bits)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shape", [GREY, COLOUR, ODD, LARGE], ids=["grey", "colour", "odd", "large"])
@pytest.mark.parametrize("name", SOURCES)
@BITS
def test_every_image_and_class_is_as_in_the_store(tmp_path: Path, shape, name: str, bits: int) -> None:
    images = make_images(shape, levels=16 if shape == GREY else 255)
    store = open_distilled(write_store(tmp_path / "store", images, name, bits), images, name)
    ours = open_distilled(write_targets(tmp_path / "targets", images, name, bits), images, name)
    assert isinstance(store, GradientStore) and isinstance(ours, ComputedGradients)
    assert ours.shape == store.shape == (41, K, *shape)
    expected = store.read_all_classes(np.arange(41))
    everything = ours.read(np.arange(41), np.tile(np.arange(K), (41, 1)))
    assert everything.dtype == np.int8 and everything.flags.writeable
    np.testing.assert_array_equal(everything, expected)

    rng = np.random.default_rng(1)
    for batch in (1, 2, 13, 64):
        indices = rng.integers(0, 41, batch)
        for k in (1, 3, K):
            classes = rng.permuted(np.tile(np.arange(K), (batch, 1)), axis=1)[:, :k]
            np.testing.assert_array_equal(ours.read(indices, classes), expected[indices[:, None], classes])


@BITS
def test_the_images_of_a_batch_computed_in_parts(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images(COLOUR)
    gradients = open_distilled(write_targets(tmp_path / "targets", images, bits=bits), images, "cm")
    classes = np.tile(np.arange(K), (41, 1))
    expected = gradients.read(np.arange(41), classes)
    for at_once in (1, 7 * 4 * K * 768):  # one image, seven images
        monkeypatch.setattr(computed, "BYTES_AT_ONCE", at_once)
        np.testing.assert_array_equal(gradients.read(torch.arange(41), torch.from_numpy(classes)), expected)


def test_a_few_classes_of_fixed_targets_are_columns_of_all() -> None:
    source, images = FixedTargets(torch.rand(K, *COLOUR)), torch.rand(5, *COLOUR)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0], [3, 2], [0, 0]])
    assert torch.equal(source(images, classes=classes), source(images)[torch.arange(5)[:, None], classes])


def test_it_says_the_same_as_the_store_and_takes_next_to_nothing(tmp_path: Path) -> None:
    images = make_images(COLOUR)
    store, ours = write_store(tmp_path / "store", images, "cm"), write_targets(tmp_path / "targets", images)
    of_store, of_ours = (open_distilled(path, images, "cm").attributes for path in (store, ours))
    assert of_ours.items() <= of_store.items()
    assert set(of_store) - set(of_ours) == {"cosine_mean", "cosine_min", "zero_directions"}  # nothing was compared
    targets = 4 * K * int(np.prod(COLOUR))
    assert targets < sum(map(len, files_of(ours).values())) < targets + 4000


def test_zarr_reads_the_targets(tmp_path: Path) -> None:
    images = make_images(COLOUR)
    group = zarr.open_group(write_targets(tmp_path / "targets", images), mode="r", zarr_format=3)
    np.testing.assert_array_equal(group["targets"][:], SOURCES["cm"](images).targets.numpy())
    assert group.attrs["content"]["dataset_hash"] == images.content_hash


def test_the_same_targets_give_the_same_bytes(tmp_path: Path) -> None:
    images = make_images(GREY)
    first, second = (files_of(write_targets(tmp_path / name, images)) for name in ("first", "second"))
    assert first == second


def test_black_targets_are_targets(tmp_path: Path) -> None:
    images, path = make_images(GREY), tmp_path / "targets"
    save_targets(path, FixedTargets(torch.zeros(K, *GREY)), 41, attributes(images, "cm"), 8)
    read = open_distilled(path, images, "cm").read([5, 6], [[0], [0]])
    assert not read[0].any() and (read[1] == -127).all()


def test_no_images_and_images_that_do_not_exist(tmp_path: Path) -> None:
    images = make_images(GREY)
    gradients = open_distilled(write_targets(tmp_path / "targets", images), images, "cm")
    assert gradients.read([], np.empty((0, 2), int)).shape == (0, 2, *GREY)
    wrong = [([-1], [[0]], "image -1"), ([41], [[0]], "image 41"), ([0], [[-1]], "class -1"), ([0], [[4]], "class 4")]
    for indices, classes, message in wrong:
        with pytest.raises(IndexError, match=f"{message} does not exist, expected 0"):
            gradients.read(indices, classes)


# What is refused.


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def edit_record(folder: Path, change: Callable[[dict], None]) -> None:
    group = json.loads((folder / "zarr.json").read_text())
    change(group["attributes"])
    (folder / "zarr.json").write_text(json.dumps(group))


CHUNK = "targets/c/0/0/0/0"
DAMAGES = {
    "missing": (shutil.rmtree, "is missing: run `dvc repro`"),
    "no record": (
        lambda path: (path / "zarr.json").unlink(),
        "is no gradient store or is incomplete, it has no zarr.json",
    ),
    "record altered": (lambda path: edit_record(path, lambda a: a["content"].update(bits=4)), "zarr.json is damaged"),
    "record without files": (lambda path: edit_record(path, lambda a: a.pop("files")), "zarr.json is damaged"),
    "no array": (lambda path: (path / "targets/zarr.json").unlink(), "it has no targets/zarr.json"),
    "array altered": (lambda path: flip(path / "targets/zarr.json", 30), "targets/zarr.json is damaged"),
    "no chunk": (lambda path: (path / CHUNK).unlink(), f"is incomplete, it has no {CHUNK}"),
    "chunk cut short": (lambda path: (path / CHUNK).write_bytes((path / CHUNK).read_bytes()[:-1]), "bytes, expected"),
    "flipped bit": (lambda path: flip(path / CHUNK, 100), f"{CHUNK} is damaged or of another store"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda name: name.replace(" ", "-"))
def test_damage_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    images, (ruin, message) = make_images(GREY), DAMAGES[damage]
    path = write_targets(tmp_path / "targets", images)
    ruin(path)
    with pytest.raises(ArtifactError) as error:
        open_distilled(path, images, "cm")
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and "dvc repro" in str(error.value)


def test_targets_of_other_images_or_of_another_realization_are_refused(tmp_path: Path) -> None:
    images, others = make_images(GREY), make_images(GREY, seed=1)
    path = write_targets(tmp_path / "targets", images)
    with pytest.raises(ArtifactError, match=r"has dataset_hash = .*…, but this run needs"):
        open_distilled(path, others, "cm")
    with pytest.raises(ArtifactError, match="has realization = 'cm', but this run needs 'oi'"):
        open_distilled(path, images, "oi")
    shutil.copy(write_targets(tmp_path / "other", others) / CHUNK, path / CHUNK)
    with pytest.raises(ArtifactError, match="is damaged or of another store"):
        open_distilled(path, images, "cm")


def test_a_reader_of_stores_says_what_it_has_found(tmp_path: Path) -> None:
    path = write_targets(tmp_path / "targets", make_images(GREY))
    with pytest.raises(ArtifactError, match=r"has no directions, they are computed .*\.open_distilled"):
        GradientStore.open(path)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pag.store.format.targets.save_record", full)
    with pytest.raises(OSError, match="No space left"):
        write_targets(tmp_path / "targets", make_images(GREY))
    assert list(tmp_path.iterdir()) == []
