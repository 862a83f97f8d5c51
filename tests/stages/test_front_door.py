"""What `import pag` offers: cheap to import, the examples of docs/api.md, and one line for what does not fit."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workspace import ROOT, Workspace

import pag
from pag.evaluation.standard import Budget, quick

PAGE = (ROOT / "docs/api.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_import_loads_nothing_else() -> None:
    code = (
        "import pag, sys; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy') or m[:4] == 'pag.'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", pag.__all__)
def test_every_name_is_documented_and_says_what_it_raises(name: str) -> None:
    assert "Raises" in getattr(pag, name).__doc__
    assert f"`pag.{name}(" in PAGE


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'attack': it offers alignment_loss, evaluate"):
        _ = pag.attack


@pytest.mark.usefixtures("few_iterations")
def test_the_examples_run_in_their_order(chain: Workspace, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(chain.folder)
    namespace: dict = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for example in EXAMPLES:
            exec(compile(example, "docs/api.md", "exec"), namespace)
    assert 0 <= namespace["found"].robust_accuracy["L2"][1.0] <= namespace["found"].robust_accuracy["L2"][0.5]
    cosine = float(capsys.readouterr().out.splitlines()[1])
    assert -1 <= cosine <= 1 and cosine != 0
    assert namespace["directions"].shape[1:] == (10, 1, 8, 8)


RADII = {"L2": [0.1]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": quick}, "attack is <function quick.*: expected a Budget"),
        ({"attack": "quick"}, "attack is 'quick': expected a Budget"),
        ({"batch_size": 0}, "batch_size is 0: expected a whole number from 1 on"),
        ({"cache": __file__}, r"cache is '.*': expected the path of a folder"),
        ({"cache": 7}, "cache is 7: expected the path of a folder"),
        ({"progress": True}, "progress is True: expected a function of"),
        ({"processes": 0}, "processes is 0: expected a whole number from 1 on"),
        ({"seed": -1}, "seed is -1: expected a whole number from 0 on"),
        ({"seed": "a"}, "seed is 'a': expected a whole number from 0 on"),
        ({"foolbox": {"FGSM": 0.1}}, "unknown Foolbox attack 'FGSM', expected one of"),
        ({"foolbox": ["L0FMNAttack"]}, "foolbox is .*: expected attacks and their radii"),
        ({"foolbox": {"L0FMNAttack": "3"}}, "the radius of L0FMNAttack is '3': expected a number from 0 on, or None"),
        ({"foolbox": {"L0FMNAttack": True}}, "the radius of L0FMNAttack is True: expected a number"),
        ({"directions": torch.ones(2, 3, 1, 2, 2)}, "directions are a Tensor: expected a pair"),
        ({"directions": (torch.rand(2, 1, 2, 2), torch.ones(2, 2, 1, 2, 2))}, r"expected \(2, 3, 1, 2, 2\)"),
    ],
)
def test_an_evaluation_is_asked_for_what_there_is(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attacked(*given: Any, **options: Any) -> None:
        pytest.fail("attacked before all arguments were looked at")

    monkeypatch.setattr("pag.evaluation.evaluate.evaluate_autoattack", attacked)
    with pytest.raises(ValueError, match=message):
        pag.evaluate(Linear(), pixels(), torch.tensor([0, 1]), RADII, **arguments)


def test_an_evaluation_prints_what_it_found() -> None:
    found = pag.evaluate(Linear(), pixels(), torch.tensor([0, 1]), RADII, attack=quick(2))
    assert str(found).startswith(f"clean {found.clean_accuracy:.1%}, L2 0.1 {found.robust_accuracy['L2'][0.1]:.1%}, ")
    assert "tensor" not in repr(found)


def test_a_budget_has_an_attack() -> None:
    with pytest.raises(ValueError, match="attacks are empty: expected some of apgd-ce"):
        Budget(())
    with pytest.raises(ValueError, match="attacks are apgd-t alone, which needs 4 classes: the model has 3"):
        pag.evaluate(Linear(), pixels(), torch.tensor([0, 1]), RADII, attack=Budget(("apgd-t",)))


@pytest.mark.parametrize("arguments", [(("apgd_ce",),), (("apgd-ce",), 0), (("apgd-ce",), 5, 0)])
def test_a_budget_has_attacks_that_there_are(arguments: tuple) -> None:
    with pytest.raises(
        ValueError, match=r"attacks have 'apgd_ce': expected some of apgd-ce|expected at least 1 of each"
    ):
        Budget(*arguments)


def test_a_cache_is_of_one_model(tmp_path: Path) -> None:
    """What tells these functions apart is neither a weight nor in their name; the file's name may be a string."""
    images, labels = pixels(4), torch.tensor([0, 1, 2, 0])
    first, second = (lambda x, by=by: x.flatten(1) @ (by * torch.eye(4, 3) + 0.1) for by in (1, -1))
    options: dict[str, Any] = {"attack": quick(2), "foolbox": {"SaltAndPepperNoiseAttack": None}}

    def found(model: Callable[[Tensor], Tensor], count: int = 4, cache: str | None = str(tmp_path / "cache")) -> list:
        result = pag.evaluate(model, images[:count], labels[:count], RADII, cache=cache, batch_size=2, **options)
        distances = result.foolbox["SaltAndPepperNoiseAttack"].distances
        return [result.by_norm["L2"].radius.tolist(), distances.tolist()]

    assert found(first, 2) == found(first, 2) == found(first, 2, None)
    with pytest.raises(ValueError, match="cache holds attacks on another model with the same weights"):
        found(second)  # on more images
    del options["foolbox"]  # whose parts refuse too
    with pytest.raises(ValueError, match="cache holds attacks on another model with the same weights"):
        pag.evaluate(second, images, labels, {"Linf": [0.01]}, cache=tmp_path / "cache", batch_size=2, **options)


