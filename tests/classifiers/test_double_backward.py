"""The fast path against PyTorch's own double backward: operator by operator, and whole architectures."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from timm.models._efficientnet_blocks import CondConvResidual
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pag.classifiers import build
from pag.classifiers.double_backward import fast_double_backward
from pag.classifiers.input_gradients import input_gradients
from pag.objectives.alignment.objective import Alignment
from pag.training.batch import Batch

NUM_CLASSES = 10


def random_batch(size: int, k: int, dtype: torch.dtype) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.rand(size, 3, 32, 32, generator=g, dtype=torch.float64).to(dtype),
        labels=torch.randint(NUM_CLASSES, (size,), generator=g),
        seed=0,
        target_classes=torch.rand(size, NUM_CLASSES, generator=g).topk(k, dim=1).indices,
        class_gradients=torch.randint(-127, 128, (size, k, 3, 32, 32), generator=g, dtype=torch.int8),
    )


def reference(model: nn.Module, batch: Batch, weight: float) -> Tensor:
    """Eq. 4 with ordinary autograd, the log-odds spelt out, PyTorch's cosine, one input gradient at a time."""
    images = batch.images.detach().requires_grad_()
    logits = model(images)
    loss = F.cross_entropy(logits, batch.labels)
    k = batch.target_classes.shape[1]
    for target, direction in zip(batch.target_classes.T, batch.class_gradients.unbind(1), strict=True):
        log_p = logits.log_softmax(1).gather(1, target[:, None])
        log_odds = log_p - torch.log1p(-log_p.exp())
        (gradient,) = torch.autograd.grad(log_odds.sum(), images, create_graph=True)
        cos = F.cosine_similarity(gradient.flatten(1), direction.flatten(1).to(gradient.dtype), eps=1e-30)
        loss = loss + weight * NUM_CLASSES / k * (1 - cos).mean()
    return loss


def fast(model: nn.Module, batch: Batch, weight: float) -> Tensor:
    return sum(Alignment(weight)(model, batch).values())


def gradient_of(
    loss: Callable[[nn.Module, Batch, float], Tensor], arch: str, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """All parameter gradients in one vector, and the buffers after the step."""
    model = build(arch, NUM_CLASSES, (3, 32, 32), seed=0).to(batch.images.dtype).train()
    model.to(memory_format=torch.channels_last)
    loss(model, batch, 2.0).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), dict(model.named_buffers())


@pytest.mark.parametrize("arch", ["rn8", "rn8-silu", "rn14-silu", "rn18", "rn18-silu", "vgg11", "vit", "mixer"])
@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 1), (torch.float64, 2)])
def test_parameter_gradients_equal_plain_double_backward(arch: str, dtype: torch.dtype, k: int) -> None:
    batch = random_batch(4 if dtype == torch.float32 else 2, k, dtype)
    (expected, buffers), (actual, updated) = gradient_of(reference, arch, batch), gradient_of(fast, arch, batch)
    if dtype == torch.float64:
        assert (actual - expected).norm() <= 1e-8 * expected.norm()
    assert F.cosine_similarity(actual.double(), expected.double(), dim=0) >= 0.9999
    for name, value in buffers.items():  # one update, like one plain forward
        assert torch.allclose(updated[name].double(), value.double(), rtol=1e-4, atol=1e-6), name


def test_running_statistics_are_those_of_one_plain_forward() -> None:
    batch = random_batch(4, 1, torch.float32)
    model = build("rn18", NUM_CLASSES, (3, 32, 32), seed=0).train()
    model(batch.images)
    expected = dict(model.named_buffers())
    again = build("rn18", NUM_CLASSES, (3, 32, 32), seed=0).train()
    Alignment(1.0)(again, batch)
    assert all(torch.equal(value, expected[name]) for name, value in again.named_buffers())


