"""Inputs and models with which a robust accuracy would flatter: refused in one line, or named in the warnings."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from linear_truth import linear_classifier
from torch import Tensor, nn

from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.evaluate import evaluate
from pag.evaluation.foolbox import evaluate_foolbox
from pag.evaluation.standard import quick
from pag.foundation.allocator import out_of_memory

RADII = {"Linf": [0.3]}


def centred_classifier(num_classes: int) -> nn.Sequential:
    """Linear, with all logits equal at mid-grey, so that every class is predicted for some images."""
    classifier = linear_classifier(num_classes, 36)
    with torch.no_grad():
        classifier[1].bias.copy_(-0.5 * classifier[1].weight.sum(1))
    return classifier


LINEAR = centred_classifier(4)
IMAGES = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = LINEAR(IMAGES).argmax(1)


def by_evaluate(model, images, labels):
    return evaluate(model, images, labels, RADII, attack=quick(), batch_size=8).warnings


def by_autoattack(model, images, labels):
    return evaluate_autoattack(model, images, labels, RADII, batch_size=8, seed=0, budget=quick()).warnings


def by_foolbox(model, images, labels):
    attacks = {"BinarySearchContrastReductionAttack": 1.0}
    return evaluate_foolbox(model, images, labels, attacks, batch_size=8, seed=0)[next(iter(attacks))].warnings


EVALUATIONS = pytest.mark.parametrize("measure", [by_evaluate, by_autoattack, by_foolbox])


def with_pixel(value: float) -> Tensor:
    images = IMAGES.clone()
    images[3, 0, 2, 2] = value
    return images


@EVALUATIONS
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (2 * IMAGES - 1, LABELS, r"images reach from -0\.99\d+ to 0\.99\d+: expected \[0, 1\]"),
        (255 * IMAGES, LABELS, r"images reach from .* to 25\d.*: expected \[0, 1\]; divide 8-bit values by 255"),
        ((255 * IMAGES).byte(), LABELS, r"images are torch.uint8: expected floats"),
        (with_pixel(1.01), LABELS, r"to 1\.01: expected \[0, 1\]"),
        (with_pixel(torch.nan), LABELS, r"1 of \d+ images hold NaN or infinity"),
        (with_pixel(torch.inf), LABELS, r"1 of \d+ images hold NaN or infinity"),
        (IMAGES[:, 0], LABELS, r"shape \(20, 6, 6\): expected \(N, C, H, W\); images\[:, None\]"),
        (IMAGES, LABELS[:19], r"got 20 images and 19 labels"),
        (IMAGES[:0], LABELS[:0], r"got 0 images and 0 labels: expected as many, at least one"),
        (IMAGES, LABELS.float(), r"labels are torch.float32 .*expected integers"),
        (IMAGES, nn.functional.one_hot(LABELS, 4), r"labels are torch.int64 of shape \(20, 4\)"),
        (IMAGES, LABELS - 1, "labels reach down to -1: expected classes from 0 on"),
        (IMAGES, LABELS + 4, "labels reach up to 7: the model has 4 classes, expected 0 to 3"),
        (IMAGES.numpy(), LABELS, r"images are a ndarray: expected a tensor"),
        (IMAGES, LABELS.tolist(), r"labels are a list: expected a tensor"),
    ],
)
def test_images_and_labels_are_refused_in_one_line(measure, images, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        measure(LINEAR, images, labels)
    assert "\n" not in str(error.value)


def test_the_same_network_has_no_robust_image():
    assert evaluate(LINEAR, IMAGES, LABELS, RADII, attack=quick()).robust_accuracy["Linf"][0.3] == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_other_integers_count_as_the_same(dtype):
    found = evaluate(LINEAR, IMAGES, LABELS.to(dtype), {"Linf": [0.02]}, attack=quick())
    expected = evaluate(LINEAR, IMAGES, LABELS, {"Linf": [0.02]}, attack=quick())
    assert torch.equal(found.by_norm["Linf"].radius, expected.by_norm["Linf"].radius)
    assert found.clean_accuracy == 1


class Changed(nn.Module):
    """The linear classifier with its logits changed."""

    def __init__(self, change) -> None:
        super().__init__()
        self.linear, self.change = centred_classifier(4), change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.linear(images), images)


def no_grad(logits: Tensor, images: Tensor) -> Tensor:
    with torch.no_grad():
        return LINEAR(images)


def raising(error: Exception):
    def change(logits: Tensor, images: Tensor) -> Tensor:
        raise error

    return change


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ({}, r"radii are \{\}: expected norms and their radii"),
        ([0.5], r"radii are \[0.5\]: expected norms"),
        ({"L1": [0.5]}, r"the norm 'L1': expected L2 or Linf"),
        ({"L2": 0.5}, r"radii of L2 are 0.5: expected a list of numbers"),
        ({"L2": []}, r"radii of L2 are \[\]: expected a list of numbers"),
        ({"L2": ["0.5"]}, r"radii of L2 are \['0.5'\]: expected a list of numbers"),
        ({"L2": "0.5"}, r"radii of L2 are '0.5'"),
        ({"L2": [True]}, r"radii of L2 are \[True\]: expected a list of numbers"),
        ({"L2": [0.5, 0]}, "radii of L2 hold 0: leave it out, the clean accuracy is measured in any case"),
        ({"L2": [0.5, torch.nan]}, r"eps = nan for L2: expected above 0"),
        ({"L2": [-0.5]}, r"eps = -0.5 for L2"),
        ({"L2": [128]}, r"eps = 128.0 for L2: expected above 0 and at most 6"),
        ({"Linf": [8]}, r"eps = 8.0 for Linf: expected above 0 and at most 1"),
    ],
)
def test_radii_are_refused_in_one_line(radii, message):
    with pytest.raises(ValueError, match=message) as error:
        evaluate(LINEAR, IMAGES, LABELS, radii, attack=quick())
    assert "\n" not in str(error.value)


def test_radii_of_any_sequence_and_order_are_the_same():
    found = evaluate(LINEAR, IMAGES, LABELS, {"Linf": np.array([0.3, 0.02], np.float64)}, attack=quick())
    expected = evaluate(LINEAR, IMAGES, LABELS, {"Linf": (0.02, 0.3, 0.3)}, attack=quick())
    assert found.robust_accuracy == expected.robust_accuracy


@EVALUATIONS
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Changed(lambda z, x: (z, x)), r"returns a tuple: expected a tensor .*, wrap it: lambda images: .*\[0\]"),
        (Changed(lambda z, x: SimpleNamespace(logits=z)), r"returns a SimpleNamespace: .*lambda images: .*\.logits"),
        (Changed(lambda z, x: {"z": z}), r"the model returns a dict: .*with one of z"),
        (
            Changed(lambda z, x: z.detach().numpy()),
            r"returns a ndarray: expected a tensor of logits .* of PyTorch",
        ),
        (Changed(lambda z, x: z[:, 0]), r"the model returns shape \(8,\) for 8 images"),
        (Changed(lambda z, x: z[:1]), r"the model returns shape \(1, 4\) for 8 images"),
        (Changed(lambda z, x: z[:, :1]), r"the model returns shape \(8, 1\) for 8 images"),
        (
            Changed(lambda z, x: z * torch.tensor([1, 1, torch.nan, 1])),
            r"NaN or infinite on 8 of 8 images, in classes 2:",
        ),
        (Changed(lambda z, x: z / 0), r"NaN or infinite on 8 of 8 images, in classes 0, 1, 2, 3"),
        (Changed(lambda z, x: z.detach()), r"the model gives no gradient"),
        (Changed(no_grad), r"the model gives no gradient"),
        (Changed(lambda z, x: nn.functional.one_hot(z.argmax(1), 4).float()), r"the model gives no gradient"),
        (Changed(lambda z, x: z.softmax(1)), r"the model returns probabilities, whose gradient vanishes"),
        (Changed(lambda z, x: (100 * z).softmax(1)), r"the model returns probabilities, whose gradient vanishes"),
        (Changed(lambda z, x: z.argmax(1)), r"the model returns shape \(8,\)"),
        (
            Changed(lambda z, x: nn.functional.one_hot(z.argmax(1), 4)),
            r"returns torch.int64: expected logits in float32",
        ),
        (Changed(lambda z, x: z.half()), r"returns torch.float16: expected logits in float32"),
        (linear_classifier(4, 36).double(), r"1.weight is torch.float64: expected float32, call model.float\(\)"),
        (linear_classifier(4, 36).half(), r"1.weight is torch.float16"),
        (linear_classifier(4, 30), r"the model fails on images \(8, 1, 6, 6\) float32 in \[0, 1\]: .*mat1 and mat2"),
        (Changed(lambda z, x: z + x.sub_(0.5).sum()), r"the model fails on images .*in-place"),
        (
            Changed(lambda z, x: z + 0 * x.data.mul_(0.5).sum()),
            "the model changes its input in place: expected images",
        ),
        (Changed(lambda z, x: {}["logits"]), r"the model fails on images .*: KeyError: 'logits'$"),
        (Changed(raising(AssertionError())), r"the model fails on images .*: AssertionError$"),
        (Changed(raising(RuntimeError("\n  wide\n"))), r"the model fails on images .*: RuntimeError: wide$"),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36, track_running_stats=False), nn.Linear(36, 4)),
            r"the model fails on images \(1, 1, 6, 6\) .*: Expected more than 1 value per channel",
        ),
    ],
)
def test_models_are_refused_in_one_line(measure, model, message):
    with pytest.raises(ValueError, match=message) as error:
        measure(model, IMAGES, LABELS)
    assert "\n" not in str(error.value)


def test_channels_that_are_last_are_pointed_out():
    images = torch.rand(2, 6, 6, 3)
    with pytest.raises(ValueError, match=r"are the channels last\? expected \(N, C, H, W\): images.permute"):
        by_autoattack(nn.Sequential(nn.Conv2d(3, 4, 6), nn.Flatten()), images, torch.tensor([0, 1]))


def test_logits_that_are_positive_are_no_probabilities():
    """One image of them may sum to 1, not all; and what sums to 1 is none below 0."""

    def shares(z: Tensor, x: Tensor) -> Tensor:
        positive = z.exp()
        return positive / positive.sum(1)[0]  # of the first image 1

    for change in (shares, lambda z, x: z + (1 - z.sum(1, keepdim=True)) / 4 - torch.tensor([9, -9, 0, 0])):
        by_autoattack(Changed(change), IMAGES, LABELS)


@pytest.mark.parametrize("measure", [by_autoattack, by_foolbox])
def test_too_little_memory_is_not_the_models_fault(measure):
    """The allocator's own error, which the stage explains."""
    with pytest.raises(RuntimeError) as caught:
        measure(Changed(lambda z, x: z + torch.empty(2**58).sum()), IMAGES, LABELS)
    assert out_of_memory(caught.value)


