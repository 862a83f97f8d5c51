"""Distillation: from a source of gradients to a store that says what it is of."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from pag.gradients.distillation import distill as distill_module
from pag.gradients.distillation.distill import check_room, distill, preview, readable
from pag.gradients.realizations import class_mean, nearest_neighbour
from pag.images.dataset import Split
from pag.store.reader import GradientStore

LEVELS, K, N = 16, 3, 20
ATTRIBUTES = {"dataset_hash": "abc", "realization": "nn"}


@pytest.fixture
def train() -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 17, (N, 1, 8, 8), dtype=np.uint8), np.arange(N) % K, LEVELS)


def run(path: Path, train: Split, gradients, batch_size: int = 6, bits: int = 8, *, progress=None):
    return distill(
        gradients,
        train,
        path,
        num_classes=K,
        attributes=ATTRIBUTES,
        bits=bits,
        batch_size=batch_size,
        progress=progress,
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_every_image_and_class_is_in_the_store(tmp_path: Path, train: Split, bits: int) -> None:
    source = nearest_neighbour(train, K, seed=0)
    done: list[int] = []
    summary = run(tmp_path / "store", train, source, bits=bits, progress=done.append)
    store = GradientStore.open(tmp_path / "store", {**ATTRIBUTES, "num_images": N, "num_classes": K, "bits": bits})
    stored = torch.from_numpy(store.read_all_classes(np.arange(N))).flatten(2).double()
    expected = source(train.unit(), torch.arange(N)).flatten(2).double()
    cosines = torch.cosine_similarity(stored, expected, dim=2, eps=1e-30)
    assert cosines.min() > (0.9995 if bits == 8 else 0.98)
    assert summary.cosine_mean == pytest.approx(cosines.mean().item(), abs=1e-5)
    assert summary.images == N and summary.images_per_second > 0 and done == [6, 6, 6, 2]


def test_the_batch_size_does_not_change_a_byte(tmp_path: Path, train: Split) -> None:
    def content(batch_size: int) -> dict[str, bytes]:
        store = tmp_path / str(batch_size)
        run(store, train, nearest_neighbour(train, K, seed=0), batch_size)
        return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    assert content(1) == content(7) == content(64)


def test_it_says_what_it_takes(tmp_path: Path, train: Split, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "store", train, class_mean(train, K))
    assert "20 images × 3 classes in 8 bits take" in capsys.readouterr().out


@pytest.mark.parametrize(("bits", "advice"), [(8, "set distill.bits to 4"), (4, "lower data.train_limit")])
def test_no_room_on_the_disk_is_refused_before_any_work(tmp_path: Path, monkeypatch, bits: int, advice: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(distill_module.shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - 10**9, 10**9))
    path = tmp_path / "data" / "gradients" / "sbg"  # its folders do not exist yet
    with pytest.raises(ValueError, match="100000 images × 200 classes") as error:
        check_room(path, (100_000, 200, 3, 64, 64), bits, 64)
    message = str(error.value)
    assert "\n" not in message and "1.0 GB free" in message and advice in message
    assert ("246.2 GB" if bits == 8 else "123.3 GB") in message
    assert ("set distill.bits" in message) == (bits == 8)


def test_no_room_in_memory_is_refused_before_any_work(tmp_path: Path, monkeypatch) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(distill_module.psutil, "virtual_memory", lambda: memory(10**9))
    shape = (100, 200, 3, 64, 64)  # 9.8 MB an image in float32, of which three batches are alive
    with pytest.raises(ValueError, match=r"set distill\.batch_size to at most 33, or") as error:
        check_room(tmp_path / "store", shape, 8, 64)
    assert "batches of 64 images need 1.9 GB of memory, and 1.0 GB are available" in str(error.value)
    check_room(tmp_path / "store", shape, 8, 33)
    check_room(tmp_path / "store", (30, *shape[1:]), 8, 64)  # a batch has no more images than there are


@pytest.mark.parametrize("realization", ["oi", "cm", "nn", "sbg"])
def test_where_gradients_can_be_computed_the_advice_says_so(tmp_path: Path, monkeypatch, realization: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(distill_module.shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - 10**9, 10**9))
    with pytest.raises(ValueError, match=r"lower data\.train_limit") as error:
        check_room(tmp_path / "store", (100_000, 200, 3, 64, 64), 4, 64, realization)
    advice = f"add {realization} to heuristics.computed (9.83 MB)"
    assert (advice in str(error.value)) == (realization in ("oi", "cm"))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (9_830_000, "9.83 MB"),
        (1e9, "1.0 GB"),
        (2.4e12, "2,400.0 GB"),
    ],
)
def test_bytes_are_readable(number: float, text: str) -> None:
    assert readable(number) == text


def test_a_failing_source_leaves_no_store(tmp_path: Path, train: Split) -> None:
    def broken(images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        if 12 in indices:
            raise FloatingPointError("loss is NaN")
        return torch.ones(len(images), K, 1, 8, 8)

    with pytest.raises(FloatingPointError, match="loss is NaN"):
        run(tmp_path / "store", train, broken)
    assert list(tmp_path.iterdir()) == []


def test_preview_shows_the_first_image_of_each_class(train: Split) -> None:
    source = nearest_neighbour(train, K, seed=0)
    shown = preview(source, train, K)
    np.testing.assert_allclose(shown["images"] * LEVELS, train.images[[0, 1, 2]])
    expected = source(train.unit(slice(3)), torch.arange(3)).numpy()
    np.testing.assert_array_equal(shown["gradients"], expected)
    assert shown["gradients"].dtype == np.float32


def test_preview_of_many_classes_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    many = Split(np.zeros((200, 1, 4, 4), np.uint8), np.arange(200)[::-1].copy())
    shown = preview(class_mean(many, 200), many, 200)
    assert shown["images"].shape == (10, 1, 4, 4) and shown["gradients"].shape == (10, 10, 1, 4, 4)