def test_a_cache_tells_a_hidden_gradient_from_a_shown_one(tmp_path: Path) -> None:
    """The same logits: a staircase, and with the gradient of the identity in its place (BPDA, Athalye et al. 2018)."""
    images, labels = pixels(4), torch.tensor([0, 1, 2, 0])

    def stairs(x: Tensor) -> Tensor:
        return ((8 * x).round() / 8 + 0 * x).flatten(1) @ torch.eye(4, 3)

    def straight_through(x: Tensor) -> Tensor:
        return (x + ((8 * x).round() / 8 - x).detach()).flatten(1) @ torch.eye(4, 3)

    labels = stairs(images).argmax(1)
    kept: dict[str, Any] = {"attack": quick(2), "cache": tmp_path / "cache"}
    pag.evaluate(stairs, images, labels, RADII, **kept)
    with pytest.raises(ValueError, match="cache holds attacks on another model with the same weights"):
        pag.evaluate(straight_through, images, labels, RADII, **kept)


def test_of_a_random_model_nothing_is_kept(tmp_path: Path) -> None:
    def model(x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.eye(4, 3) + 0.1 * torch.randn(len(x), 3)

    options: dict[str, Any] = {"attack": quick(2), "cache": tmp_path, "foolbox": {"SaltAndPepperNoiseAttack": None}}
    for _ in range(2):
        found = pag.evaluate(model, pixels(4), torch.tensor([0, 1, 2, 0]), RADII, **options)
        assert any("random" in warning for warning in found.warnings)
    assert not list(tmp_path.glob("*.pt"))


def test_gradients_of_the_images_are_not_asked_for(tmp_path: Path) -> None:
    images = pixels(2).requires_grad_()
    pag.evaluate(Linear(), images, torch.tensor([0, 1]), RADII, attack=quick(2), cache=tmp_path)
    assert images.grad is None


@pytest.mark.parametrize("shape", [(24, 24), (24, 32), (32, 24), (4, 4)])
def test_images_that_square_cannot_take_are_refused_before_any_attack(shape: tuple[int, int]) -> None:
    images = torch.rand(1, 1, *shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images.numel(), 3))
    with pytest.raises(ValueError, match=rf"images of {shape[0]}×{shape[1]} pixels: AutoAttack's Square attack under"):
        pag.evaluate(model, images, torch.tensor([0]), RADII)
    pag.evaluate(model, images, torch.tensor([0]), RADII, attack=quick(2))
    pag.evaluate(model, images, torch.tensor([0]), {"Linf": [0.1]}, attack=Budget(("square",)))


