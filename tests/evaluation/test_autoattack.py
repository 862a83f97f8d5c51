import copy
import logging
import sys

import pyautoattack
import pytest
import torch
from linear_truth import distance_to_boundary, linear_classifier
from pyautoattack.autopgd_base import APGDAttack
from sklearn.datasets import load_digits
from torch import nn

from pag.classifiers import build
from pag.evaluation import standard
from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.standard import ATTACKS, SURVIVED, Budget, Job, attack, is_broken, reliability_flags
from pag.threat.threat_model import ThreatModel


@pytest.fixture
def small_budgets(monkeypatch):
    """A few iterations instead of 100 and 40 queries instead of 5,000, for AutoAttack's own run and for ours."""
    construct = pyautoattack.AutoAttack.__init__

    def cheaper(self, *args, **kwargs):
        construct(self, *args, **kwargs)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
        self.square.n_queries = 40

    monkeypatch.setattr(pyautoattack.AutoAttack, "__init__", cheaper)


@pytest.fixture
def replace_attacks(monkeypatch):
    """Put stubs, functions from images and labels to examples, in the place of the four attacks."""

    def replace(stub):
        def attacks(model, job, nearest):
            return {name: lambda subset: stub(job.images[subset], job.labels[subset]) for name in job.attacks}

        monkeypatch.setattr(standard, "_attacks", attacks)

    return replace


def grey_images(count, num_classes, seed=0):
    """Images around mid-grey, so that the bounds of a pixel do not bind, with the classifier's own labels."""
    images = 0.5 + 0.1 * torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    classifier = linear_classifier(num_classes, 36)
    return classifier, images, classifier(images).argmax(1)


def evaluate(model, images, labels, radii, **options):
    return evaluate_autoattack(
        model, images, labels, radii, **{"batch_size": 100, "seed": 0, "processes": 1, **options}
    )


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_a_linear_classifier_is_broken_exactly_within_its_distance_to_the_boundary(norm, small_budgets):
    classifier, images, labels = grey_images(40, 10)
    labels[:3] = (labels[:3] + 1) % 10  # misclassified without an attack
    distance = distance_to_boundary(classifier, images, labels, norm)
    ordered = distance[3:].sort().values
    eps = ((ordered[18] + ordered[19]) / 2).item()
    everything = (1.2 * ordered[-1]).item()
    result = evaluate(classifier, images, labels, {norm: [eps, everything]}).by_norm[norm]
    expected = torch.full_like(distance, everything).masked_fill(distance <= eps, eps)
    expected[:3] = 0
    assert torch.equal(result.radius, expected)
    assert result.robust_accuracy(eps) == pytest.approx((distance > eps).double().mean().item())
    assert result.robust_accuracy(everything) == 0
    assert result.broken_by[:3] == ["clean"] * 3
    assert set(result.broken_by[3:]) <= set(ATTACKS)
    threat_model = ThreatModel(norm, everything)
    assert (threat_model.distance(result.x_adv - images) <= result.radius * (1 + 1e-5) + 1e-9).all()
    assert not (classifier(result.x_adv).argmax(1) == labels).any()


def outside_the_ball(images, labels):
    return 1 - images


def not_a_number(images, labels):
    return torch.full_like(images, torch.nan)


def not_misclassified(images, labels):
    return images.clone()


@pytest.mark.parametrize("lie", [outside_the_ball, not_a_number, not_misclassified])
def test_a_lying_attack_breaks_nothing(replace_attacks, lie):
    _, images, labels = grey_images(20, 4)

    class AlwaysWrong(nn.Module):
        """Right on the very images, wrong everywhere else: whatever lies elsewhere would count, were it not checked."""

        def forward(self, x):
            known = (x.flatten(1)[:, None] == images.flatten(1)[None]).all(2)
            labels_of = torch.where(
                known.any(1), labels[known.int().argmax(1)], (labels[known.int().argmax(1)] + 1) % 4
            )
            return 2.0 * nn.functional.one_hot(labels_of, 4) + 0 * x.sum()

    replace_attacks(lie)
    assert not torch.isfinite(evaluate(AlwaysWrong(), images, labels, {"L2": [0.05]}).by_norm["L2"].radius).any()


