"""The U-Net: published size, published initialisation, classes, refusals."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from pag.diffusion.model.unet import ClassConditionalUNet, build_unet
from pag.foundation.config.diffusion import DiffusionConfig


def small(**changes: Any) -> DiffusionConfig:
    values = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4], "head_dim": 16, "dropout": 0.0}
    return DiffusionConfig.model_validate({"learn_sigma": False, **values, **changes})


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05, generator=generator)
    return model.eval()


def test_size_of_the_published_cifar_network() -> None:
    """improved-diffusion's unconditional network has 52.5 M parameters; the classes add an embedding of 4 · 128."""
    with torch.device("meta"):
        model = build_unet(DiffusionConfig(), in_channels=3, image_size=32, num_classes=10)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round((count - 11 * 512) / 1e6, 1) == 52.5


def test_four_heads_and_a_normalised_middle_attention_at_the_published_size() -> None:
    with torch.device("meta"):
        model = build_unet(DiffusionConfig(), in_channels=3, image_size=32, num_classes=10)
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    assert len(attentions) == 3 + 3 + 1 + 4 + 4  # 16 and 8 going down, the middle, 8 and 16 going up
    assert {module.heads for module in attentions} == {4}
    assert all(module.group_norm is not None for module in attentions)


@pytest.mark.parametrize(("learn_sigma", "channels_out"), [(False, 1), (True, 2)])
def test_output_is_zero_at_first(learn_sigma: bool, channels_out: int) -> None:
    model = build_unet(small(learn_sigma=learn_sigma), in_channels=1, image_size=8, num_classes=10)
    output = model(torch.randn(2, 1, 8, 8), torch.tensor([3, 5]), torch.tensor([0, 10]))
    assert output.shape == (2, channels_out, 8, 8)
    assert not output.any()


def test_residual_branches_are_zero_at_first() -> None:
    model = build_unet(small(), in_channels=1, image_size=8, num_classes=10)
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            x = torch.randn(2, module.in_channels, 4, 4)
            shortcut = module.conv_shortcut or nn.Identity()
            torch.testing.assert_close(module(x, torch.randn(2, 64)), shortcut(x))
        elif isinstance(module, Attention):
            x = torch.randn(2, module.to_q.in_features, 4, 4)
            torch.testing.assert_close(module(x), x)


def test_null_class_differs_from_every_class() -> None:
    model = randomised(build_unet(small(), in_channels=1, image_size=8, num_classes=3))
    x = torch.randn(1, 1, 8, 8).expand(4, 1, 8, 8)
    outputs = model(x, torch.tensor(7), torch.arange(4))
    assert all(not torch.allclose(outputs[3], outputs[label]) for label in range(3))
    with pytest.raises(IndexError):
        model(x[:1], torch.tensor(7), torch.tensor([4]))


def test_time_embedding_sees_0_to_1000_whatever_the_schedule() -> None:
    long = randomised(build_unet(small(timesteps=4000), in_channels=1, image_size=8, num_classes=2))
    short = randomised(build_unet(small(timesteps=500), in_channels=1, image_size=8, num_classes=2))
    assert isinstance(long, ClassConditionalUNet)
    x, label = torch.randn(1, 1, 8, 8), torch.tensor([0])
    same = short(x, torch.tensor([250]), label)
    torch.testing.assert_close(long(x, torch.tensor([2000]), label), same)
    torch.testing.assert_close(long.net(x, torch.tensor([500]), label).sample, same)
    assert not torch.allclose(long(x, torch.tensor([250]), label), same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": [16]}, r"attention = \[16\]: the U-Net has no such resolution, only \[8, 4\]"),
        ({"multipliers": [1, 1, 1, 1, 1], "attention": []}, "side 8 cannot be halved 4 times: .* multiple of 16"),
        ({"head_dim": 24}, "head_dim = 24 does not divide the 32 channels"),
        ({"attention": [8], "head_dim": 32}, "head_dim = 32 does not divide the 16 channels"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_unet(small(**changes), in_channels=1, image_size=8, num_classes=10)
