"""Architectures: published sizes, shapes, seeds, the [0,1] boundary and the second derivatives that alignment needs."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pag.classifiers import ARCHITECTURES, build, fastest_layout
from pag.foundation.config.section import ConfigError

CIFAR = (3, 32, 32)
IMAGE_ARCHS = [arch for arch in ARCHITECTURES if arch != "mlp"]


def random_images(count: int, image_shape: tuple[int, ...]) -> Tensor:
    return torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def input_gradients(model: Callable[[Tensor], Tensor], images: Tensor, target_class: int) -> Tensor:
    """∇_x log p(target_class|x), differentiable."""
    images = images.clone().requires_grad_()
    log_probabilities = model(images).log_softmax(dim=1)
    (gradients,) = torch.autograd.grad(log_probabilities[:, target_class].sum(), images, create_graph=True)
    return gradients


# --- sizes -----------------------------------------------------------------------------------------------------------

# CIFAR-10 counts. rn18, vgg*: the usual CIFAR implementations (11.17 M; 9.23, 9.42, 14.73 M); wrn-34-10: TRADES
# (46.16 M); vit: the paper (6.3 M); mixer: the sum over its layers' shapes, below.
PUBLISHED_SIZES = {
    "rn18": 11_173_962,
    "wrn-34-10": 46_160_474,
    "vgg11": 9_231_114,
    "vgg13": 9_416_010,
    "vgg16": 14_728_266,
    "vit": 6_268_810,
    "mixer": 1_132_170,
}


@pytest.mark.parametrize(("arch", "expected"), PUBLISHED_SIZES.items())
def test_parameter_counts_are_the_published_ones(arch: str, expected: int) -> None:
    with torch.device("meta"):
        model = build(arch, num_classes=10, image_shape=CIFAR, seed=0)
    assert parameter_count(model) == expected


@pytest.mark.parametrize(("arch", "blocks"), [("rn8", 1), ("rn14", 2)])
@pytest.mark.parametrize("activation", ["", "-silu"])
def test_the_small_residual_networks_are_the_sum_of_their_layers(arch: str, blocks: int, activation: str) -> None:
    count, width = 3 * 32 * 9, 32  # the stem
    for out in (32, 64, 128):
        count += width * out if out != width else 0  # the shortcut
        for _ in range(blocks):
            count += 2 * width + 9 * width * out + 2 * out + 9 * out * out
            width = out
    with torch.device("meta"):
        model = build(arch + activation, num_classes=10, image_shape=CIFAR, seed=0)
    assert parameter_count(model) == count + 2 * width + 10 * width + 10


def test_the_small_transformer_is_the_sum_of_its_layers() -> None:
    width, hidden, patches, patch_pixels = 64, 128, 16, 4
    embedding = patch_pixels * width + width + width + (patches + 1) * width  # patches, class token, positions
    layer = 2 * 2 * width + 4 * (width * width + width) + (width * hidden + hidden) + (hidden * width + width)
    model = build("vit-mini", num_classes=10, image_shape=(1, 8, 8), seed=0)
    assert parameter_count(model) == embedding + 3 * layer + 2 * width + 10 * width + 10


def test_mixer_size_is_the_sum_of_its_layers() -> None:
    width, tokens, token_hidden, channel_hidden, blocks = 128, 64, 64, 512, 8
    token_mlp = 2 * tokens * token_hidden + tokens + token_hidden
    channel_mlp = 2 * width * channel_hidden + width + channel_hidden
    stem, final_norm, head = (3 * 4 * 4 + 1) * width, 2 * width, (width + 1) * 10
    assert PUBLISHED_SIZES["mixer"] == stem + blocks * (4 * width + token_mlp + channel_mlp) + final_norm + head


def test_the_cnn_is_cheap() -> None:
    model = build("cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    multiply_adds = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        multiply_adds += output[0].numel() * module.weight[0].numel()  # per output: one per weight that feeds it

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(random_images(1, (1, 8, 8)))
    assert multiply_adds <= 1_000_000
    assert parameter_count(model) <= 150_000


def test_the_toy_network_has_one_hidden_layer_of_the_given_width() -> None:
    assert parameter_count(build("mlp", num_classes=2, image_shape=(2,), seed=0)) == 2 * 32 + 32 + 32 * 2 + 2
    assert parameter_count(build("mlp", num_classes=2, image_shape=(2,), seed=0, hidden=5)) == 2 * 5 + 5 + 5 * 2 + 2


# --- shapes ----------------------------------------------------------------------------------------------------------

SHAPES = [
    ("cnn", (1, 8, 8)),
    ("cnn", (1, 28, 28)),
    ("cnn", (3, 9, 11)),
    ("mlp", (2,)),
    ("rn8-silu", (1, 8, 8)),
    ("rn14", (3, 32, 32)),
    ("rn18", (1, 28, 28)),
    ("rn18", (3, 32, 32)),
    ("rn18", (3, 64, 64)),
    ("rn18", (3, 96, 96)),
    ("wrn-34-10", (3, 16, 16)),
    ("vgg11", (3, 32, 32)),
    ("vgg11", (1, 64, 64)),
    ("vgg13", (3, 32, 32)),
    ("vgg16", (3, 96, 96)),
    ("vit", (1, 8, 8)),
    ("vit", (1, 28, 28)),
    ("vit", (3, 32, 32)),
    ("vit", (3, 96, 96)),
    ("vit-mini", (1, 8, 8)),
    ("vit-mini", (1, 28, 28)),
    ("mixer", (1, 28, 28)),
    ("mixer", (3, 64, 64)),
]


@pytest.mark.parametrize(("arch", "image_shape"), SHAPES)
def test_logits_have_one_column_per_class(arch: str, image_shape: tuple[int, ...]) -> None:
    model = build(arch, num_classes=7, image_shape=image_shape, seed=0).eval()
    with torch.no_grad():
        logits = model(random_images(2, image_shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("side", "grid"), [(8, 8), (28, 7), (32, 8), (64, 8), (96, 8)])
@pytest.mark.parametrize(("arch", "embedding"), [("vit", "patch_embed"), ("mixer", "stem")])
def test_images_of_every_size_are_cut_into_about_eight_by_eight_patches(
    arch: str, embedding: str, side: int, grid: int
) -> None:
    with torch.device("meta"):
        model = build(arch, num_classes=10, image_shape=(3, side, side), seed=0)
    assert model.network.get_submodule(embedding).grid_size == (grid, grid)


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "image_shape"),
    [("cnn", (1, 8, 8)), ("mlp", (2,)), ("rn18", CIFAR), ("vgg11", CIFAR), ("vit", CIFAR), ("mixer", CIFAR)],
)
def test_weights_follow_the_seed_and_leave_the_global_generator_alone(arch: str, image_shape: tuple[int, ...]) -> None:
    before = torch.get_rng_state()
    first = build(arch, 10, image_shape, seed=3)
    torch.rand(5)  # moves the global generator on: the next build must not notice
    second, other = build(arch, 10, image_shape, seed=3), build(arch, 10, image_shape, seed=4)
    torch.set_rng_state(before)
    build(arch, 10, image_shape, seed=3)
    assert torch.equal(torch.get_rng_state(), before)

    weights, again, differing = first.state_dict(), second.state_dict(), other.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], differing[name]) for name in weights)


@pytest.mark.parametrize(
    ("usual", "other", "image_shape"),
    [("cnn", "cnn-relu", (1, 8, 8)), ("rn8", "rn8-silu", CIFAR), ("rn18", "rn18-silu", CIFAR)],
)
def test_an_activation_in_the_name_changes_the_function_and_not_the_weights(
    usual: str, other: str, image_shape: tuple[int, ...]
) -> None:
    first, second = (build(arch, 10, image_shape, seed=3).eval() for arch in (usual, other))
    theirs = second.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())
    silu, relu = (first, second) if usual == "cnn" else (second, first)
    kinds = [{type(module) for module in model.modules()} & {nn.SiLU, nn.ReLU} for model in (silu, relu)]
    assert kinds == [{nn.SiLU}, {nn.ReLU}]
    images = random_images(2, image_shape)
    assert not torch.allclose(first(images), second(images))


# --- the [0,1] boundary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["cnn", "rn18", "vgg11", "vit", "mixer"])
def test_networks_see_pixels_scaled_to_minus_one_to_one(arch: str) -> None:
    model = build(arch, num_classes=10, image_shape=CIFAR, seed=0).eval()
    seen: list[Tensor] = []
    first_convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first_convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for level, expected in [(0.0, -1.0), (0.5, 0.0), (1.0, 1.0)]:
        model(torch.full((1, *CIFAR), level))
        assert torch.equal(seen.pop(), torch.full((1, *CIFAR), expected))


@pytest.mark.parametrize(
    ("arch", "layout"),
    [("cnn", "channels_last"), ("rn8", "channels_last"), ("vit", "contiguous_format"), ("mixer", "contiguous_format")],
)
def test_networks_of_convolutions_alone_lie_channels_last(arch: str, layout: str) -> None:
    assert fastest_layout(build(arch, 10, (3, 32, 32), seed=0)) == getattr(torch, layout)


def test_points_are_not_scaled() -> None:
    model = build("mlp", num_classes=2, image_shape=(2,), seed=0)
    points = torch.tensor([[-50.0, -100.0], [30.0, 60.0]])
    first, second = (module for module in model.modules() if isinstance(module, nn.Linear))
    expected = (points @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias
    assert torch.allclose(model(points), expected)


# --- second derivatives ----------------------------------------------------------------------------------------------

# The smallest images that each network takes in train mode without a BatchNorm over two values only.
SMALL = {"cnn": (1, 8, 8), "rn18": (3, 16, 16), "wrn-34-10": (3, 8, 8), "vit": (3, 8, 8), "mixer": (3, 8, 8)}
SMALL |= {"vit-mini": (1, 8, 8), "cnn-relu": (1, 8, 8), "rn18-silu": (3, 16, 16), "wrn-34-10-silu": (3, 8, 8)}


@pytest.mark.parametrize("arch", IMAGE_ARCHS)
def test_the_input_gradient_is_differentiable_in_every_parameter(arch: str) -> None:
    image_shape = SMALL.get(arch, CIFAR)
    model = build(arch, num_classes=10, image_shape=image_shape, seed=0).train()
    gradients = input_gradients(model, random_images(3, image_shape), target_class=4)
    assert gradients.abs().amax(dim=(1, 2, 3)).min() > 0
    gradients.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert any(parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(("arch", "image_shape"), [("cnn", (1, 4, 4)), ("mlp", (2,))])
def test_first_and_second_derivatives_match_finite_differences(arch: str, image_shape: tuple[int, ...]) -> None:
    model = build(arch, num_classes=3, image_shape=image_shape, seed=0).double()
    inputs = random_images(2, image_shape).double().requires_grad_()
    assert torch.autograd.gradcheck(model, inputs)
    assert torch.autograd.gradgradcheck(model, inputs)


@pytest.mark.parametrize(
    ("arch", "image_shape"), [("cnn", (1, 4, 4)), ("mlp", (2,)), ("vit", (1, 8, 8)), ("mixer", (1, 8, 8))]
)
def test_parameter_derivative_of_the_input_gradient_matches_finite_differences(
    arch: str, image_shape: tuple[int, ...]
) -> None:
    model = build(arch, num_classes=3, image_shape=image_shape, seed=0).double().eval()
    images = random_images(2, image_shape).double()
    weights = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    direction = {name: torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in weights.items()}

    def squared_norm(weights: dict[str, Tensor]) -> Tensor:
        return input_gradients(lambda x: functional_call(model, weights, x), images, target_class=1).square().sum()

    def squared_norm_along(step: float) -> Tensor:
        return squared_norm({name: w.detach() + step * direction[name] for name, w in weights.items()}).detach()

    derivatives = torch.autograd.grad(squared_norm(weights), list(weights.values()))
    exact = sum((d * direction[name]).sum() for name, d in zip(weights, derivatives, strict=True))
    step = 1e-6
    assert torch.allclose((squared_norm_along(step) - squared_norm_along(-step)) / (2 * step), exact, rtol=1e-5)


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "image_shape", "message"),
    [
        ("rn8-sliu", CIFAR, "unknown architecture 'rn8-sliu', did you mean 'rn8-silu'?"),
        ("rn-18", CIFAR, "unknown architecture 'rn-18', did you mean 'rn18'?"),
        ("perceiver", CIFAR, "unknown architecture 'perceiver', expected one of cnn, cnn-relu, mlp, rn8"),
        ("mlp", CIFAR, r"mlp takes points \(D,\), got shape \(3, 32, 32\): for images use cnn or rn18"),
        ("rn18", (2,), r"rn18 takes images \(C, H, W\), got shape \(2,\): for points use mlp"),
        ("vgg16", (1, 28, 28), "vgg16 needs images of at least 32x32, got 28x28: use cnn or rn18"),
        ("vit", (3, 32, 48), "vit needs square images, got 32x48"),
        ("mixer", (3, 31, 31), "mixer needs a side divisible by 4 to 8 patches, got 31: use rn18"),
    ],
)
def test_impossible_choices_are_refused_in_one_line(arch: str, image_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build(arch, num_classes=10, image_shape=image_shape, seed=0)
    assert "\n" not in str(refusal.value)


def test_building_one_architecture_imports_no_other() -> None:
    script = (
        "import sys; from pag.classifiers import build; build('cnn', 10, (1, 8, 8), seed=0); "
        "print(sorted(name for name in sys.modules if name.startswith(('pag.classifiers.', 'timm.', 'torchvision.'))))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "['pag.classifiers.cnn', 'pag.classifiers.image_shape', 'pag.classifiers.scaling']"