def test_images_need_not_be_contiguous() -> None:
    """As they come from an array of rows × columns × channels."""
    rows = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    standard = {"attack": Budget(("apgd-ce", "square"), 2)}
    found, expected = (
        pag.evaluate(model, images, torch.tensor([0, 1]), {"L2": [0.1], "Linf": [0.01]}, **standard)
        for images in (rows.permute(0, 3, 1, 2), rows.permute(0, 3, 1, 2).contiguous())
    )
    assert found.robust_accuracy == expected.robust_accuracy
    assert torch.equal(found.by_norm["L2"].x_adv, expected.by_norm["L2"].x_adv)


class Linear(nn.Module):
    """Its gradient towards class y is row y of the weights, at every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, 4))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


class Detached(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach())


def pixels(count: int = 2) -> Tensor:
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_alignment_with_the_gradients_themselves_is_one() -> None:
    model = Linear().train()
    images = pixels(3).requires_grad_()
    log_p = model(images).log_softmax(1).sum(0)
    own = torch.stack([torch.autograd.grad(value, images, retain_graph=True)[0] for value in log_p], dim=1)
    assert pag.measure_alignment(model, images.detach(), 7 * own) == pytest.approx(1)
    assert pag.measure_alignment(lambda x: x.flatten(1) @ torch.eye(3, 4).T, images.detach(), -own) == pytest.approx(-1)
    assert model.training and model.weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_gradients": torch.ones(2, 2, 1, 2, 2)}, r"shape \(2, 2, 1, 2, 2\): expected \(2, 3, 1, 2, 2\)"),
        ({"images": 255 * pixels()}, r"images reach from .*: expected \[0, 1\]"),
        ({"class_gradients": torch.ones(2, 3, 1, 2, 2).numpy()}, "class_gradients are a ndarray: expected a tensor or"),
        ({"class_gradients": torch.full((2, 3, 1, 2, 2), torch.nan)}, "class_gradients hold NaN or infinity"),
        ({"class_gradients": torch.zeros(2, 3, 1, 2, 2)}, "class_gradients are all zero: expected directions"),
        ({"images": None}, "images are a NoneType: expected a tensor"),
        ({"model": lambda x: (x.flatten(1),)}, "the model returns a tuple: expected a tensor of logits"),
        ({"model": lambda x: Linear()(x).softmax(1)}, "the model returns probabilities, whose gradient vanishes"),
        ({"model": "rn18"}, "the model is a str: expected a module or a function of images"),
    ],
)
def test_alignment_is_measured_of_what_fits(arguments: dict[str, Any], message: str) -> None:
    given = {"model": Linear(), "images": pixels(), "class_gradients": torch.ones(2, 3, 1, 2, 2)} | arguments
    with pytest.raises(ValueError, match=message):
        pag.measure_alignment(**given)


def test_a_direction_that_is_zero_is_left_out() -> None:
    directions = torch.randn(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    whole, without = directions[:1], directions[:1].clone()
    without[0, 2] = 0
    parts = [pag.measure_alignment(Linear(), pixels(1), d) for d in (whole, without)]
    model, images = Linear(), pixels(1).requires_grad_()
    (own,) = torch.autograd.grad(model(images).log_softmax(1)[0, 2], images)
    last = nn.functional.cosine_similarity(own.flatten(), whole[0, 2].flatten(), dim=0)
    assert 3 * parts[0] == pytest.approx(2 * parts[1] + last.item(), abs=1e-5)


def test_gradients_that_are_nan_are_not_left_out() -> None:
    """0 · √0 for the first image: alignment would be that of the second alone."""
    images, directions = pixels(2), torch.ones(2, 3, 1, 2, 2)
    images[0, 0, 0, 0] = 0

    def model(x: Tensor) -> Tensor:
        return Linear()(x) + 0 * x[:, 0, 0, :1].sqrt()

    with pytest.raises(ValueError, match="the model's input gradients are NaN on 1 images: look for a square root"):
        pag.measure_alignment(model, images, directions)
    both: dict[str, Any] = {"attack": quick(2), "directions": (images, directions)}
    found = pag.evaluate(model, images, torch.tensor([0, 1]), RADII, **both)
    assert found.alignment is None
    assert any(text.startswith("alignment was not measured: the model's input") for text in found.warnings)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_labels_of_any_integer_type_train(dtype: torch.dtype) -> None:
    labels, targets = torch.tensor([0, 2], dtype=dtype), torch.tensor([[1], [0]], dtype=dtype)
    terms = pag.alignment_loss(Linear(), pixels(), labels, targets, torch.ones(2, 1, 1, 2, 2), weight=0.5)
    assert set(terms) == {"cross_entropy", "alignment"} and all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_gradients": torch.ones(2, 3, 1, 2, 2)}, r"shape \(2, 3, 1, 2, 2\): expected \(2, 1, 1, 2, 2\)"),
        ({"class_gradients": torch.ones(1, 1, 1, 2, 2)}, r"shape \(1, 1, 1, 2, 2\): expected \(2, 1, 1, 2, 2\)"),
        ({"class_gradients": torch.ones(2, 1, 1, 2, 2).numpy()}, "class_gradients are a ndarray: expected a tensor"),
        ({"images": pixels().numpy()}, "images are a ndarray: expected a tensor, use torch.as_tensor"),
        ({"class_gradients": SimpleNamespace(read=None)}, "class_gradients are a .*: expected a tensor, read the rows"),
        ({"labels": np.array([0, 2])}, "labels are a ndarray: expected a tensor, use torch.as_tensor"),
        ({"target_classes": [[1], [0]]}, "target_classes are a list: expected a tensor, use torch.as_tensor"),
        ({"gradient_of": "logits"}, "gradient_of is 'logits': expected log_softmax or logit"),
        (
            {"target_classes": torch.tensor([1, 0])},
            r"target_classes are torch.int64 of shape \(2,\): expected integers \(2, k\)",
        ),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels are torch.float32 of shape \(2,\): expected integers \(2,\)"),
        ({"labels": torch.tensor([[0], [2]])}, r"labels are torch.int64 of shape \(2, 1\): expected integers \(2,\)"),
        ({"target_classes": torch.tensor([[0], [-1]])}, "target_classes reach down to -1: expected classes from 0 on"),
        ({"images": (255 * pixels()).to(torch.uint8)}, "images are torch.uint8 and .*expected both float32"),
        ({"images": pixels().half()}, "images are torch.float16 and the model's weights torch.float32"),
        ({"model": Linear().half()}, "the model's weights torch.float16: expected both float32 or both float64"),
        ({"class_gradients": torch.full((2, 1, 1, 2, 2), torch.nan)}, "class_gradients hold NaN or infinity"),
        (
            {"images": torch.full((2, 1, 2, 2), torch.nan)},
            "2 of 2 images hold NaN or infinity: expected finite numbers",
        ),
        ({"images": pixels().requires_grad_()}, "images require a gradient, and the loss gives them none"),
        (
            {"target_classes": torch.zeros(2, 0, dtype=torch.long), "class_gradients": torch.ones(2, 0, 1, 2, 2)},
            r"target_classes have shape \(2, 0\): expected at least one for an image",
        ),
        ({"model": lambda x: x.flatten(1)[:, :1]}, r"the model returns \(2, 1\): expected logits .* two classes"),
        ({"model": lambda x: x.detach().flatten(1)}, "the model gives no gradient: return logits without"),
        ({"model": Detached()}, "the model gives its images no gradient"),
        ({"labels": torch.tensor([0j, 1])}, r"labels are torch.complex64 of shape \(2,\): expected integers"),
        ({"model": "rn18"}, "the model is a str: expected a module or a function of images"),
        ({"model": Linear}, r"the model is the class Linear: expected a module or a .*; call it: Linear\(…\)"),
        ({"images": pixels().movedim(1, -1)}, r"are the channels of the images last\? images are \(2, 2, 2, 1\)"),
        ({"model": lambda x: (x.flatten(1),)}, r"the model returns tuple: expected logits \(B, C\)"),
        ({"model": lambda x: x}, r"the model returns \(2, 1, 2, 2\): expected logits \(B, C\) of two classes or more"),
        ({"model": Linear().requires_grad_(False)}, "no weight of the model requires a gradient, so nothing would be"),
        ({"weight": -1.0}, "weight is -1.0: expected λ"),
        ({"weight": "0.5"}, "weight is '0.5': expected λ"),
        ({"weight": True}, "weight is True: expected λ"),
        ({"weight": torch.nan}, "weight is nan: expected λ"),
        ({"weight": float("inf")}, "weight is inf: expected λ"),
    ],
)
def test_the_loss_is_of_what_fits(arguments: dict[str, Any], message: str) -> None:
    given = {
        "model": Linear(),
        "weight": 0.5,
        "images": pixels(),
        "labels": torch.tensor([0, 2]),
        "target_classes": torch.tensor([[1], [0]]),
        "class_gradients": torch.ones(2, 1, 1, 2, 2),
    } | arguments
    with pytest.raises(ValueError, match=message):
        pag.alignment_loss(**given)


def test_the_loss_is_not_of_probabilities() -> None:
    """Which a few images may seem to have by chance: a long training with small batches goes on."""

    def model(x: Tensor) -> Tensor:
        return Linear()(x).softmax(1)

    def loss(count: int) -> None:
        batch = pixels(count), torch.arange(count) % 3, torch.zeros(count, 1).long(), torch.ones(count, 1, 1, 2, 2)
        pag.alignment_loss(model, *batch, weight=0.5)

    loss(7)
    with pytest.raises(ValueError, match="the model returns probabilities, whose gradient vanishes"):
        loss(8)


def test_the_loss_of_a_function_is_that_of_its_module() -> None:
    model = Linear()
    inputs = pixels(), torch.tensor([0, 2]), torch.tensor([[1], [0]]), torch.ones(2, 1, 1, 2, 2)
    of_module = pag.alignment_loss(model, *inputs, weight=0.5)
    assert pag.alignment_loss(model.forward, *inputs, weight=0.5) == of_module


@pytest.mark.parametrize("how", ["a part", "in place"])
def test_compiled_parts_are_refused(how: str) -> None:
    """A part of the gradient would be missing, or PyTorch would have no second derivative."""
    model = nn.Sequential(Linear())
    model[0] = torch.compile(model[0]) if how == "a part" else model[0]
    if how == "in place":
        model.compile()
    inputs = pixels(), torch.tensor([0, 2]), torch.tensor([[1], [0]]), torch.ones(2, 1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"a part of the model is compiled.*: hand over torch.compile\(model\)"):
        pag.alignment_loss(model, *inputs, weight=0.5)


def test_without_gradients_the_loss_has_its_values() -> None:
    model, inputs = Linear(), (pixels(), torch.tensor([0, 2]), torch.tensor([[1], [0]]), torch.ones(2, 1, 1, 2, 2))
    trained = pag.alignment_loss(model, *inputs, weight=0.5)
    with torch.no_grad():
        watched = pag.alignment_loss(model.requires_grad_(False), *inputs, weight=0.5)
    assert watched == trained
    assert not any(term.requires_grad for term in watched.values())
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch.no_grad\(\)"):
        pag.alignment_loss(model, *inputs, weight=0.5)


def test_the_loss_is_not_differentiated_twice() -> None:
    """Its backward pass with a graph would leave convolutions' weights out."""
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 3))
    inputs = pixels(), torch.tensor([0, 2]), torch.tensor([[1], [0]]), torch.ones(2, 1, 1, 2, 2)
    for name in ("cross_entropy", "alignment"):
        term = pag.alignment_loss(model, *inputs, weight=0.5)[name]
        with pytest.raises(RuntimeError, match="cannot be differentiated twice: call backward"):
            term.backward(create_graph=True)


