"""A killed distillation makes the shards that it had not finished; the store is the same to the byte."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pag.foundation.scratch import Scratch
from pag.gradients.distillation import store_writer
from pag.gradients.distillation.distill import distill
from pag.gradients.distillation.kept_shards import Opened, Written, spans_of
from pag.images.dataset import Split
from pag.store.format import shards
from pag.store.reader import GradientStore

N, K, BATCH, PER_SHARD = 23, 3, 4, 6


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    monkeypatch.setattr(shards, "MAX_SHARDS", 4)  # of ⌈23/4⌉ = 6 images


def run(path: Path, scratch: Path | None, bits: int = 8, killed_at: int | None = None) -> list[int]:
    """The first image of each batch that was made."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8), np.arange(N, dtype=np.int64) % K)
    made: list[int] = []

    def source(images: Tensor, indices: Tensor) -> Tensor:
        """Depends on the whole batch in its last digits, as a convolution's sums do."""
        made.append(int(indices[0]))
        if made[-1] == killed_at:
            raise Killed
        directions = torch.stack([images * (y + 1) + images.flip(-1) for y in range(K)], dim=1)
        return directions * (1 + 0.3 * images.mean() * torch.rand(directions.shape, generator=own(indices)))

    def own(indices: Tensor) -> torch.Generator:
        return torch.Generator().manual_seed(int(indices[0]))

    distill(
        source,
        split,
        path,
        num_classes=K,
        attributes={"realization": "x"},
        bits=bits,
        batch_size=BATCH,
        announce=lambda line: None,
        scratch=Scratch(scratch, {"bits": bits}) if scratch else None,
    )
    return made


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("killed_at", [0, 8, 12, 20])
def test_it_goes_on_after_the_last_whole_shard(killed_at: int, bits: int, tmp_path: Path) -> None:
    run(tmp_path / "whole", None, bits)
    with pytest.raises(Killed):
        run(tmp_path / "store", tmp_path / "scratch", bits, killed_at)
    assert not (tmp_path / "store").exists()
    made = run(tmp_path / "store", tmp_path / "scratch", bits)
    finished = killed_at // PER_SHARD * PER_SHARD
    assert made[0] == finished // BATCH * BATCH
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    GradientStore.open(tmp_path / "store").read_all_classes(np.arange(N))


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")


@pytest.mark.parametrize("block", [1, 3, 4, 6])  # images that are written at once
@pytest.mark.parametrize("killed_at", [4, 8, 16, 20])
@pytest.mark.usefixtures("always_due")
def test_it_goes_on_inside_a_shard(killed_at: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_writer, "BLOCK_BYTES", block * K * 8 * 8 * 4)
    run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "store", tmp_path / "scratch", killed_at=killed_at)
    opened = tmp_path / "scratch/store.shards" / shards.Layout((N, K, 1, 8, 8), 8).file(killed_at // PER_SHARD)
    if opened.exists():
        with open(opened, "ab") as file:
            file.write(b"written after the state")
    assert run(tmp_path / "store", tmp_path / "scratch") == list(range(killed_at, N, BATCH))
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert not list((tmp_path / "scratch").glob("*.open*"))


@pytest.mark.parametrize("damaged", ["store.shards/directions/c/2/0/0/0/0", "store.2.open"])
@pytest.mark.usefixtures("always_due")
def test_an_open_shard_that_is_damaged_is_begun_again(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Of a damaged state the one before is taken up: here, from before the first image of the shard."""
    monkeypatch.setattr(store_writer, "BLOCK_BYTES", 1)
    run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "store", tmp_path / "scratch", killed_at=16)
    file = tmp_path / "scratch" / damaged
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert run(tmp_path / "store", tmp_path / "scratch") == [12, 16, 20]
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert capsys.readouterr().out.count("is not taken up, it is damaged") == 1


@pytest.mark.parametrize(
    ("own", "kept", "spans"),
    [
        ([0, 1, 2, 3], {}, [(0, 1000)]),
        ([0, 2, 3], {}, [(0, 300), (600, 1000)]),
        ([1, 2], {2: 40}, [(300, 600), (640, 900)]),
        ([3], {3: 100}, [(1000, 1000)]),
        ([], {}, []),
    ],
)
def test_neighbouring_shards_are_one_row_of_images(
    own: list[int], kept: dict[int, int], spans: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = shards.Layout((1000, 10, 1, 8, 8), 8)
    monkeypatch.setattr(shards, "SHARD_BYTES", 300 * layout.image_bytes)
    opened = {
        shard: Opened(Written("", [], 1.0, 0), images, np.empty((0, 10, 1, 8, 8))) for shard, images in kept.items()
    }
    assert spans_of(own, layout, opened) == spans


def shard_files(scratch: Path) -> list[Path]:
    return sorted(path for path in (scratch / "store.shards").rglob("*") if path.is_file())


def test_a_store_that_is_whole_in_the_scratch_is_not_made_again(tmp_path: Path) -> None:
    """The stage was killed after the store, or DVC has removed it."""
    run(tmp_path / "store", tmp_path / "scratch")
    (tmp_path / "store").rename(tmp_path / "removed")
    assert run(tmp_path / "store", tmp_path / "scratch") == []
    assert content(tmp_path / "store") == content(tmp_path / "removed")


def test_a_damaged_shard_is_made_again(tmp_path: Path, capsys) -> None:
    run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "store", tmp_path / "scratch", killed_at=20)
    second = shard_files(tmp_path / "scratch")[1]
    damaged = bytearray(second.read_bytes())
    damaged[5] ^= 1
    second.write_bytes(damaged)
    # images 6 to 11, and from 18 on those that were never made
    assert run(tmp_path / "store", tmp_path / "scratch") == [4, 8, 16, 20]
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert capsys.readouterr().out.count("is not taken up, it is damaged") == 1
