"""The accuracy at the worst point of a disc, against borders whose distance is known."""

import numpy as np
import pytest
import torch
from linear_truth import distance_to_boundary, linear_classifier
from torch import Tensor, nn

from pag.images.dataset import ImageDataset, Split
from stages.toy import worst_accuracy


def points_of(x: np.ndarray, labels: np.ndarray) -> ImageDataset:
    test = Split(x.astype(np.float32), labels.astype(np.int64), levels=1)
    return ImageDataset.create("toy", ("class 0", "class 1"), train=test, validation=test, test=test)


@pytest.mark.parametrize("eps", [0.5, 2.0, 6.0])
def test_of_a_straight_border_it_is_the_share_of_points_farther_away(eps: float) -> None:
    classifier, x = linear_classifier(2, 2), 6 * np.random.default_rng(0).normal(size=(400, 2))
    labels = classifier(torch.from_numpy(x).float()).argmax(1)
    distance = distance_to_boundary(classifier, torch.from_numpy(x), labels, "L2").numpy()
    x, labels = x[abs(distance - eps) > 0.01 * eps], labels.numpy()[abs(distance - eps) > 0.01 * eps]
    expected = (distance[abs(distance - eps) > 0.01 * eps] > eps).mean()
    assert 0.05 < expected < 0.95
    assert worst_accuracy(classifier, points_of(x, labels), eps) == pytest.approx(expected)


class Ring(nn.Module):
    """Class 1 between the radii 3 and 4 around the origin, with no gradient anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        inside = ((x.norm(dim=1) > 3) & (x.norm(dim=1) < 4)).float()
        return torch.stack([1 - inside, inside], dim=1)


@pytest.mark.parametrize(("eps", "expected"), [(2.9, 1.0), (3.5, 0.0), (10.0, 0.0)])
def test_it_needs_no_gradient_and_looks_inside_the_disc(eps: float, expected: float) -> None:
    assert worst_accuracy(Ring(), points_of(np.zeros((1, 2)), np.zeros(1)), eps) == expected


def test_a_point_that_is_misclassified_is_not_robust() -> None:
    assert worst_accuracy(Ring(), points_of(np.array([[3.5, 0.0]]), np.zeros(1)), 0.01) == 0
