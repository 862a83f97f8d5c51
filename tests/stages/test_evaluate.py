"""Which images `evaluate` measures, and what it notes beside the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pag.foundation.config.conf import EvaluationConfig, load_conf
from pag.images.dataset import ImageDataset, Split
from stages import evaluate

CPU = torch.device("cpu")


def flat(classes: list[int], white_is: int) -> Split:
    """Flat images of side 4, white ones for the class `white_is`."""
    labels = np.array(classes)
    values = np.where(labels == white_is, 255, 0).astype(np.uint8)
    return Split(np.tile(values[:, None, None, None], (1, 1, 4, 4)), labels)


class WhiteIsOne(nn.Module):
    """Says class 1 for bright images; a margin that a small change of brightness cannot cross."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.mean(dim=(1, 2, 3))
        return 100 * torch.stack([0.5 - brightness, brightness - 0.5], dim=1)


def dataset() -> ImageDataset:
    """Validation images that WhiteIsOne gets right, and test images of which it gets a quarter."""
    test = flat([0, 1, 0, 1], white_is=0)
    test.images[0] = 0
    validation = flat([0, 1], white_is=1)
    return ImageDataset.create("flat", ("0", "1"), 255, train=validation, validation=validation, test=test)


def config(**changes: Any) -> EvaluationConfig:
    values = {"threat_models": {"Linf": [0.1]}, "large_eps": {"eps": 1.0}, **changes}
    return EvaluationConfig.model_validate(values)


@pytest.mark.parametrize(("split", "accuracy", "count"), [("test", 0.25, 4), ("validation", 1.0, 2)])
def test_the_split_decides_which_images_are_attacked(split: Any, accuracy: float, count: int, tmp_path: Path) -> None:
    found = evaluate.attacked(WhiteIsOne(), dataset(), config(split=split), 0, CPU, tmp_path)
    assert found["n_examples"] == count
    assert found["robust_accuracy"] == {"Linf": {"0.1": accuracy}}  # 0.1 is too little for any flat image
    assert evaluate.clean_accuracy(WhiteIsOne(), dataset(), config(split=split), CPU) == accuracy


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
