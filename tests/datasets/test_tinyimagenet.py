import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from image_trees import pack, real_archive, write_image
from PIL import Image

from pag.datasets import tinyimagenet
from pag.datasets.preparation import prepare
from pag.datasets.source import SourceError
from pag.foundation.config.data import DataConfig

WNIDS = ("n02", "n01", "n03")


def config(root: Path, **changes) -> DataConfig:
    return DataConfig(loader="tinyimagenet", root=str(root), validation_fraction=0.5, **changes)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three classes with two training and one validation image of each; one training image is grey."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for label, wnid in enumerate(WNIDS):
        for i in range(2):
            write_image(
                root / f"train/{wnid}/images/{wnid}_{i}.JPEG", (64, 64), "L" if wnid == "n01" and i else "RGB", label
            )
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
        write_image(root / f"val/images/val_{label}.JPEG", (64, 64), seed=10 + label)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t9\t9\n")
    (root / "val/val_annotations.txt").write_text("".join(lines) + "val_9.JPEG\tn03\t0\t0\t9\t9\n")
    (root / "words.txt").write_text("n01\tcrane\nn02\tgoldfish, Carassius auratus\nn03\tcrane, hoist\n")
    write_image(root / "test/images/test_0.JPEG", (64, 64))
    return root


@pytest.mark.parametrize("suffix", [None, "zip", "tar.xz"])
def test_official_layout(official, tmp_path, suffix):
    root = pack(official, tmp_path / f"tiny.{suffix}") if suffix else official
    source = tinyimagenet.read(config(root), seed=0)
    assert source.class_names == ("crane (n01)", "goldfish", "crane (n03)")
    assert source.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.labels.tolist() == [0, 1, 2]
    assert source.train.images.shape == (6, 3, 64, 64)
    grey = source.train.images[1]
    assert (grey[0] == grey[1]).all() and (grey[0] == grey[2]).all()
    with Image.open(official / "val/images/val_1.JPEG") as image:  # the validation image of n01
        np.testing.assert_array_equal(source.test.images[0], np.asarray(image).transpose(2, 0, 1))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address at which the temporary folder is served."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://localhost:{http.server_port}"
        http.shutdown()


DAMAGE = {
    "no images": (
        lambda root: (root / "train").rename(root / "training"),
        "has no train/<wnid>/images/*.JPEG: expected",
    ),
    "empty class": (
        lambda root: (root / "train/n04/images").mkdir(parents=True),
        "class 'n04' has no train/n04/images",
    ),
    "no annotations": (lambda root: (root / "val/val_annotations.txt").unlink(), "has no val/val_annotations.txt"),
    "no words": (lambda root: (root / "words.txt").unlink(), "has no words.txt"),
    "no validation images": (lambda root: (root / "val/images").rename(root / "val/x"), "has no val/images/*.JPEG"),
    "image without a line": (lambda root: write_image(root / "val/images/a.JPEG"), "val/images/a.JPEG has no line in"),
    "foreign class": (
        lambda root: (root / "val/val_annotations.txt").write_text("".join(f"val_{i}.JPEG\tn07\n" for i in range(3))),
        "val/images/val_0.JPEG is of class 'n07', which is not in train/",
    ),
    "mixed size": (lambda root: write_image(root / "val/images/val_2.JPEG", (32, 32)), "val_2.JPEG is 32×32 RGB, but"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_bad_layout_is_one_line(case, official):
    damage, message = DAMAGE[case]
    damage(official)
    with pytest.raises(SourceError) as caught:
        tinyimagenet.read(config(official), seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_download_is_verified(official, tmp_path, monkeypatch, server):
    archive = pack(official, tmp_path / "served.zip")
    target = tmp_path / "raw/tiny-imagenet-200.zip"
    monkeypatch.setattr(tinyimagenet, "URL", f"{server}/served.zip")
    with pytest.raises(SourceError, match=r"the download of .* failed .*: put the archive or its folder at"):
        tinyimagenet.read(config(target, download=True), seed=0)
    assert list(target.parent.iterdir()) == [], "a wrong file must not stay"
    monkeypatch.setattr(tinyimagenet, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    source = tinyimagenet.read(config(target, download=True), seed=0)
    monkeypatch.setattr(tinyimagenet, "URL", "http://localhost:1")
    again = tinyimagenet.read(config(target, download=True), seed=0)
    np.testing.assert_array_equal(source.train.images, again.train.images)


def test_download_needs_a_zip(tmp_path):
    with pytest.raises(ValueError, match=r"data\.download fetches a \.zip file"):
        tinyimagenet.read(config(tmp_path / "tiny", download=True), seed=0)


def test_missing_without_download(tmp_path):
    with pytest.raises(SourceError, match="tiny does not exist: put the raw images"):
        tinyimagenet.read(config(tmp_path / "tiny"), seed=0)


def test_real_subset():
    archive = real_archive("tiny-imagenet-200-subset.tar.xz")
    dataset = prepare("tinyimagenet", config(archive, train_limit=400, test_limit=200), seed=0)
    assert (dataset.num_classes, dataset.image_shape) == (200, (3, 64, 64))
    assert len(set(dataset.class_names)) == 200
    assert dataset.class_names[0] == "goldfish"
    assert np.bincount(dataset.test.labels).tolist() == [1] * 200
