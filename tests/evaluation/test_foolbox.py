from functools import partial

import foolbox as library
import pytest
import torch
from linear_truth import distance_to_boundary, linear_classifier

from pag.evaluation import foolbox
from pag.evaluation.evaluate import evaluate
from pag.evaluation.foolbox import ATTACKS, FoolboxResult, evaluate_foolbox
from pag.evaluation.standard import Budget, quick
from pag.foundation.config.section import ConfigError


def problem(count=12, num_classes=10):
    images = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    classifier = linear_classifier(num_classes, 36)
    return classifier, images, classifier(images).argmax(1)


class Shifted(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, logits):
        return logits + self.by


@pytest.fixture
def short_ead(monkeypatch):
    monkeypatch.setitem(ATTACKS, "EADAttack", ("L1", partial(library.attacks.EADAttack, steps=20), ("steps",)))


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_runs_and_its_distances_are_possible(name, short_ead):
    classifier, images, labels = problem()
    labels[0] = (labels[0] + 1) % 10
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    result = evaluate_foolbox(classifier, images, labels, {name: None}, batch_size=5, seed=0)[name]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert result.distances[0] == 0  # misclassified as it is
    # L1FMN approaches a flat boundary from inside and may never cross it; the others find something.
    assert name == "L1FMNAttack" or result.distances[1:].isfinite().any()
    # Nothing is shorter than the way to the boundary in L2, and so in L1, which is never smaller.
    shortest = distance_to_boundary(classifier, images, labels, "L2")[1:]
    if result.distance_name == "L0":
        assert torch.equal(result.distances, result.distances.round())
        shortest = torch.ones_like(shortest)
    assert (result.distances[1:] >= shortest * 0.999).all()
    again = evaluate_foolbox(classifier, images, labels, {name: None}, batch_size=5, seed=0)[name]
    assert torch.equal(again.distances, result.distances)


def test_an_image_that_no_number_of_pixels_breaks_is_robust_to_l0(short_ead):
    _, images, labels = problem()
    scores = torch.full((10,), -100.0).scatter(0, labels[:1], 100.0)
    model = torch.nn.Sequential(linear_classifier(10, 36), Shifted(scores))  # far from every other class
    result = evaluate_foolbox(model, images[:1], labels[:1], {"L0FMNAttack": None}, batch_size=1, seed=0)
    assert result["L0FMNAttack"].distances.isinf().all()


def test_an_interrupted_evaluation_resumes_from_its_scratch_folder(short_ead, monkeypatch, tmp_path):
    classifier, images, labels = problem()
    attacks = {"SaltAndPepperNoiseAttack": None, "EADAttack": None}
    expected = evaluate_foolbox(classifier, images, labels, attacks, batch_size=5, seed=0)
    calls = []
    whole = foolbox._distances

    def killed(*arguments):
        calls.append(arguments[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(foolbox, "_distances", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_foolbox(classifier, images, labels, attacks, batch_size=5, seed=0, cache=tmp_path)
    resumed = evaluate_foolbox(classifier, images, labels, attacks, batch_size=5, seed=0, cache=tmp_path)
    assert calls == 4 * ["SaltAndPepperNoiseAttack"] + 3 * ["EADAttack"]  # two of three batches were kept
    for name, result in expected.items():
        assert torch.equal(resumed[name].distances, result.distances)
        assert resumed[name].warnings == result.warnings
    with torch.no_grad():
        next(classifier.parameters()).add_(0.01)
    evaluate_foolbox(classifier, images, labels, attacks, batch_size=5, seed=0, cache=tmp_path)
    assert len(calls) == 7 + 6  # nothing of other weights is taken up


def test_accuracy_counts_images_without_an_example_within_eps():
    distances = torch.tensor([0.0, 0.5, 1.0, torch.inf])
    assert FoolboxResult("L2", distances, 0.5, []).accuracy == 0.5
    assert FoolboxResult("L2", distances, 0.4, []).accuracy == 0.75
    assert FoolboxResult("L2", distances, None, []).accuracy == 0.25
    assert FoolboxResult("L2", distances, None, []).median_distance == 0.5
    assert FoolboxResult("L2", torch.full((3,), torch.inf), 1.0, []).median_distance is None


def test_an_attack_that_returns_nothing_adversarial_finds_nothing(monkeypatch):
    classifier, images, labels = problem()

    class Lying:
        def __call__(self, model, inputs, labels, epsilons):
            return inputs.clone(), inputs.clone(), torch.ones(len(inputs), dtype=torch.bool)

    monkeypatch.setitem(foolbox.ATTACKS, "EADAttack", ("L1", Lying, ()))
    result = evaluate_foolbox(classifier, images, labels, {"EADAttack": 1.0}, batch_size=100, seed=0)["EADAttack"]
    assert result.accuracy == 1
    assert result.distances.isinf().all()


@pytest.mark.parametrize(("distance", "expected"), [("L0", 2.0), ("L1", 0.7), ("L2", 0.5)])
def test_a_distance_is_that_of_its_norm(monkeypatch, distance, expected):
    images, labels = torch.full((1, 1, 6, 6), 0.5), torch.zeros(1, dtype=torch.long)
    changed = images.clone()
    changed[0, 0, 0, :2] += torch.tensor([0.3, -0.4])  # two pixels

    def moved(target, inputs, labels, epsilons):
        return changed, changed, torch.ones(1, dtype=torch.bool)

    monkeypatch.setitem(ATTACKS, "EADAttack", (distance, lambda: moved, ()))

    class FirstPixel(torch.nn.Module):
        def forward(self, images):
            return torch.stack([0.6 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.6], 1)

    found = evaluate_foolbox(FirstPixel(), images, labels, {"EADAttack": None}, batch_size=1, seed=0)["EADAttack"]
    assert found.distances.tolist() == pytest.approx([expected])


def test_an_unknown_attack_is_refused_with_the_nearest_name():
    classifier, images, labels = problem()
    with pytest.raises(ConfigError, match=r"unknown Foolbox attack 'EADAtack', did you mean 'EADAttack'\?"):
        evaluate_foolbox(classifier, images, labels, {"EADAtack": 1.0}, batch_size=100, seed=0)


@pytest.mark.parametrize(
    ("attack", "steps"), [(Budget(), None), (Budget(("apgd-ce",), 7), None), (Budget(steps=200), None), (quick(3), 3)]
)
def test_a_quick_evaluation_alone_shortens_the_attacks(attack, steps, monkeypatch, few_iterations):
    given = []

    def make(**budget):
        given.append(budget)
        return library.attacks.SaltAndPepperNoiseAttack(steps=1)

    monkeypatch.setitem(ATTACKS, "SaltAndPepperNoiseAttack", ("L2", make, ("steps",)))
    asked = {"attack": attack, "foolbox": {"SaltAndPepperNoiseAttack": None}}
    evaluate(*problem(2), {"Linf": [0.01]}, **asked)
    assert given == [{} if steps is None else {"steps": steps}]


def test_a_warning_of_every_batch_is_named_once():
    images, labels = torch.rand(5, 1, 6, 6), torch.zeros(5, dtype=torch.long)
    name = "LinearSearchBlendedUniformNoiseAttack"

    class Unmoved(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([2.0, 0.0]) + 0 * images.flatten(1)[:, :2]

    found = evaluate_foolbox(Unmoved(), images, labels, {name: None}, batch_size=3, seed=0)[name].warnings
    assert [text for text in found if "draw" in text] == [
        f"{name} failed to draw sufficient random inputs that are adversarial."
    ]
