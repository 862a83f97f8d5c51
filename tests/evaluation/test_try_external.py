"""A network of others is tried on test images with their own labels."""

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from pag.evaluation.external import try_external
from pag.foundation.config.external import External
from pag.images.dataset import ImageDataset, Split

NETWORK = """
    import torch
    from torch import nn

    class Reads(nn.Module):  # the class is in the brightness: 0, 0.2, 0.4
        def forward(self, images):
            return -(5 * images.mean((1, 2, 3))[:, None] - torch.arange(3)).square()

    def build():
        return Reads()
"""


@pytest.mark.parametrize("relabelled", [False, True])
def test_the_labels_are_those_of_the_images_shown(relabelled: bool, tmp_path: Path) -> None:
    module = f"reads_{relabelled}".lower()  # a process imports a name once
    (tmp_path / f"{module}.py").write_text(dedent(NETWORK))
    labels = np.random.default_rng(0).permutation(np.arange(60) % 3)
    pixels = np.broadcast_to((51 * labels)[:, None, None, None], (60, 1, 4, 4)).astype(np.uint8)
    split = Split(pixels, (labels + 1) % 3 if relabelled else labels)
    images = ImageDataset.create("grey", ("a", "b", "c"), train=split, validation=split, test=split)
    network = External.model_validate({"import": f"{module}:build"})
    warnings = try_external(tmp_path, network, images, "theirs", torch.device("cpu"), processes=1)
    assert ["are the labels numbered as the model does" in warning for warning in warnings] == [True] * relabelled
