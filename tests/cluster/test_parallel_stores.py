"""Distillation and evaluation by several processes give what one gives: every byte, every flag."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_truth import linear_classifier
from ranks import join, together
from torch import Tensor

from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.foolbox import evaluate_foolbox
from pag.evaluation.standard import Budget
from pag.foundation.processes import joined
from pag.foundation.scratch import Scratch
from pag.gradients.distillation.distill import distill
from pag.images.dataset import Split
from pag.store.format import shards

N, K, BATCH, PER_SHARD = 23, 3, 4, 5


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    monkeypatch.setattr(shards, "MAX_SHARDS", 5)  # of ⌈23/5⌉ = 5 images
    monkeypatch.setenv("PAG_CHECKPOINT_MINUTES", "0")


def write(store: Path, scratch: Path | None, killed_at: int | None = None, made: list[int] | None = None) -> None:
    """killed_at: the image at whose batch the process dies."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8), np.arange(N, dtype=np.int64) % K)

    def source(images: Tensor, indices: Tensor) -> Tensor:
        """Depends on the whole batch, as the last digits of a convolution do."""
        first = int(indices[0])
        if first == killed_at:
            os._exit(9)
        if made is not None:
            made.append(first)
        noise = torch.rand(images.mean(1, True).shape, generator=torch.Generator().manual_seed(first))
        return torch.stack([(images * (y + 1) + images.flip(-1)) * (1 + images.mean() * noise) for y in range(K)], 1)

    kept = Scratch(scratch, {}) if scratch is not None else None
    options = {"num_classes": K, "attributes": {}, "bits": 8, "batch_size": BATCH, "announce": lambda line: None}
    distill(source, split, store, scratch=kept, **options)


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_store_is_the_same_to_the_byte(ranks: int, tmp_path: Path) -> None:
    write(tmp_path / "one", None)
    join(tmp_path / "work", ranks, lambda: write(tmp_path / "many", None))
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_another_number_of_processes_goes_on_with_a_store(tmp_path: Path) -> None:
    """Of two, the second dies in its last shard; what both have made is not made again."""
    write(tmp_path / "one", None)

    def dying() -> None:
        with joined():
            write(tmp_path / "store", tmp_path / "scratch", killed_at=20)

    first, second = together(tmp_path / "work", 2, dying)
    assert second.code == 9 and first.code != 0
    assert not (tmp_path / "store").exists()
    made: list[int] = []
    write(tmp_path / "store", tmp_path / "scratch", made=made)
    # the last shard, from image 20 on; and the batch before it, where it was still on its way to the disk
    assert made in ([20], [16, 20])
    assert content(tmp_path / "store") == content(tmp_path / "one")


def problem() -> tuple[torch.nn.Module, Tensor, Tensor]:
    classifier = linear_classifier(5, 36)
    images = 0.5 + 0.1 * torch.randn(11, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return classifier, images, classifier(images).argmax(1)


def evaluated(cache: Path | None = None) -> dict[str, Tensor]:
    options = {"batch_size": 4, "seed": 0, "cache": cache}
    budget = Budget(("apgd-ce", "fab-t"), steps=3, target_classes=1)
    found = evaluate_autoattack(*problem(), {"Linf": [0.005, 0.02], "L2": [0.2]}, budget=budget, **options).by_norm
    others = evaluate_foolbox(*problem(), {"SaltAndPepperNoiseAttack": None}, quick_steps=3, **options)
    return {
        **{f"{norm} radius": result.radius for norm, result in found.items()},
        **{f"{norm} x_adv": result.x_adv for norm, result in found.items()},
        **{name: result.distances for name, result in others.items()},
    }


def test_all_ranks_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one process goes on from what two have kept: there is nothing left to attack."""
    folder, cache = tmp_path / "work", tmp_path / "cache"
    join(folder, 2, lambda: torch.save(evaluated(cache), folder / f"{os.environ['RANK']}.pt"))
    alone = evaluated()
    assert 0 < alone["Linf radius"].isinf().sum() < 11
    monkeypatch.setattr("pag.evaluation.workers.attack", None)
    for found in (torch.load(folder / "0.pt"), torch.load(folder / "1.pt"), evaluated(cache)):
        assert all(torch.equal(found[name], value) for name, value in alone.items())
