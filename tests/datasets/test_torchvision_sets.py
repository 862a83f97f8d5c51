import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv

from pag.datasets.preparation import prepare
from pag.datasets.source import SourceError
from pag.datasets.torchvision_sets import read
from pag.foundation.config.data import DataConfig

RNG = np.random.default_rng(0)


@pytest.fixture
def accept_generated_files(monkeypatch):
    """Generated files cannot have the official checksums; everything else of torchvision runs as it is."""
    monkeypatch.setattr(tv.cifar, "check_integrity", lambda path, md5: Path(path).is_file())
    monkeypatch.setattr(tv.stl10, "check_integrity", lambda path, md5: Path(path).is_file())


def write_cifar(root: Path, num_classes: int, per_batch: int) -> dict[str, np.ndarray]:
    """The official pickles; returns the rows (3072,) of every part."""
    kind, key = (tv.CIFAR10, "labels") if num_classes == 10 else (tv.CIFAR100, "fine_labels")
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    rows = {}
    for name, _ in kind.train_list + kind.test_list:
        rows[name] = RNG.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [i % num_classes for i in range(per_batch)]
        (folder / name).write_bytes(pickle.dumps({"data": rows[name], key: labels}))
    names = [f"class {i}" for i in range(num_classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    return rows


def write_stl10(root: Path) -> np.ndarray:
    """The official binaries: images (N, 3, columns, rows), labels from 1. Returns the test images as written."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("test", 20)):
        images = RNG.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        images.tofile(folder / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return images


@pytest.mark.parametrize("download", [False, True], ids=["offline", "download not needed"])
@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar(num_classes, download, tmp_path, accept_generated_files):
    rows = write_cifar(tmp_path, num_classes, 2 * num_classes)
    config = DataConfig(loader=f"cifar{num_classes}", root=str(tmp_path), download=download)
    source = read(config, seed=0)
    assert source.class_names == tuple(f"class {i}" for i in range(num_classes))
    names = [f"data_batch_{i}" for i in range(1, 6)] if num_classes == 10 else ["train"]
    expected = np.concatenate([rows[name] for name in names]).reshape(-1, 3, 32, 32)  # red, green, blue planes
    np.testing.assert_array_equal(source.train.images, expected)
    assert source.train.labels.tolist() == [i % num_classes for i in range(2 * num_classes)] * len(names)
    assert len(source.test) == 2 * num_classes


def test_stl10(tmp_path, accept_generated_files):
    written = write_stl10(tmp_path)
    dataset = prepare("stl10", DataConfig(loader="stl10", root=str(tmp_path), validation_fraction=0.25), seed=0)
    assert [len(split) for _, split in dataset.splits()] == [30, 10, 20]
    assert dataset.test.labels.tolist() == [i % 10 for i in range(20)]
    np.testing.assert_array_equal(dataset.test.images, written.transpose(0, 1, 3, 2))


def test_limits(tmp_path, accept_generated_files):
    write_cifar(tmp_path, 10, 20)
    config = DataConfig(loader="cifar10", root=str(tmp_path), train_limit=50, test_limit=10, validation_fraction=0.2)
    assert [len(split) for _, split in prepare("cifar10", config, seed=0).splits()] == [40, 10, 10]


@pytest.mark.parametrize(("loader", "folder"), [("cifar10", "cifar-10-batches-py"), ("stl10", "stl10_binary")])
def test_missing_files_say_what_to_put_where(loader, folder, tmp_path):
    with pytest.raises(SourceError) as caught:
        read(DataConfig(loader=loader, root=str(tmp_path)), seed=0)
    message = str(caught.value)
    assert str(tmp_path / folder) in message
    assert "unpack http" in message and "or set data.download to true" in message
    assert "\n" not in message


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tv.CIFAR10, "url", (tmp_path / "nothing.tar.gz").as_uri())
    with pytest.raises(
        SourceError, match=r"cifar-10-batches-py is not the complete CIFAR10 \(.*unpack file:"
    ) as caught:
        read(DataConfig(loader="cifar10", root=str(tmp_path / "raw"), download=True), seed=0)
    assert "\n" not in str(caught.value)


def test_stl10_without_class_names(tmp_path, accept_generated_files):
    write_stl10(tmp_path)
    (tmp_path / "stl10_binary/class_names.txt").unlink()
    with pytest.raises(SourceError, match="is not the complete STL10"):
        read(DataConfig(loader="stl10", root=str(tmp_path)), seed=0)


def test_no_resizing(tmp_path, accept_generated_files):
    write_cifar(tmp_path, 10, 20)
    with pytest.raises(ValueError, match="loader 'cifar10' does not resize"):
        prepare("cifar10", DataConfig(loader="cifar10", root=str(tmp_path), image_size=16), seed=0)
