"""Which images `evaluate` measures, and what it notes beside the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from workspace import Workspace

from pag.foundation.config.conf import load_conf
from pag.images.dataset import ImageDataset, Split, load
from stages import evaluate


@pytest.mark.parametrize(
    ("note", "split", "expected"),
    [
        (None, "test", None),
        ("JPEG copy", "test", "JPEG copy"),
        (None, "validation", "validation images"),
        ("JPEG copy", "validation", "JPEG copy, validation images"),
    ],
)
def test_validation_images_are_noted_beside_the_numbers(note: str | None, split: Any, expected: str | None) -> None:
    conf = load_conf("digits")
    sections = {
        "data": conf.data.model_copy(update={"note": note}),
        "evaluation": conf.evaluation.model_copy(update={"split": split}),
    }
    assert evaluate.data_note(conf.model_copy(update=sections)) == expected


def test_chance_is_to_name_the_commonest_class() -> None:
    split = Split(np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 0, 0, 1]))
    images = ImageDataset.create("digits", ("a", "b"), train=split, validation=split, test=split)
    found = evaluate.setting(images, load_conf("digits"), {"arch": "cnn"})
    assert (found["chance_accuracy"], found["n_clean"], found["train_images"]) == (0.75, 4, 4)
    assert (found["image_shape"], found["num_classes"]) == ([1, 8, 8], 2)


@pytest.mark.parametrize(
    ("attack", "split", "mark"),
    [
        (None, "test", ""),
        ("quick attack", "test", " (quick)"),
        (None, "validation", " (validation)"),
        ("quick attack", "validation", " (quick, validation)"),
    ],
)
def test_numbers_to_choose_by_are_never_compared_with_results(attack: str | None, split: str, mark: str) -> None:
    record = {"clean_accuracy": 0.9, "robust_accuracy": {"L2": {"1.0": 0.1, "0.5": 0.2}}, "alignment": None}
    found = evaluate.headline(record | {"attack": attack}, split)
    assert found == {f"clean{mark}": 0.9, f"L2 0.5{mark}": 0.2, "cosine": None}


class Asked(Exception):  # noqa: N818 - no error
    """Ends the stage where the attacks would begin."""


@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_split_decides_which_images_are_attacked_and_they_are_balanced(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    workspace = chain.copy(tmp_path)
    workspace.set("evaluation.split", part)
    workspace.set("evaluation.images", 10)
    handed: list[tuple[Tensor, Tensor]] = []

    def ask(model: object, images: Tensor, labels: Tensor, *_: object, **__: object) -> None:
        handed.append((images, labels))
        raise Asked

    monkeypatch.setattr(evaluate, "evaluate", ask)
    with pytest.raises(Asked):
        workspace.run(monkeypatch, "evaluate", "digits", "cnn", "vanilla")
    ((images, labels),) = handed
    split = load(tmp_path / "data/digits/images").split(part)
    known = {(image.tobytes(), label) for image, label in zip(split.images, split.labels.tolist(), strict=True)}
    raw = (images * split.levels).round().byte().numpy()
    assert {(image.tobytes(), label) for image, label in zip(raw, labels.tolist(), strict=True)} <= known
    assert torch.bincount(labels, minlength=10).tolist() == [1] * 10
