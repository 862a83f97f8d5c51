"""A compiled model has the gradients of the plain one under every objective."""

import copy
import functools

import pytest
import torch
from timm.models._efficientnet_blocks import CondConvResidual
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from pag.classifiers import build, compiled, double_backward
from pag.objectives.alignment.objective import Alignment
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.objectives.baselines.gradient_norm import GradientNorm
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective

OBJECTIVES: dict[str, Objective] = {
    "vanilla": cross_entropy,
    "alignment": Alignment(2.0),
    "at": AdversarialTraining(ThreatModel("L2", 0.5), steps=2, step_size=0.2),
    "trades": Trades(ThreatModel("Linf", 0.1), steps=2, step_size=0.05, beta=6.0),
    "gradnorm": GradientNorm(0.3),
    "noise": GaussianNoise(0.1),
}


def random_batch(side: int, dtype: torch.dtype) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.rand(4, 3, side, side, generator=g, dtype=torch.float64).to(dtype),
        labels=torch.tensor([0, 1, 2, 3]),
        seed=5,
        target_classes=torch.tensor([[0, 1], [2, 3], [3, 0], [1, 2]]),
        class_gradients=torch.randint(-127, 128, (4, 2, 3, side, side), generator=g, dtype=torch.int8),
    )


def small_network(dynamic: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = CondConvResidual(4, 4, num_experts=2) if dynamic else nn.Identity()
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), middle, nn.Flatten(), nn.Linear(36, 4)
        )
    return network.double()


def step(model: nn.Module, compiled: bool, objective: Objective, batch: Batch) -> tuple[torch.Tensor, dict]:
    network = torch.compile(model) if compiled else model
    network.train()
    for _ in range(2):  # the second call must find the graph of the first, and the buffers it left
        sum(objective(network, batch).values()).backward()
    assert model.training
    return torch.cat([p.grad.flatten() for p in model.parameters()]), dict(model.named_buffers())


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile as far as the traced graph of forward and backward, without generating code for it."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    compiled._compiled.cache_clear()


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(("name", "dynamic"), [*((name, False) for name in OBJECTIVES), ("alignment", True)])
def test_traced_step_equals_eager(name: str, dynamic: bool) -> None:
    batch = random_batch(8, torch.float64)
    expected, buffers = step(small_network(dynamic), False, OBJECTIVES[name], batch)
    actual, updated = step(small_network(dynamic), True, OBJECTIVES[name], batch)
    assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-12)
    for key, value in buffers.items():
        assert torch.allclose(updated[key], value), key
    assert buffers["1.num_batches_tracked"] == updated["1.num_batches_tracked"]


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("through", ["torch.compile", "functional_call"])
def test_ordinary_weights_take_the_fast_path(through: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer, a call with other weights, or autocast's casts could make them look like computed ones."""
    decide, decided = double_backward._computed, []
    monkeypatch.setattr(double_backward, "_computed", lambda *given: decided.append(decide(*given)) or decided[-1])
    network, batch, gradients = small_network().float(), random_batch(8, torch.float32), []
    weights = dict(network.named_parameters())
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    other = torch.compile(network), weights
    if through == "functional_call":
        other = functools.partial(functional_call, network, leaves), leaves
    for model, given in ((network, weights), other):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = sum(Alignment(2.0)(model, batch).values())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(given.values()))]))
    assert len(decided) >= 4 and not any(decided)  # a convolution and a batch norm, in both
    assert (gradients[0] - gradients[1]).norm() <= 1e-2 * gradients[0].norm()


@pytest.mark.usefixtures("traced_only")
def test_models_of_equal_shapes_have_graphs_of_their_own() -> None:
    """In each mode and with each score: nothing that tells them apart is in a shape."""
    batch = random_batch(8, torch.float64)
    networks = [small_network(), small_network(), small_network().eval()]
    networks[1][2] = nn.Tanh()
    for network in (*networks, *networks):
        for objective in (Alignment(2.0), Alignment(2.0, "logit")):
            expected = objective(copy.deepcopy(network), batch)
            torch.testing.assert_close(objective(torch.compile(network), batch), expected)
    assert networks[2][1].num_batches_tracked == 0


@pytest.mark.usefixtures("traced_only")
def test_a_part_that_changes_has_a_graph_of_its_own() -> None:
    """Frozen statistics, another activation; nothing of it is in a shape."""
    batch, network = random_batch(8, torch.float64), small_network()
    for change in (lambda: None, network[1].eval, lambda: network.__setitem__(2, nn.Tanh())):
        change()
        expected = Alignment(2.0)(copy.deepcopy(network), batch)
        torch.testing.assert_close(Alignment(2.0)(torch.compile(network), batch), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch", "precision"),
    [
        ("alignment", "rn18", "float32"),
        ("alignment", "vit", "float32"),
        ("alignment", "rn18", "bf16"),
        ("alignment", "rn8-silu", "float32"),
        ("gradnorm", "rn8-silu", "float32"),
    ],
)
def test_compiled_step_equals_eager(name: str, arch: str, precision: str) -> None:
    batch = random_batch(32, torch.float32)
    gradients, statistics = [], []
    for through_compiler in (False, True):
        model = build(arch, 4, (3, 32, 32), seed=0).to(memory_format=torch.channels_last)
        compiled._compiled.cache_clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            gradient, buffers = step(model, through_compiler, OBJECTIVES[name], batch)
        gradients.append(gradient.double())
        statistics.append(buffers)
    assert F.cosine_similarity(*gradients, dim=0) >= (0.9999 if precision == "float32" else 0.9)
    for key, value in statistics[0].items():
        assert torch.allclose(statistics[1][key], value, rtol=1e-2, atol=1e-2), key
