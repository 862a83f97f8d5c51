import json

import numpy as np
import pytest
import torch
from linear_truth import distance_to_boundary, linear_classifier
from torch import nn

from pag.attacks.evaluation import balanced_subset, clean_accuracy, evaluate
from pag.config.conf import EvaluationConfig


@pytest.mark.parametrize("n", [1, 7, 30, 45, 59, 60])
def test_a_subset_is_balanced_deterministic_and_nested(n):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 10))
    subset = balanced_subset(labels, n)
    assert len(np.unique(subset)) == n
    assert (np.diff(subset) > 0).all()
    counts = np.bincount(labels[subset], minlength=6)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(subset, balanced_subset(labels, n))
    assert set(subset) <= set(balanced_subset(labels, 60))
    for label in np.unique(labels[subset]):
        first = np.flatnonzero(labels == label)[: counts[label]]
        assert np.array_equal(subset[labels[subset] == label], first)


def test_small_classes_are_taken_whole():
    labels = np.array([0] * 2 + [1] * 10 + [2] * 10)
    assert np.bincount(labels[balanced_subset(labels, 12)]).tolist() == [2, 5, 5]


@pytest.mark.parametrize("n", [0, 11])
def test_an_impossible_subset_is_refused(n):
    with pytest.raises(ValueError, match=f"a subset of {n} images .* between 1 and 10"):
        balanced_subset(np.arange(10), n)


def test_clean_accuracy_is_that_of_eval_mode():
    classifier = nn.Sequential(linear_classifier(3, 4), nn.Dropout(0.99))
    classifier.train()
    images = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = classifier[0](images).argmax(1)
    labels[:6] = (labels[:6] + 1) % 3
    assert clean_accuracy(classifier, images, labels, batch_size=7) == pytest.approx(0.8)
    assert classifier.training


def test_metrics_are_fractions_with_the_agreed_keys_and_survive_json():
    classifier = linear_classifier(10, 36)
    images = 0.5 + 0.1 * torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = classifier(images).argmax(1)
    labels[:6] = (labels[:6] + 1) % 10
    everything = round(1.5 * distance_to_boundary(classifier, images, labels, "L2").max().item(), 3)
    config = EvaluationConfig.model_validate(
        {
            "threat_models": {"L2": [everything, 2 * everything], "Linf": [1.0]},
            "images": 20,
            "foolbox": {"BinarySearchContrastReductionAttack": None, "L0FMNAttack": 2.0},
            "large_eps": {"eps": 3.0},
        }
    )
    evaluation = evaluate(classifier, images, labels, config, seed=0)
    metrics = json.loads(json.dumps(evaluation.metrics, allow_nan=False))
    assert metrics["clean_accuracy"] == pytest.approx(54 / 60)
    assert (metrics["n_clean"], metrics["n_examples"]) == (60, 20)
    assert metrics["robust_accuracy"] == {"L2": {str(everything): 0.0, str(2 * everything): 0.0}, "Linf": {"1.0": 0.0}}
    assert metrics["autoattack_warnings"] == []
    assert set(metrics["foolbox"]) == {"BinarySearchContrastReductionAttack", "L0FMNAttack"}
    assert metrics["foolbox"]["L0FMNAttack"]["eps"] == 2.0
    assert metrics["foolbox"]["L0FMNAttack"]["distance"] == "L0"
    assert 0 <= metrics["foolbox"]["L0FMNAttack"]["accuracy"] <= 1
    assert torch.equal(evaluation.subset, torch.from_numpy(balanced_subset(labels.numpy(), 20)))
    assert len(evaluation.autoattack.by_norm["L2"].x_adv) == 20
