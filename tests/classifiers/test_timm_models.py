"""Architectures of timm by name: sizes, refusals, and the second derivative that alignment needs."""

import pytest
import timm
import torch

from pag.classifiers import build, known_architectures
from pag.foundation.config.section import ConfigError

SMALL = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]


@pytest.mark.parametrize("name", SMALL)
def test_second_derivatives_are_finite_differences_of_the_first(name: str) -> None:
    """d/dw of ⟨v, ∇_x log p(y|x)⟩ along a random direction of the weights, float64, 32×32."""
    model = build(f"timm-{name}", 3, (1, 32, 32), seed=0).double().eval()
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 32, 32, generator=random, dtype=torch.float64)
    v = torch.randn(images.shape, generator=random, dtype=torch.float64)
    weights = list(model.parameters())
    nearby, direction = (
        [torch.randn(weight.shape, generator=random, dtype=torch.float64) for weight in weights] for _ in range(2)
    )
    with torch.no_grad():
        torch._foreach_add_(weights, nearby, alpha=0.05)  # new biases are 0, where ReLU has its kink

    def projected() -> torch.Tensor:
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).log_softmax(1)[:, 1].sum(), x, create_graph=True)
        return (gradient * v).sum()

    gradients = torch.autograd.grad(projected(), weights, allow_unused=True)
    found = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    h, values = 1e-8, []
    for sign in (h, -2 * h):
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=sign)
        values.append(projected().item())
    assert found.item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_it_is_timms_network_behind_our_scaling() -> None:
    ours = build("timm-test_vit", 10, (3, 48, 48), seed=4).eval()
    theirs = timm.create_model("test_vit", num_classes=10, img_size=48).eval()
    theirs.load_state_dict({name.removeprefix("network."): w for name, w in ours.state_dict().items()})
    images = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(ours(images), theirs(2 * images - 1))


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (build("timm-test_resnet", 2, (1, 32, 32), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("arch", "image_shape", "message"),
    [
        ("timm-test_vit", (1, 8, 8), r"cannot take images of 1×8×8: .*; use cnn or rn18, or set data\.im"),
        ("timm-swin_tiny_patch4_window7_224", (3, 2, 2), "cannot take images of 3×2×2"),
        ("timm-test_resnet", (2,), r"takes images \(C, H, W\)"),
        ("timm-resnet181", (3, 32, 32), "unknown architecture 'timm-resnet181', did you mean 'timm-resnet18'"),
        ("timm-resnet18.a1_in1k", (3, 32, 32), "unknown architecture"),
        ("tim-resnet18", (3, 32, 32), "unknown architecture 'tim-resnet18'"),
    ],
)
def test_refusals_are_one_line(arch: str, image_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(arch, 10, image_shape, seed=0)
    assert "\n" not in str(caught.value)


def test_every_name_is_safe_in_files_and_in_a_shell() -> None:
    names = known_architectures(["timm-resnet18"])
    assert "timm-resnet18" in names and "cnn" in names
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for name in names)
