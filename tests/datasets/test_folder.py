import shutil
from pathlib import Path

import numpy as np
import pytest
from image_trees import pack, real_archive, write_image
from PIL import Image
from torchvision.datasets import ImageFolder

from pag.datasets import decoding
from pag.datasets.folder import read
from pag.datasets.preparation import prepare
from pag.datasets.source import Source, SourceError
from pag.foundation.config.conf import DataConfig


def config(root: Path, **changes) -> DataConfig:
    return DataConfig(loader="folder", root=str(root), **changes)


def assert_same(one: Source, other: Source) -> None:
    assert one.class_names == other.class_names
    for ours, theirs in ((one.train, other.train), (one.test, other.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_equals_torchvisions_reading(tree):
    (tree / "train/.hidden").rmdir()
    (tree / "train/cat/._0.png").unlink()
    source = read(config(tree))
    assert source.class_names == ("cat", "dog")
    for split, part in ((source.train, "train"), (source.test, "test")):
        truth = ImageFolder(tree / part)
        assert split.labels.tolist() == truth.targets
        for image, (pixels, _) in zip(split.images, truth, strict=True):
            np.testing.assert_array_equal(image, np.asarray(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archive_equals_folder_whatever_its_order(tree, tmp_path, suffix):
    archive = pack(tree, tmp_path / f"pets.{suffix}", order=lambda paths: paths[::-1])
    assert_same(read(config(archive)), read(config(tree)))


def test_symlinked_class_is_followed(tree, tmp_path):
    before = read(config(tree))
    shutil.move(tree / "train/dog", tmp_path / "elsewhere")
    (tree / "train/dog").symlink_to(tmp_path / "elsewhere")
    assert_same(read(config(tree)), before)


def test_limits_choose_before_decoding(tree, monkeypatch):
    opened = []
    original = decoding._open
    monkeypatch.setattr(decoding, "_open", lambda content, name: opened.append(name) or original(content, name))
    source = read(config(tree, train_limit=4, test_limit=2))
    assert sorted(opened) == sorted(
        [f"train/{name}/{file}" for name in ("cat", "dog") for file in ("0.PNG", "1.bmp")]
        + [f"test/{name}/0.PNG" for name in ("cat", "dog")]
    )
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    whole = read(config(tree))
    np.testing.assert_array_equal(source.train.images, whole.train.images[[0, 1, 3, 4]])


def test_without_test_part_one_is_cut(tree):
    shutil.rmtree(tree / "test")
    dataset = prepare("pets", config(tree, test_fraction=0.3, validation_fraction=0.5), seed=0)
    assert [len(split) for _, split in dataset.splits()] == [2, 2, 2]


def test_resizes_bicubically_with_antialiasing(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "a/0.png", (12, 12))
        write_image(tmp_path / part / "b/0.png", (24, 18), seed=1)
    source = read(config(tmp_path, image_size=8))
    assert source.train.images.shape == (2, 3, 8, 8)
    with Image.open(tmp_path / "train/b/0.png") as image:
        truth = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(source.train.images[1], truth)


def test_grey_images_have_one_channel(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            write_image(tmp_path / part / name / "0.png", mode="L")
    assert read(config(tmp_path)).train.images.shape == (2, 1, 6, 6)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_oblong_images(tree: Path) -> None:
    shutil.rmtree(tree)
    for part in ("train", "test"):
        write_image(tree / part / "cat/0.png", (6, 7))


DAMAGE = {
    "layout": (
        lambda tree: (tree / "train").rename(tree / "training"),
        ["training", ": expected train/<class>/<image>"],
    ),
    "outside a class": (
        lambda tree: write_image(tree / "train/loose.png"),
        ["train/loose.png of", "not in the folder of"],
    ),
    "too deep": (lambda tree: write_image(tree / "test/cat/old/0.png"), ["test/cat/old/0.png of", "not in the folder"]),
    "empty class": (lambda tree: (tree / "train/cow").mkdir(), ["class 'cow' of train/", "has no image (.png, .jpg"]),
    "empty test class": (
        lambda tree: [path.unlink() for path in (tree / "test/cat").iterdir()],
        ["class 'cat' of test/", "has no image"],
    ),
    "unknown test class": (
        lambda tree: write_image(tree / "test/cow/0.png"),
        ["class 'cow' of test/ is not in train/"],
    ),
    "mixed size": (
        lambda tree: write_image(tree / "train/dog/9.png", (6, 7)),
        ["train/dog/9.png is", "6×7 RGB", "6×6 RGB", "need one size and mode, set data.image_size"],
    ),
    "mixed mode": (
        lambda tree: write_image(tree / "test/dog/9.png", mode="L"),
        ["test/dog/9.png is", "6×6 L", "6×6 RGB", "need one size and mode, convert the images"],
    ),
    "not square": (only_oblong_images, ["cat/0.png is 6×7 RGB, expected a square: set data.image_size"]),
    "mode": (
        lambda tree: write_image(tree / "train/cat/0.PNG", mode="RGBA"),
        ["train/cat/0.PNG has mode RGBA, expected RGB or L"],
    ),
    "a format that is not read": (
        lambda tree: write_image(tree / "train/dog/9.gif", mode="L"),
        ["train/dog/9.gif of", "is not of .png, .jpg", "convert or remove it"],
    ),
    "not an image": (
        lambda tree: (tree / "train/dog/2.PNG").write_bytes(b"no image"),
        ["train/dog/2.PNG cannot be read as an image: unknown format"],
    ),
    "cut image": (
        lambda tree: cut_in_half(tree / "train/dog/2.PNG"),
        ["train/dog/2.PNG cannot be read as an image"],
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("case", DAMAGE)
def test_bad_tree_is_one_line(case, packed, tree, tmp_path):
    damage, expected = DAMAGE[case]
    damage(tree)
    root = pack(tree, tmp_path / "pets.tar.gz") if packed else tree
    with pytest.raises(SourceError) as caught:
        read(config(root))
    for part in expected:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_with_other_files_only(tree):
    (tree / "train/cow").mkdir()
    (tree / "train/cow/notes.txt").write_bytes(b"no cows yet")
    with pytest.raises(SourceError, match=r"class 'cow' of train/ .* has no image"):
        read(config(tree))


def test_single_class(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "cat/0.png")
    with pytest.raises(ValueError, match="found 1 class, expected at least 2"):
        prepare("pets", config(tmp_path), seed=0)


def test_real_cifar10_archive():
    archive = real_archive("cifar10-jpeg.tar.xz")
    dataset = prepare("cifar10-jpeg", config(archive, train_limit=100, test_limit=20, validation_fraction=0.2), seed=0)
    assert dataset.image_shape == (3, 32, 32)
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(dataset.train.labels).tolist() == [8] * 10
    assert np.bincount(dataset.test.labels).tolist() == [2] * 10
    assert 100 < dataset.train.images.mean() < 140
