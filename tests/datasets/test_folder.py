import os
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
from pag.foundation.config.data import DataConfig
from pag.images.balance import balanced


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
    source = read(config(tree), seed=0)
    assert source.class_names == ("cat", "dog")
    for split, part in ((source.train, "train"), (source.test, "test")):
        truth = ImageFolder(tree / part)
        assert split.labels.tolist() == truth.targets
        for image, (pixels, _) in zip(split.images, truth, strict=True):
            np.testing.assert_array_equal(image, np.asarray(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archive_equals_folder_whatever_its_order(tree, tmp_path, suffix):
    archive = pack(tree, tmp_path / f"pets.{suffix}", order=lambda paths: paths[::-1])
    assert_same(read(config(archive), seed=0), read(config(tree), seed=0))


def test_symlinked_class_is_followed(tree, tmp_path):
    before = read(config(tree), seed=0)
    shutil.move(tree / "train/dog", tmp_path / "elsewhere")
    (tree / "train/dog").symlink_to(tmp_path / "elsewhere")
    assert_same(read(config(tree), seed=0), before)


@pytest.mark.parametrize("seed", range(3))
def test_limits_choose_before_decoding(tree, monkeypatch, seed):
    opened = []
    original = decoding._open
    monkeypatch.setattr(decoding, "_open", lambda content, name: opened.append(name) or original(content, name))
    source = read(config(tree, train_limit=4, test_limit=2), seed=seed)
    assert len(opened) == len(set(opened)) == 6
    assert source.train.labels.tolist() == [0, 0, 1, 1] and source.test.labels.tolist() == [0, 1]
    whole = read(config(tree), seed=seed)
    drawn = whole.train.select(balanced(whole.train.labels, 4, seed, "train"))
    np.testing.assert_array_equal(source.train.images, drawn.images)


def test_without_test_part_one_is_cut(tree):
    shutil.rmtree(tree / "test")
    dataset = prepare("pets", config(tree, test_fraction=0.3, validation_fraction=0.5), seed=0)
    assert [len(split) for _, split in dataset.splits()] == [2, 2, 2]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_classes_alone_are_the_training_part(tree, tmp_path, packed):
    before = read(config(tree), seed=0).train
    root = tmp_path / "classes"
    shutil.copytree(tree / "train", root)
    source = read(config(pack(root, tmp_path / "classes.zip") if packed else root), seed=0)
    assert source.class_names == ("cat", "dog") and source.test is None
    np.testing.assert_array_equal(source.train.images, before.images)
    np.testing.assert_array_equal(source.train.labels, before.labels)
    assert source.notes == (f"not read, as they are no images: 1 files ({'classes/' * packed}cat/notes.txt)",)


def test_resizes_bicubically_with_antialiasing(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "a/0.png", (12, 12))
        write_image(tmp_path / part / "b/0.png", (24, 18), seed=1)
    source = read(config(tmp_path, image_size=8), seed=0)
    assert source.train.images.shape == (2, 3, 8, 8)
    with Image.open(tmp_path / "train/b/0.png") as image:
        truth = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(source.train.images[1], truth)


def test_grey_images_have_one_channel(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            write_image(tmp_path / part / name / "0.png", mode="L")
    assert read(config(tmp_path), seed=0).train.images.shape == (2, 1, 6, 6)


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
        ["test/dog/9.png is", "6×6 L", "6×6 RGB", "need one size and mode, set data.channels to 3 (colour)"],
    ),
    "not square": (only_oblong_images, ["cat/0.png is 6×7 RGB, expected a square: set data.image_size"]),
    "mode": (
        lambda tree: Image.new("CMYK", (6, 6)).save(tree / "train/cat/0.jpg"),
        ["train/cat/0.jpg has mode CMYK, expected RGB or L", "set data.channels to 3 (colour) or 1 (grey)"],
    ),
    "sixteen bits": (
        lambda tree: Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(tree / "train/cat/0.PNG"),
        ["train/cat/0.PNG has mode I;16, more than 8 bits: scale it", "-depth 8"],
    ),
    "files that are not read": (
        lambda tree: [
            (tree / "train/dog" / name).write_bytes(b"") for name in ("5.heic", "6", "7.png.1", "8.jpeg?w=640", "9.jxl")
        ],
        ["5 of the files in train/ of", "train/dog/5.heic, train/dog/6, train/dog/7.png.1, train/dog/8.jpeg?w=640, "],
    ),
    "transparent": (
        lambda tree: write_image(tree / "train/cat/0.PNG", mode="RGBA"),
        ["train/cat/0.PNG is transparent or names", "magick IN -background white -flatten"],
    ),
    "transparent colour": (
        lambda tree: Image.new("RGB", (6, 6)).save(tree / "train/cat/0.PNG", transparency=(1, 2, 3)),
        ["train/cat/0.PNG is transparent or names a transparent colour"],
    ),
    "transparent palette": (
        lambda tree: Image.new("P", (6, 6)).save(tree / "train/cat/0.PNG", transparency=0),
        ["train/cat/0.PNG is transparent or names a transparent colour"],
    ),
    "animated": (
        lambda tree: Image.new("RGB", (6, 6)).save(
            tree / "train/cat/0.webp",
            save_all=True,
            append_images=[Image.new("RGB", (6, 6), "red")],
        ),
        ["train/cat/0.webp has 2 frames: save the one that counts"],
    ),
    "two validation parts": (
        lambda tree: [write_image(tree / part / "cat/0.png") for part in ("val", "valid")],
        ["has val and valid, expected one validation part"],
    ),
    "unknown validation class": (
        lambda tree: write_image(tree / "val/cow/0.png"),
        ["class 'cow' of val/ is not in train/"],
    ),
    "class of undecodable bytes": (
        lambda tree: Path(os.fsdecode(os.fsencode(tree / "train") + b"/caf\xe9\n")).mkdir(),
        ["class 'caf\\udce9\\n' of train/", "has no image"],
    ),
    "not an image": (
        lambda tree: (tree / "train/dog/2.PNG").write_bytes(b"no image"),
        ["train/dog/2.PNG cannot be read as an image: unknown format"],
    ),
    "all that cannot be used": (
        lambda tree: [path.write_bytes(b"no image") for path in (tree / "train/dog/2.PNG", tree / "train/cat/0.png")],
        ["train/cat/0.png cannot be read as an image: unknown format; train/dog/2.PNG cannot be read as an"],
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
        read(config(root), seed=0)
    for part in expected:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_to_do_about_files_is_said_once_after_all_of_them(tree):
    for number in range(12):
        write_image(tree / f"train/cat/x{number}.png", mode="RGBA")
    (tree / "train/dog/broken.png").write_bytes(b"no image")
    with pytest.raises(SourceError) as caught:
        read(config(tree), seed=0)
    said = str(caught.value)
    assert said.count(".png is transparent") == 10 and said.count("magick") == said.count("replace or remove") == 1
    assert said.index("; and 3 more (") < min(said.index("magick"), said.index("replace or remove"))


def test_without_parts_the_folder_itself_is_named(tmp_path):
    for name in ("cat", "dog"):
        write_image(tmp_path / name / "0.png")
    (tmp_path / "cow").mkdir()
    with pytest.raises(
        SourceError, match=rf"^class 'cow' of {tmp_path} has no image .*: add some or remove the folder$"
    ):
        read(config(tmp_path), seed=0)


def test_class_with_other_files_only(tree):
    (tree / "train/cow").mkdir()
    (tree / "train/cow/notes.txt").write_bytes(b"no cows yet")
    with pytest.raises(SourceError, match=r"class 'cow' of train/ .* has no image"):
        read(config(tree), seed=0)


EXIF_EDGES = {  # value of tag 274: the stored edges (0th row, 0th column seen from the viewer's top and left)
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("left", "bottom"),
    7: ("right", "bottom"),
    8: ("right", "top"),
}


@pytest.mark.parametrize("orientation", EXIF_EDGES)
def test_photos_are_shown_upright(orientation, tmp_path):
    """By EXIF's definition: which stored edges are the top and the left of what a viewer shows."""
    top, left = EXIF_EDGES[orientation]
    rows, columns = np.mgrid[0:6, 0:6] * 40
    stored_by = {"top": rows, "bottom": rows[::-1], "left": columns, "right": columns[:, ::-1]}  # distance to an edge
    stored = np.stack([stored_by[top], stored_by[left], 0 * rows], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.fromarray(stored).save(tmp_path / part / "a/0.png", exif=exif)
    shown = read(config(tmp_path), seed=0).train.images[0]
    np.testing.assert_array_equal(shown[:2], [rows, columns], "red grows downwards, green to the right")


def test_opaque_alpha_is_dropped(tree):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tree / "train/cat/0.PNG")
    np.testing.assert_array_equal(read(config(tree), seed=0).train.images[0], pixels[..., :3].transpose(2, 0, 1))


def test_notes_name_what_is_not_read_and_what_is_changed(tree):
    write_image(tree / "train/cat/9.png", (6, 9))
    write_image(tree / "pool/cat/0.png")
    assert read(config(tree, image_size=6), seed=0).notes == (
        "not read, as they are no images: 1 files (train/cat/notes.txt)",
        "not read, as they are no parts of the data set: pool/",
        "1 of 11 images are no squares: squashed to 6×6 pixels",
    )


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_validation_part_of_its_own(folder, tree):
    for label, name in enumerate(("cat", "dog")):
        write_image(tree / folder / name / "0.png", seed=7 + label)
    said: list[str] = []
    dataset = prepare("pets", config(tree), seed=0, say=said.append)
    whole = read(config(tree), seed=0)
    assert [len(split) for _, split in dataset.splits()] == [6, 2, 4]
    np.testing.assert_array_equal(dataset.train.images, whole.train.images)
    for image, name in zip(dataset.validation.images, dataset.class_names, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(tree / folder / name / "0.png")).transpose(2, 0, 1))
    assert f"pets: {folder}/ is the validation part: data.validation_fraction is not used" in said


def test_too_many_images_for_the_memory(tree, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("pag.datasets.decoding.np.empty", fail)
    with pytest.raises(SourceError, match=r"10 images of 6×6 RGB take .* GiB, more than there is: set data"):
        read(config(tree), seed=0)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_mixed_images_get_the_channels_that_are_asked_for(tmp_path: Path, channels: int) -> None:
    """A palette, CMYK and grey among RGB: one colour per image, of which grey has the luma of ITU-R 601."""
    colours = {"RGB": (200, 100, 50), "P": (200, 100, 50), "CMYK": (200, 100, 50), "L": (90, 90, 90)}
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for mode, colour in colours.items():
                image = Image.new("RGB", (6, 6), colour)
                image = image.quantize() if mode == "P" else image.convert(mode)
                image.save(tmp_path / part / name / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    found = read(DataConfig(loader="folder", root=str(tmp_path), channels=channels), seed=0)
    assert found.train.images.shape == (8, channels, 6, 6)
    for image, mode in zip(found.train.images[:4], sorted(colours), strict=True):
        expected = np.array(colours[mode])
        if channels == 1:
            expected = np.round(expected @ [0.299, 0.587, 0.114])[None]
        np.testing.assert_allclose(image, np.broadcast_to(expected.reshape(-1, 1, 1), image.shape), atol=3)


def test_a_folder_of_other_formats_says_which_are_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.tiff").write_bytes(b"II*")
    with pytest.raises(SourceError, match=r"none of the 2 files in .* is of \.png, .*: convert cat/0.tiff, dog/0.tiff"):
        read(config(tmp_path), seed=0)
