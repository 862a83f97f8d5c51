import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pag.foundation.artifacts import ArtifactError
from pag.images.dataset import ImageDataset, Split, load, save, to_unit


def make_split(num_images: int, first: int = 0, levels: int = 255) -> Split:
    images = (np.arange(num_images * 2 * 3 * 4) + first).astype(np.uint8).reshape(num_images, 2, 3, 4)
    return Split(images, np.arange(num_images, dtype=np.int64) % 2, levels)


@pytest.fixture
def dataset() -> ImageDataset:
    parts = {"train": make_split(6), "validation": make_split(2, 7), "test": make_split(4, 9)}
    return ImageDataset.create("tiny", ("cat", "dog"), **parts)


def test_round_trip(dataset, tmp_path):
    save(dataset, tmp_path / "images")
    again = load(tmp_path / "images")
    assert again.content_hash == dataset.content_hash
    assert (again.name, again.class_names, again.levels) == ("tiny", ("cat", "dog"), 255)
    assert (again.num_classes, again.image_shape) == (2, (2, 3, 4))
    for (_, ours), (_, theirs) in zip(dataset.splits(), again.splits(), strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    with pytest.raises(ValueError, match="read-only"):
        again.train.images[0] = 1
    keys = list(json.loads((tmp_path / "images/dataset.json").read_text()))
    assert keys == [*sorted(keys[:-1]), "seal"]


def test_points_and_an_empty_part(tmp_path):
    points = Split(np.array([[1, 2], [3, 6.5]], dtype=np.float32), np.array([0, 1]), levels=1)
    parts = {"train": points, "validation": points.select(np.arange(0)), "test": points}
    save(ImageDataset.create("toy", ("a", "b"), **parts), tmp_path / "points")
    again = load(tmp_path / "points")
    assert again.validation.images.shape == (0, 2)
    assert again.image_shape == (2,)
    assert again.test.unit().tolist() == [[1, 2], [3, 6.5]]


@pytest.mark.parametrize("field", ["name", "class_names", "levels", "train", "test", "labels"])
def test_hash_depends_on_everything(dataset, field):
    arguments = {f.name: getattr(dataset, f.name) for f in dataclasses.fields(dataset) if f.name != "content_hash"}
    flipped = Split(dataset.train.images, 1 - dataset.train.labels)
    changed = {
        "name": {"name": "other"},
        "class_names": {"class_names": ("cat", "cow")},
        "levels": {name: dataclasses.replace(split, levels=16) for name, split in dataset.splits()},
        "train": {"train": make_split(6, 1)},
        "test": {"test": make_split(5, 9)},
        "labels": {"train": flipped},
    }[field]
    assert ImageDataset.create(**arguments).content_hash == dataset.content_hash
    assert ImageDataset.create(**arguments | changed).content_hash != dataset.content_hash


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def drop_hash(path: Path) -> None:
    about = json.loads(path.read_text())
    del about["content_hash"]
    path.write_text(json.dumps(about))


DAMAGE = {
    "missing array": ("test_labels.npy", Path.unlink, "test_labels.npy is missing"),
    "cut array": (
        "train_images.npy",
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        "train_images.npy is damaged",
    ),
    "empty array": ("train_images.npy", lambda path: path.write_bytes(b""), "train_images.npy is damaged"),
    "changed bit": ("validation_images.npy", flip_last_byte, "does not match the hash"),
    "missing description": ("dataset.json", Path.unlink, "dataset.json is missing: run `dvc repro`"),
    "cut description": ("dataset.json", lambda path: path.write_text("{"), "dataset.json is damaged, it is no JSON"),
    "no hash": ("dataset.json", drop_hash, "dataset.json is damaged or was edited"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused(case, dataset, tmp_path):
    name, damage, message = DAMAGE[case]
    save(dataset, tmp_path / "images")
    damage(tmp_path / "images" / name)
    with pytest.raises(ArtifactError, match=message) as caught:
        load(tmp_path / "images")
    assert "\n" not in str(caught.value)


def test_failed_save_leaves_nothing(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("pag.images.dataset.save_json", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(dataset, tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_to_unit(make):
    raw = make(np.array([0, 8, 16], dtype=np.uint8))
    unit = to_unit(raw, 16)
    assert unit.dtype == torch.float32
    assert unit.tolist() == [0, 0.5, 1]
    floats = torch.tensor([2.0])
    to_unit(floats, 2)
    assert floats.item() == 2, "the input must not change"


def test_a_split_knows_the_raw_value_of_white(tmp_path):
    split = make_split(4, levels=16)
    everything = split.unit()
    assert everything.dtype == torch.float32
    np.testing.assert_allclose(everything.numpy() * 16, split.images, rtol=1e-6)
    assert torch.equal(split.unit(slice(1, 3)), everything[1:3])
    assert torch.equal(split.unit(np.array([3, 0])), everything[[3, 0]])
    assert torch.equal(split.select(np.array([2])).unit(), everything[2:3])
    save(ImageDataset.create("tiny", ("cat", "dog"), train=split, validation=split, test=split), tmp_path / "images")
    assert all(torch.equal(again.unit(), everything) for _, again in load(tmp_path / "images").splits())