@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.05), ("Linf", 0.05)])
@pytest.mark.parametrize(
    ("pixel", "example", "counts"),
    [
        (0.5, 0.5, True),
        (0.5, 0.549, True),
        (0.5, 0.551, False),  # outside the ball
        (0.5, 0.449, False),
        (0.0, -0.001, False),  # inside the ball, but not an image
        (1.0, 1.001, False),
        (0.01, 0.0, True),
        (0.99, 1.0, True),
        (0.5, float("nan"), False),
    ],
)
def test_an_example_counts_inside_the_ball_and_inside_the_range(norm, eps, pixel, example, counts):
    images = torch.full((2, 1, 3, 3), 0.5)
    images[0, 0, 1, 1] = pixel
    x_adv = images.clone()
    x_adv[0, 0, 1, 1] = example

    def model(x):
        return torch.tensor([[0.0, 1.0], [0.0, 1.0]])

    broken = is_broken(model, ThreatModel(norm, eps), images, torch.tensor([0, 1]), x_adv)
    assert broken.tolist() == [counts, False]  # the second is classified correctly


def test_radii_may_be_given_in_any_order_and_twice(small_budgets):
    classifier, images, labels = grey_images(30, 10)
    radii = distance_to_boundary(classifier, images, labels, "L2").quantile(torch.tensor([0.3, 0.6, 0.9]).double())
    low, middle, high = radii.tolist()
    ordered = evaluate(classifier, images, labels, {"L2": [low, middle, high]}).by_norm["L2"]
    assert 0 < (ordered.radius == low).sum() < (ordered.radius <= middle).sum() < 30
    shuffled = evaluate(classifier, images, labels, {"L2": [high, low, middle, low]}).by_norm["L2"]
    assert shuffled.eps == ordered.eps == (low, middle, high)
    assert torch.equal(shuffled.radius, ordered.radius)
    assert torch.equal(shuffled.x_adv, ordered.x_adv)
    assert shuffled.broken_by == ordered.broken_by


def test_each_example_is_credited_to_the_attack_that_found_it_and_radii_are_nested(replace_attacks):
    classifier, images, labels = grey_images(30, 10)
    seen = []

    def follow_the_boundary(images, labels):
        seen.append(len(images))
        distance = distance_to_boundary(classifier, images, labels, "L2")
        weight = classifier[1].weight.detach()
        nearest_class = torch.stack(
            [torch.linalg.vector_norm(weight[labels] - weight[j], dim=1) for j in range(10)], dim=1
        )
        margins = classifier(images).gather(1, labels[:, None]) - classifier(images)
        ratio = margins / nearest_class
        ratio[torch.arange(len(labels)), labels] = torch.inf
        direction = weight[ratio.argmin(1)] - weight[labels]
        direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        return (images.flatten(1) + 1.001 * distance[:, None].float() * direction).view_as(images).clamp(0, 1).detach()

    replace_attacks(follow_the_boundary)
    distance = distance_to_boundary(classifier, images, labels, "L2")
    radii = distance.quantile(torch.tensor([0.3, 0.6], dtype=torch.float64)).tolist()
    result = evaluate(classifier, images, labels, {"L2": radii}).by_norm["L2"]
    assert torch.equal(result.radius.isfinite(), distance * 1.001 <= radii[1])
    assert {name for name in result.broken_by if name} == {"apgd-ce"}
    survivors = [int((distance * 1.001 > eps).sum()) for eps in radii]
    # All attacks at the smaller radius; at the larger one only the survivors, and FAB-T not again.
    assert seen == [30] + [survivors[0]] * 3 + [survivors[0]] + [survivors[1]] * 2


def test_fab_runs_once_and_its_distances_answer_for_larger_radii(small_budgets):
    classifier, images, labels = grey_images(30, 10)
    distance = distance_to_boundary(classifier, images, labels, "L2")
    small, large = (0.5 * distance.min()).item(), (1.2 * distance.max()).item()
    first = attack(classifier, Job(ThreatModel("L2", small), images, labels, 10, 0, ATTACKS, Budget()))
    assert (first.broken_by == SURVIVED).all()
    torch.testing.assert_close(first.nearest.distance.double(), distance, rtol=0.1, atol=0)
    without_fab = tuple(name for name in ATTACKS if name != "fab-t")
    later = Job(ThreatModel("L2", large), images, labels, 10, 0, without_fab, Budget())
    assert attack(classifier, later).nearest is None
    nested = evaluate(classifier, images, labels, {"L2": [small, large]}).by_norm["L2"]
    assert nested.broken_by == ["fab-t"] * 30
    assert set(nested.radius.tolist()) == {large}


