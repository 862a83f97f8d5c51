import pytest
import torch
from linear_truth import distance_to_boundary, linear_classifier
from torch.nn import functional as F

from pag.evaluation.pictures import large_eps_grid
from pag.threat.pgd import pgd
from pag.threat.threat_model import ThreatModel


def images_and_labels(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.randint(0, 2, (shape[0],), generator=generator)


@pytest.mark.parametrize("with_start", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.3), ("L2", 0.8), ("Linf", 0.03), ("Linf", 0.1)])
@pytest.mark.parametrize("shape", [(400, 2), (400, 1, 6, 6)])
def test_robust_accuracy_of_a_linear_classifier_is_exact(shape, norm, eps, with_start):
    # Two classes: an image survives if its margin exceeds eps · ‖w‖ in the dual norm (L1 for Linf, L2 for L2).
    images, labels = images_and_labels(shape)
    classifier = linear_classifier(2, images[0].numel())
    generator = torch.Generator().manual_seed(1) if with_start else None
    x_adv = pgd(classifier, images, labels, ThreatModel(norm, eps), 40, eps / 4, generator, bounds=None)
    survived = classifier(x_adv).argmax(1) == labels
    distance = distance_to_boundary(classifier, images, labels, norm)
    clear = (distance - eps).abs() > 0.01 * eps  # 40 steps from a random start come within a hundredth of the optimum
    assert clear.double().mean() > 0.95
    assert 0 < survived.sum() < len(labels)
    assert torch.equal(survived[clear], (distance > eps)[clear])


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("targeted", [False, True])
def test_examples_stay_in_the_ball_and_in_the_bounds_and_carry_no_graph(norm, targeted):
    images, labels = images_and_labels((50, 3, 5, 5))
    images[:10] = images[:10].round()  # pixels at both bounds
    threat_model = ThreatModel(norm, 0.4)
    classifier = linear_classifier(2, 75)
    x_adv = pgd(classifier, images, labels, threat_model, 5, 0.3, torch.Generator().manual_seed(0), targeted=targeted)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (threat_model.distance(x_adv - images) <= 0.4 * (1 + 1e-5)).all()
    assert not x_adv.requires_grad
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_targeted_attack_moves_towards_the_target():
    images, labels = images_and_labels((100, 1, 5, 5))
    classifier = linear_classifier(2, 25)
    before = F.cross_entropy(classifier(images), labels, reduction="none")
    x_adv = pgd(classifier, images, labels, ThreatModel("L2", 0.5), 10, 0.1, targeted=True)
    assert (F.cross_entropy(classifier(x_adv), labels, reduction="none") < before).all()


def test_the_kl_attack_raises_the_divergence_from_the_clean_prediction():
    images, labels = images_and_labels((100, 1, 5, 5))
    classifier = linear_classifier(4, 25)
    threat_model, clean = ThreatModel("Linf", 0.1), F.log_softmax(classifier(images), dim=1)

    def divergence(examples):
        predicted = F.log_softmax(classifier(examples), dim=1)
        return F.kl_div(predicted, clean, reduction="none", log_target=True).sum(1).detach()

    start = images + threat_model.random_start(images.shape, torch.Generator().manual_seed(3))
    x_adv = pgd(classifier, images, labels, threat_model, 10, 0.03, torch.Generator().manual_seed(3), loss="kl")
    assert (divergence(x_adv) >= divergence(start.clamp(0, 1))).double().mean() > 0.98
    other_labels = pgd(
        classifier, images, 1 - labels, threat_model, 10, 0.03, torch.Generator().manual_seed(3), loss="kl"
    )
    assert torch.equal(x_adv, other_labels)


def test_an_image_is_attacked_alike_whatever_batch_it_is_in():
    images, labels = images_and_labels((20, 1, 5, 5))
    classifier = linear_classifier(2, 25)
    together = pgd(classifier, images, labels, ThreatModel("L2", 0.5), 10, 0.1)
    alone = pgd(classifier, images[3:4], labels[3:4], ThreatModel("L2", 0.5), 10, 0.1)
    torch.testing.assert_close(alone, together[3:4])


def test_a_step_is_one_forward_pass_and_works_where_gradients_are_off():
    images, labels = images_and_labels((4, 1, 5, 5))
    classifier, calls = linear_classifier(2, 25), []

    def counting(x):
        calls.append(len(x))
        return classifier(x)

    with torch.no_grad():
        x_adv = pgd(counting, images, labels, ThreatModel("L2", 0.5), 7, 0.1)
    assert len(calls) == 7
    assert not torch.equal(x_adv, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "step_size": 0.1}, "expected steps >= 1"),
        ({"steps": 3, "step_size": 0.0}, "step_size > 0"),
        ({"steps": 3, "step_size": 0.1, "loss": "kl"}, "give a generator"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(options, message):
    images, labels = images_and_labels((4, 1, 5, 5))
    with pytest.raises(ValueError, match=message) as error:
        pgd(linear_classifier(2, 25), images, labels, ThreatModel("L2", 0.5), **options)
    assert "\n" not in str(error.value)


def test_large_eps_grid_has_one_image_per_class_that_is_taken_for_it():
    images, _ = images_and_labels((6, 1, 5, 5))
    classifier = linear_classifier(3, 25)
    grid = large_eps_grid(classifier, images, eps=4.0, steps=30, num_classes=3)
    assert grid.shape == (6, 3, 1, 5, 5)
    assert grid.min() >= 0
    assert grid.max() <= 1
    assert torch.equal(classifier(grid.flatten(0, 1)).argmax(1).view(6, 3), torch.arange(3).expand(6, 3))