def test_a_function_of_a_module_in_training_mode_is_refused():
    network = centred_classifier(4).train()

    def logits(images: Tensor) -> Tensor:
        return network(images)

    class Callable:
        def __init__(self) -> None:
            self.networks = [network]

        def __call__(self, images: Tensor) -> Tensor:
            return self.networks[0](images)

    def called(model, images: Tensor) -> Tensor:
        return model(images)

    for function in (logits, network.forward, Callable(), partial(called, network)):
        with pytest.raises(ValueError, match=r"Sequential in training mode: call its \.eval\(\) first"):
            evaluate(function, IMAGES, LABELS, RADII, attack=quick())
    network.eval()
    assert evaluate(logits, IMAGES, LABELS, RADII, attack=quick()).clean_accuracy == 1


def test_a_module_with_the_name_of_an_attribute_is_not_the_functions(monkeypatch):
    monkeypatch.setitem(globals(), "scores", nn.Linear(3, 3).train())
    holder = SimpleNamespace(scores=LINEAR.eval())
    assert evaluate(lambda images: 2 * holder.scores(images), IMAGES, LABELS, RADII, attack=quick()).clean_accuracy == 1


class Normalised(nn.Module):
    """Normalises by the batch it gets, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(1, track_running_stats=False), linear_classifier(4, 36)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.norm(images))


@EVALUATIONS
@pytest.mark.parametrize(
    ("model", "warning"),
    [
        (Normalised(), "depend on the other images of its batch"),
        (Changed(lambda z, x: z + (x - x).flatten(1).norm(dim=1, keepdim=True)), None),
        (
            Changed(lambda z, x: z + (x - x.detach()).flatten(1).abs().sum(1, keepdim=True).sqrt()),
            "NaN input gradients on 20",
        ),
        (Changed(lambda z, x: LINEAR(x.detach()) + 0 * x.sum()), "the input gradient is zero on every image"),
        (Changed(lambda z, x: 1e5 * z), "attacked after division by"),
    ],
)
def test_doubtful_models_are_named(measure, model, warning):
    warnings = measure(model, IMAGES, model(IMAGES).argmax(1))
    expected = [text for text in warnings if warning and warning in text]
    assert len(expected) == (warning is not None)
    ours = ("other images", "NaN input", "gradient is zero on", "division by")
    assert len([text for text in warnings if any(part in text for part in ours)]) == len(expected)


@EVALUATIONS
@pytest.mark.parametrize(
    ("true", "predicted", "named"),
    [
        ([0, 1, 2, 3], [1, 2, 3, 0], "0.0%, and naming the most frequent class gives 25.0%"),
        ([0, 1, 2, 3], [0, 0, 0, 0], "25.0%, and naming the most frequent class gives 25.0%"),
        ([0, 1, 1, 1], [0, 1, 1, 2], "75.0%, and naming the most frequent class gives 75.0%"),
        ([0, 1, 2, 3], [0, 1, 0, 0], None),
        ([2, 2, 2, 2], [0, 1, 2, 3], None),  # of one class there is no other to name
    ],
)
def test_accuracy_at_chance_is_named(measure, true, predicted, named):
    class Told(nn.Module):
        """The first pixel of an image tells the class that is predicted."""

        def forward(self, x: Tensor) -> Tensor:
            return -(10 * x[:, 0, 0, :1] - torch.arange(4.0)).square()

    images = torch.full((4, 1, 6, 6), 0.5)
    images[:, 0, 0, 0] = 0.1 * torch.tensor(predicted)
    warnings = [text for text in measure(Told(), images, torch.tensor(true)) if "most frequent class" in text]
    assert len(warnings) == (named is not None)
    assert named is None or f"clean accuracy is {named}" in warnings[0]


@EVALUATIONS
@pytest.mark.parametrize(("brightness", "named"), [(0.09, 1), (0.11, 0)])
def test_images_of_a_division_too_many_are_named(measure, brightness, named):
    images = brightness * IMAGES / IMAGES.max()
    warnings = measure(LINEAR, images, LINEAR(images).argmax(1))
    assert sum("were the images divided twice" in text for text in warnings) == named


@pytest.mark.parametrize("scale", [1.0, 10.0, 50.0, 1e3, 1e4, 1e6, 1e20])
def test_large_logits_hide_nothing(scale):
    """With three classes there is no APGD-T, and the cross-entropy of logits so large has no gradient."""
    model = centred_classifier(3)
    labels = model(IMAGES).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    found = evaluate(Changed(lambda z, x: scale * model(x)), IMAGES, labels, RADII, attack=quick())
    assert found.clean_accuracy == 0.95
    assert found.robust_accuracy["Linf"][0.3] == 0
    assert any("division" in text for text in found.warnings) == (scale > 1)


def test_clean_accuracy_of_the_attacked_images_stands_beside_foolbox():
    labels = LABELS.clone()
    labels[:5] = (labels[:5] + 1) % 4
    found = evaluate(
        LINEAR, IMAGES, labels, RADII, attack=quick(), foolbox={"BinarySearchContrastReductionAttack": 0.01}
    )
    assert found.foolbox["BinarySearchContrastReductionAttack"].clean_accuracy == found.clean_accuracy == 0.75