def test_the_attacks_are_those_of_the_standard_version_with_its_budgets(monkeypatch):
    """As they stand when they are called: each returns the images, so that the next one is called."""
    ran = []

    class Recorded(pyautoattack.AutoAttack):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.note(self.apgd, "perturb", loss="ce", n_iter=100, n_restarts=1)
            self.note(self.apgd_targeted, "perturb", n_iter=100, n_restarts=1, n_target_classes=9)
            self.note(self.fab, "attack_single_run", n_iter=100, n_restarts=1, n_target_classes=9)
            self.note(self.square, "perturb", n_queries=5000, n_restarts=1, p_init=0.8)

        def note(self, part, method, **expected):
            def call(images, labels, **_):
                ran.append(type(part).__name__)
                found = {name: getattr(part, name) for name in ("norm", "eps", *expected)}
                assert found == {"norm": "L2", "eps": 0.1, **expected}
                return images

            setattr(part, method, call)

    monkeypatch.setattr(standard, "AutoAttack", Recorded)
    classifier, images, labels = grey_images(2, 11)
    attack(classifier, Job(ThreatModel("L2", 0.1), images, labels, 11, 0, ATTACKS, Budget()))
    assert ran == ["APGDAttack", "APGDAttack_targeted", *["FABAttack_PT"] * 9, "SquareAttack"]


@pytest.mark.parametrize("steps", [20, 100, 200])
def test_a_budget_of_steps_is_apgd_made_for_as_many(steps, monkeypatch):
    """With its checkpoints, which a change of its number of iterations alone would leave where they were."""
    made = []

    class Recorded(pyautoattack.AutoAttack):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(standard, "AutoAttack", Recorded)
    classifier, images, labels = grey_images(2, 4)
    attack(classifier, Job(ThreatModel("L2", 0.1), images, labels, 4, 0, ("apgd-ce",), Budget(("apgd-ce",), steps, 2)))
    expected = APGDAttack(nn.Identity(), n_iter=steps, eps=0.1)
    for apgd in (made[0].apgd, made[0].apgd_targeted):
        for name in ("n_iter", "n_iter_2", "n_iter_min", "size_decr"):
            assert getattr(apgd, name) == getattr(expected, name)
    assert made[0].apgd_targeted.n_target_classes == made[0].fab.n_target_classes == 2


@pytest.mark.parametrize(("count", "sizes"), [(5, [5]), (12, [6, 6]), (13, [5, 4, 4])])
def test_batches_are_as_few_and_as_equal_as_the_bound_allows(count, sizes, replace_attacks):
    classifier, images, labels = grey_images(count, 4)
    seen = []

    def stub(images, labels):
        seen.append(len(images))
        return images

    replace_attacks(stub)
    evaluate(classifier, images, labels, {"L2": [0.1]}, batch_size=6)
    assert seen == [size for size in sizes for _ in ATTACKS]


