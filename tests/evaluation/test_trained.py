"""A classifier is taken for the one that is asked for only where all that its description says of it agrees."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pag.classifiers import build
from pag.evaluation.trained import WEIGHTS, load_trained
from pag.foundation.artifacts import ArtifactError, save_weights

ASKED = {"dataset": "digits", "dataset_hash": "abc", "arch": "cnn", "run": "sbg"}


@pytest.mark.parametrize("other", ["!", "~"], ids=["before", "after"])  # all of them in the alphabet
@pytest.mark.parametrize("key", ASKED)
def test_a_classifier_of_other_work_is_refused(key: str, other: str, tmp_path: Path) -> None:
    weights = build("cnn", 3, (1, 8, 8), seed=1).state_dict()
    save_weights(tmp_path / WEIGHTS, weights, {**ASKED, "method": "sbg", "num_classes": 3, "image_shape": [1, 8, 8]})

    def load(dataset: str, dataset_hash: str, arch: str, run: str) -> torch.nn.Module:
        images = SimpleNamespace(name=dataset, content_hash=dataset_hash)
        return load_trained(tmp_path, images, arch, run, torch.device("cpu"))[0]

    assert all(torch.equal(value, weights[name]) for name, value in load(**ASKED).state_dict().items())
    with pytest.raises(ArtifactError, match=f"is of other work, its {key} is {ASKED[key]}, expected {other}: "):
        load(**{**ASKED, key: other})