def test_a_store_says_what_it_cannot_read(chain: Workspace) -> None:
    store = pag.open_gradients(str(chain.folder / "data/digits/gradients/sbg.zarr"))
    assert store.read(np.array([0]), np.array([[9]])).shape == (1, 1, 1, 8, 8)
    with pytest.raises(
        ValueError, match=r"got image numbers \(2,\) and classes \(3, 1\): expected \(B,\) and \(B, k\)"
    ):
        store.read([0, 1], [[0], [1], [2]])
    with pytest.raises(ValueError, match="expected integers"):
        store.read([0.5], [[0]])
    with pytest.raises(IndexError, match=r"class 10 does not exist, expected 0..9"):
        store.read([0], [[10]])


@pytest.mark.parametrize(
    ("load", "name"), [(pag.load_classifier, "weights.safetensors"), (pag.load_diffusion, "ema.safetensors")]
)
def test_a_folder_of_something_else_is_named(load: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"expected the folder of a trained .*, with {name}; there is no such folder"):
        load(tmp_path / "none")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=rf"with {name}; it holds model\.pt"):
        load(tmp_path)


def test_a_diffusion_model_opens_by_itself(chain: Workspace) -> None:
    model = pag.load_diffusion(chain.folder / "data/digits/diffusion")
    assert model.num_classes == 10 and not model.network.training
    x_t, null_class = torch.zeros(1, 1, 8, 8), torch.tensor([10])
    with torch.no_grad():
        assert model.network(x_t, torch.tensor([5]), null_class).shape[2:] == (8, 8)