def train_digits_cnn():
    raw = load_digits()
    images = torch.tensor(raw.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(raw.target)
    model = build("cnn", 10, (1, 8, 8), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for batch in torch.randperm(1500, generator=generator).split(50):
            noisy = images[batch] + 0.2 * torch.randn(images[batch].shape, generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(noisy), labels[batch]).backward()
            optimizer.step()
    return model, images[1500:], labels[1500:]


@pytest.fixture(scope="module")
def trained():
    return train_digits_cnn()


@pytest.fixture
def digits_cnn(trained):
    """A CNN trained for four epochs on noisy digits, with test images and labels; each test gets its own copy."""
    return copy.deepcopy(trained)


def official_robustness(model, images, labels, norm, eps):
    """Which images survive a run of AutoAttack's own at this radius alone."""
    model.eval().requires_grad_(False)
    with torch.random.fork_rng():
        official = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=0, version="standard")
        x_adv, _ = official.run_standard_evaluation(images, labels, batch_size=100)
    return model(x_adv).argmax(1) == labels


def assert_not_more_optimistic(model, images, labels, radii):
    result = evaluate(model, images, labels, radii)
    survived = []
    for norm, nested in result.by_norm.items():
        for eps in nested.eps:
            official = official_robustness(model, images, labels, norm, eps)
            survived.append(official.sum().item())
            assert not ((nested.radius > eps) & ~official).any(), f"{norm} eps = {eps}"
    return survived


def test_shared_radii_are_not_more_optimistic_than_separate_official_runs(small_budgets, digits_cnn):
    model, images, labels = digits_cnn
    survived = assert_not_more_optimistic(model, images[:50], labels[:50], {"L2": [0.3, 0.6], "Linf": [0.05, 0.1]})
    assert max(survived) > min(survived) > 0


@pytest.mark.slow
def test_the_same_with_full_budgets(digits_cnn):
    model, images, labels = digits_cnn
    assert_not_more_optimistic(model, images[:20], labels[:20], {"L2": [0.3, 0.6], "Linf": [0.05, 0.1]})


@pytest.mark.slow
def test_the_same_on_a_network_of_resnet18_shape(small_budgets):
    model = build("rn18", 10, (3, 16, 16), seed=0).eval()
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    assert_not_more_optimistic(model, images, labels, {"L2": [0.05, 0.2]})


def test_the_model_and_the_random_state_are_left_as_they_were(small_budgets):
    model = nn.Sequential(nn.Dropout(0.5), *linear_classifier(4, 36), nn.BatchNorm1d(4))
    model[3].weight.requires_grad_(False)
    model[3].eval()
    _, images, _ = grey_images(10, 4)
    labels = model.eval()(images).argmax(1)
    model.train()
    model[3].eval()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    evaluate(model, images, labels, {"Linf": [0.01]})
    assert [module.training for module in model] == [True, True, True, False]
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.usefixtures("two_threads")
def test_results_depend_on_the_seed_alone(small_budgets, digits_cnn):
    model, images, labels = digits_cnn
    images, labels, radii = images[:20], labels[:20], {"L2": [0.3, 0.6], "Linf": [0.05]}
    ticks = []
    once = evaluate(model, images, labels, radii, batch_size=12, progress=lambda *counts: ticks.append(counts))
    again = evaluate(model, images, labels, radii, batch_size=12)
    for norm in radii:
        assert torch.equal(once.by_norm[norm].x_adv, again.by_norm[norm].x_adv)
    assert ticks == sorted(ticks)
    held = sum((once.by_norm[norm].radius > eps).sum().item() for norm, values in radii.items() for eps in values)
    assert ticks[-1] == (60, 60, held)


def test_progress_is_complete_where_earlier_examples_settle_the_last_radius(small_budgets):
    """No attack runs at the larger radius: FAB-T's examples from the smaller one, which nothing broke, decide it."""
    classifier, images, labels = grey_images(12, 4)
    distance = distance_to_boundary(classifier, images, labels, "L2")
    radii, ticks = [0.5 * distance.min().item(), 2 * distance.max().item()], []
    result = evaluate(classifier, images, labels, {"L2": radii}, progress=lambda *counts: ticks.append(counts))
    assert result.by_norm["L2"].broken_by == ["fab-t"] * 12
    assert ticks == [(0, 24, 0), (12, 24, 12), (24, 24, 12)]


def test_two_processes_give_what_one_gives():
    classifier, images, labels = grey_images(12, 4)
    everything = 1.2 * distance_to_boundary(classifier, images, labels, "L2").max().item()
    radii = {"L2": [everything, 2 * everything], "Linf": [1.0]}
    here = evaluate(classifier, images, labels, radii)
    elsewhere = evaluate(classifier, images, labels, radii, processes=2)
    for norm in radii:
        assert torch.equal(here.by_norm[norm].radius, elsewhere.by_norm[norm].radius)
        assert here.by_norm[norm].broken_by == elsewhere.by_norm[norm].broken_by


def test_an_interrupted_evaluation_resumes_from_its_scratch_folder(
    small_budgets, replace_attacks, digits_cnn, tmp_path
):
    model, images, labels = digits_cnn
    arguments = (model, images[:30], labels[:30], {"L2": [0.3, 0.6]})

    def kill(done, total, held):
        if done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(*arguments, batch_size=15, cache=tmp_path, progress=kill)
    finished = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(finished) >= 2
    resumed = evaluate(*arguments, batch_size=15, cache=tmp_path)
    assert finished.items() <= {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}.items()
    assert torch.equal(resumed.by_norm["L2"].radius, evaluate(*arguments, batch_size=15).by_norm["L2"].radius)

    replace_attacks(lambda images, labels: pytest.fail("everything is in the folder"))
    evaluate(*arguments, batch_size=15, cache=tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    with pytest.raises(pytest.fail.Exception):
        evaluate(*arguments, batch_size=15, cache=tmp_path)


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = linear_classifier(4, 36)

    def forward(self, x):
        return self.linear(x).softmax(1)


class Randomised(Probabilities):
    def forward(self, x):
        return self.linear(x) + torch.randn(len(x), 4)


class Optimising(Probabilities):
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.linear(x).sum(), x)
        return self.linear(x - gradient)


@pytest.mark.parametrize(
    ("defence", "flag"),
    [
        (Probabilities, "probability distribution, whose gradient vanishes where the model is sure: return the logits"),
        (Randomised, "randomized defense! Its accuracies are of single passes, which flatters it"),
        (Optimising, "dynamic defense"),
    ],
)
def test_unreliable_defences_are_flagged_each_for_itself(defence, flag, caplog):
    _, images, labels = grey_images(10, 4)
    tracer = sys.gettrace()
    found = reliability_flags(defence(), images, labels)
    assert len(found) == 1
    assert flag in found[0]
    assert reliability_flags(linear_classifier(4, 36), images, labels) == []  # the library's counters are not sticky
    assert sys.gettrace() is tracer
    assert not caplog.records
    assert not logging.getLogger("auto-attack").handlers


def test_warnings_of_the_attacks_and_of_square_reach_the_result(replace_attacks):
    classifier, images, labels = grey_images(10, 10)

    def complain(images, labels):
        logging.getLogger("auto-attack").warning(
            "there are %d points with zero gradient! See x for details.", len(images)
        )
        return images

    replace_attacks(complain)
    warnings = evaluate(classifier, images, labels, {"Linf": [0.01, 0.02]}).warnings
    assert warnings == [f"Linf eps = {eps}: there are points with zero gradient!" for eps in (0.01, 0.02)]


def test_square_is_flagged_where_it_gains_more_than_the_gradient_attacks(monkeypatch):
    classifier, images, labels = grey_images(10, 10)
    examples = evaluate(classifier, images, labels, {"L2": [5.0]}).by_norm["L2"].x_adv

    def only_square(model, job, nearest):
        return {**dict.fromkeys(ATTACKS, lambda subset: job.images[subset]), "square": lambda subset: examples[subset]}

    monkeypatch.setattr(standard, "_attacks", only_square)
    (flag,) = evaluate(classifier, images, labels, {"L2": [5.0]}).warnings
    assert "Square Attack has decreased the robust accuracy of 100.00%" in flag


@pytest.mark.parametrize(("num_classes", "notes"), [(2, 2), (3, 2), (4, 1), (10, 0)])
def test_few_classes_are_attacked_and_the_departure_is_stated(num_classes, notes, small_budgets):
    classifier, images, labels = grey_images(20, num_classes)
    distance = distance_to_boundary(classifier, images, labels, "L2")
    result = evaluate(classifier, images, labels, {"L2": [1.5 * distance.max().item()]})
    assert result.by_norm["L2"].robust_accuracy(1.5 * distance.max().item()) == 0
    assert len(result.notes) == notes and result.warnings == []
    assert all(f"{num_classes - 1} target classes per image instead of 9" in note for note in result.notes[:1])


def test_bad_arguments_are_refused_in_one_line():
    classifier, images, labels = grey_images(5, 4)
    with pytest.raises(ValueError, match="5 images and 4 labels"):
        evaluate(classifier, images, labels[:4], {"L2": [0.1]})
    with pytest.raises(ValueError, match="at least one"):
        evaluate(classifier, images[:0], labels[:0], {"L2": [0.1]})
    with pytest.raises(ValueError, match=r"eps = -0\.1 for L2"):
        evaluate(classifier, images, labels, {"L2": [-0.1]})
    misclassified = evaluate(classifier, images, (labels + 1) % 4, {"L2": [0.1]}).by_norm["L2"]
    assert misclassified.robust_accuracy(0.1) == 0
    with pytest.raises(ValueError, match=r"eps = 0.2 was not attacked: expected one of 0.1"):
        misclassified.robust_accuracy(0.2)


def test_a_budget_of_which_nothing_could_run_is_refused():
    classifier, images, labels = grey_images(5, 3)
    with pytest.raises(ValueError, match="attacks are apgd-t, apgd-t: expected each once"):
        Budget(("apgd-t", "apgd-t"))
    with pytest.raises(ValueError, match="attacks are apgd-t alone, which needs 4 classes: the model has 3"):
        evaluate(classifier, images, labels, {"L2": [5.0]}, budget=Budget(["apgd-t"]))
