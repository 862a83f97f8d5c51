"""Which images `evaluate` measures, and what it notes beside the numbers."""

from typing import Any

import pytest
import torch

from pag.foundation.config.conf import load_conf
from stages import evaluate

CPU = torch.device("cpu")


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