def second_order_gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The gradients of a loss that depends on the layer's output and on its input gradient."""
    x = x.clone().requires_grad_()
    y = layer(x + 0)
    (v,) = torch.autograd.grad(y.square().sin().sum(), x, create_graph=True)
    return list(torch.autograd.grad((v * x.cos()).sum() + y.exp().mean(), [x, *layer.parameters()]))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, (3, 1), padding=(2, 0), dilation=2, groups=2),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4).eval(),
        nn.BatchNorm1d(4),
        nn.ReLU(inplace=True),
        nn.SiLU(),
        nn.SiLU(inplace=True),
    ],
    ids=repr,
)
def test_layers_equal_pytorchs_double_backward(layer: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    x = torch.randn((5, 4) if isinstance(layer, nn.BatchNorm1d) else (3, 4, 7, 7), generator=g, dtype=torch.float64)
    expected = second_order_gradients(layer, x)
    with fast_double_backward():
        actual = second_order_gradients(layer, x)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_functions_take_what_pytorchs_take() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 5, generator=g), torch.randn(3, 4, 3, 3, generator=g)
    mean, variance = torch.zeros(4), torch.ones(4)

    def outputs() -> list[Tensor]:
        return [
            F.conv2d(input=x, weight=weight, padding=1),
            F.conv2d(x[0], weight),  # without a batch
            F.batch_norm(input=x, running_mean=mean, running_var=variance, weight=mean + 2, training=True, momentum=0),
            F.relu(input=x),
        ]

    expected = outputs()
    with fast_double_backward():
        torch.testing.assert_close(outputs(), expected)


def test_one_value_a_channel_has_no_variance() -> None:
    """A last batch of one image would fill the running statistics with NaN."""
    layer = nn.BatchNorm1d(4)
    with fast_double_backward(), pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(torch.rand(1, 4))
    assert layer.running_var.isfinite().all()


def test_first_order_gradients_are_unchanged() -> None:
    layer, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double(), torch.rand(2, 2, 5, 5).double()
    expected = torch.autograd.grad(layer(x).sin().sum(), list(layer.parameters()))
    with fast_double_backward():
        actual = torch.autograd.grad(layer(x).sin().sum(), list(layer.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(actual, expected, strict=True))


def test_bf16_autocast_keeps_the_direction() -> None:
    batch = random_batch(8, 1, torch.float32)
    gradients = []
    for enabled in (False, True):
        model = build("vit", NUM_CLASSES, (3, 32, 32), seed=0).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = fast(model, batch, 2.0)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.999


class Dynamic(nn.Module):
    """A layer whose weight or bias is computed from its input."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name
        self.compute = nn.Linear(4, getattr(layer, name).numel())

    def forward(self, x: Tensor) -> Tensor:
        computed = self.compute(x.mean((0, 2, 3))).view_as(getattr(self.layer, self.name))
        return functional_call(self.layer, {self.name: computed}, x)


@pytest.mark.parametrize(
    "layer",
    [
        Dynamic(nn.Conv2d(4, 4, 3), "weight"),
        Dynamic(nn.Conv2d(4, 4, 3), "bias"),
        Dynamic(nn.BatchNorm2d(4), "weight"),
        Dynamic(nn.BatchNorm2d(4), "bias"),
        CondConvResidual(4, 4, num_experts=2),
    ],
    ids=["kernel", "shift", "norm scale", "norm shift", "timm's CondConv"],
)
def test_the_path_through_computed_weights_counts(layer: nn.Module) -> None:
    stem, head = nn.Conv2d(3, 4, 3, stride=2), (nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    model, g = nn.Sequential(stem, layer, *head).double(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 2
    batch, found = random_batch(2, 2, torch.float64), []
    for context, loss in ((nullcontext(), reference), (fast_double_backward(), fast)):
        images = batch.images.clone().requires_grad_()
        with context:
            logits = model(images)
        model.zero_grad()
        loss(model, batch, 2.0).backward()
        weights = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((input_gradients(logits, images, batch.target_classes, "logit"), weights))
    for expected, actual in zip(*found, strict=True):
        assert (actual - expected).norm() <= 1e-10 * expected.norm()