class Attentive(nn.Module):
    """PyTorch's own transformer layer and timm's attention, as they come: with fused kernels."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import Attention

        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)
        self.attention = Attention(4, num_heads=2)
        self.attention.fused_attn = True
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(1).unflatten(1, (-1, 4))
        return self.head(self.attention(self.layer(tokens)).mean(1))


def test_fused_attention_has_a_second_derivative_in_the_loss() -> None:
    """The gradient of the alignment term with respect to a weight, against float64 finite differences."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attentive().double()
    g = torch.Generator().manual_seed(1)
    images = torch.rand(2, 1, 4, 4, generator=g, dtype=torch.float64)
    directions = torch.randn(2, 2, 1, 4, 4, generator=g, dtype=torch.float64)

    def loss() -> Tensor:
        targets = torch.tensor([[0, 1], [2, 0]])
        return pag.alignment_loss(model, images, torch.tensor([0, 2]), targets, directions, weight=1.0)["alignment"]

    loss().backward()
    for weight in (model.layer.self_attn.in_proj_weight, model.attention.qkv.weight):
        at, step = (1, 2), 1e-5
        values = []
        for sign in (1, -2):
            weight.data[at] += sign * step
            values.append(loss().item())
        assert weight.grad is not None
        assert weight.grad[at].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-9)
        weight.data[at] += step


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("compiled", ["the whole", "in place", "a part"])
def test_a_compiled_model_is_measured_as_it_was_written(compiled: str) -> None:
    """Its own backward pass runs once, and there is one for every class."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.SiLU(), nn.Linear(16, 10))
    images, directions = (torch.rand(4, *shape, generator=generator) for shape in ((1, 8, 8), (10, 1, 8, 8)))
    expected = pag.measure_alignment(model, images, directions)
    classifier: nn.Module = torch.compile(model)  # type: ignore[assignment]
    if compiled == "in place":
        model.compile()
        classifier = model
    elif compiled == "a part":
        classifier = nn.Sequential(classifier, nn.Identity())
    assert pag.measure_alignment(classifier, images, directions) == pytest.approx(expected, abs=1e-6)
