"""Checkpoints of guided-diffusion and improved-diffusion against the package's own network, on random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pag.diffusion.checkpoint import convert, judge
from pag.diffusion.guided import to_guided
from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.trained import DiffusionModel, assemble
from pag.diffusion.model.unet import ClassConditionalUNet, build_unet
from pag.foundation.artifacts import sha256
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.config.section import ConfigError
from pag.foundation.seeding import generator
from pag.gradients.score import score_based_gradients
from pag.images.dataset import ImageDataset, Split

unet = pytest.importorskip("guided_diffusion.unet", reason="guided-diffusion-sdk is not installed")
CLASSES, SIDE = 3, 8
OURS = {"channels": 32, "multipliers": [1, 2], "blocks": 1, "attention": [4], "head_dim": 32, "dropout": 0.0}
OURS |= {"timesteps": 1000, "learn_sigma": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "ADM": {"learn_sigma": True, "resblock_updown": True, "attention": [8, 4], "blocks": 2, "order": "new"},
    "ADM, legacy attention": {"resblock_updown": True, "head_dim": 16, "order": "legacy"},
    "improved-diffusion": {"learn_sigma": True, "heads": 4, "attention": [8, 4], "blocks": 2, "timesteps": 4000},
    "many timesteps": {"timesteps": 4000, "rescale_timesteps": False},
    "no scale-shift": {"scale_shift_norm": False, "multipliers": [1, 2, 2], "heads": 2},
    "attention in the middle": {"attention": [], "resblock_updown": True, "multipliers": [1, 1, 2], "head_dim": 8},
    "one level": {"multipliers": [1], "attention": [], "heads": 1, "order": "new"},
}


def described(variant: dict[str, Any]) -> tuple[DiffusionConfig, str]:
    values = {**OURS, **variant}
    order = values.pop("order", "legacy")
    return DiffusionConfig.model_validate(values), order


def their_network(config: DiffusionConfig, order: str, **changes: Any) -> nn.Module:
    """UNetModel by the arguments that its package's create_model would give it."""
    heads = {"num_head_channels": config.head_dim} if config.heads is None else {"num_heads": config.heads}
    arguments: dict[str, Any] = {
        "image_size": SIDE,
        "in_channels": 1,
        "model_channels": config.channels,
        "out_channels": 2 if config.learn_sigma else 1,
        "num_res_blocks": config.blocks,
        "attention_resolutions": tuple(SIDE // side for side in config.attention),
        "channel_mult": tuple(config.multipliers),
        "num_classes": CLASSES + 1,
        "use_scale_shift_norm": config.scale_shift_norm,
        "resblock_updown": config.resblock_updown,
        "use_new_attention_order": order == "new",
    }
    network = unet.UNetModel(**{**arguments, **heads, **changes})
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # also where it begins as zero
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.1)
    return network.eval()


def some_images() -> ImageDataset:
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 17, (20, 1, SIDE, SIDE)).astype(np.uint8), np.arange(20) % CLASSES, levels=16)
    return ImageDataset.create("some", ("a", "b", "c"), train=split, validation=split, test=split)


def with_checkpoint(config: DiffusionConfig, path: Path, order: str = "legacy") -> DiffusionConfig:
    checkpoint = {"path": str(path), "sha256": sha256(path), "attention_order": order}
    return DiffusionConfig.model_validate({**config.model_dump(), "checkpoint": checkpoint})


def converted(config: DiffusionConfig, order: str, theirs: nn.Module, folder: Path) -> DiffusionModel:
    torch.save(theirs.state_dict(), folder / "ema.pt")
    config, images = with_checkpoint(config, folder / "ema.pt", order), some_images()
    return assemble(convert(config, images), config, CLASSES, images.image_shape, "cpu", "")


def their_eps(config: DiffusionConfig, theirs: nn.Module, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """As the package's wrapped model calls it."""
    return theirs(x_t, t.float() * (1000.0 / config.timesteps) if config.rescale_timesteps else t, y)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_outputs_are_the_packages_own(name: str, tmp_path: Path) -> None:
    config, order = described(VARIANTS[name])
    theirs = their_network(config, order)
    ours = converted(config, order, theirs, tmp_path).network
    x_t = torch.randn(8, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    t, y = torch.arange(8) * (config.timesteps // 8), torch.arange(8) % (CLASSES + 1)
    expected = their_eps(config, theirs, x_t, t, y)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(x_t, t, y), expected, atol=1e-5, rtol=0)

    back = their_network(config, "legacy")
    assert isinstance(ours, ClassConditionalUNet)
    back.load_state_dict(to_guided(ours))
    torch.testing.assert_close(their_eps(config, back, x_t, t, y), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ADM", "improved-diffusion"])
@torch.no_grad()
def test_score_based_gradients_are_those_of_the_packages_diffusion(name: str, tmp_path: Path) -> None:
    """∇ log p(y|x_t) from the package's network, schedule and noising, at ᾱ = .5."""
    gaussian = pytest.importorskip("guided_diffusion.gaussian_diffusion")
    config, order = described(VARIANTS[name])
    theirs = their_network(config, order)
    model = converted(config, order, theirs, tmp_path)
    diffusion = gaussian.GaussianDiffusion(
        betas=gaussian.get_named_beta_schedule("cosine", config.timesteps),
        model_mean_type=gaussian.ModelMeanType.EPSILON,
        model_var_type=gaussian.ModelVarType.LEARNED_RANGE,
        loss_type=gaussian.LossType.MSE,
        rescale_timesteps=config.rescale_timesteps,
    )
    t = int(np.abs(diffusion.alphas_cumprod - 0.5).argmin())
    images = some_images().train.unit(np.arange(4))
    noise = torch.stack([torch.randn(1, SIDE, SIDE, generator=generator(7, "noise", i, 0)) for i in range(4)])
    times = torch.full((4,), t)
    x_t = diffusion.q_sample(2 * images - 1, times, noise)
    eps = [theirs(x_t, diffusion._scale_timesteps(times), torch.full((4,), y))[:, :1] for y in range(CLASSES + 1)]
    scale = float(np.sqrt(1 - diffusion.alphas_cumprod[t]))
    expected = torch.stack([(eps[-1] - of_class) / scale for of_class in eps[:-1]], 1)

    schedule = NoiseSchedule.from_config(config)
    found = score_based_gradients(model.network, images, torch.arange(4), schedule, t, CLASSES, 1, seed=7)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"model_channels": 64}, r"it has channels 64 \(here 32\)"),
    "several": ({"num_res_blocks": 2, "out_channels": 2}, r"blocks 2 \(here 1\), learn_sigma True \(here False\)"),
    "blocks": ({"attention_resolutions": (1,)}, r"attention \[8\] \(here \[4\]\)"),
    "resampling": ({"resblock_updown": True}, r"resblock_updown True \(here False\)"),
    "levels": ({"channel_mult": (1, 2, 2)}, r"multipliers \[1, 2, 2\] \(here \[1, 2\]\)"),
    "norm": ({"use_scale_shift_norm": False}, r"scale_shift_norm False \(here True\)"),
    "classes": ({"num_classes": CLASSES}, r"classes 3 \(here 4\); the last class means none"),
    "colour": ({"in_channels": 3, "out_channels": 3}, r"image channels 3 \(here 1\)"),
    "no classes": ({"num_classes": None}, "trained without class_cond"),
    "pooling": ({"conv_resample": False}, "conv_resample=False"),
    "wide stem": ({"channel_mult": (2, 2)}, "channel_mult begins with 2: expected 1"),
    "fraction": ({"channel_mult": (1, 1.5), "model_channels": 64}, r"channel_mult has 1\.5: expected whole numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    config, order = described({"head_dim": 32})
    theirs = their_network(config, order, **changes)
    with pytest.raises(ConfigError, match=message):
        converted(config, order, theirs, tmp_path)


def test_an_extra_weight_has_no_place(tmp_path: Path) -> None:
    config, _ = described({})
    weights = their_network(config, "legacy").state_dict()
    for name, content, message in [
        ("more", {**weights, "extra.weight": torch.ones(2)}, r"no place for its extra\.weight"),
        ("fewer", {key: weights[key] for key in weights if key != "out.0.bias"}, r"it has no out\.0\.bias"),
        ("other", {"state_dict": weights}, "no state dict"),
        ("other shape", {**weights, "out.0.bias": torch.ones(2)}, r"its out\.0\.bias has shape \(2,\)"),
    ]:
        torch.save(content, tmp_path / name)
        with pytest.raises(ConfigError, match=message):
            convert(with_checkpoint(config, tmp_path / name), some_images())


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("was-run"),)


def test_a_checkpoint_runs_no_code_and_is_the_one_that_was_meant(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = described({})
    torch.save({"time_embed.0.weight": Evil()}, "evil.pt")
    with pytest.raises(ConfigError, match=r"evil\.pt cannot be read as PyTorch weights alone"):
        convert(with_checkpoint(config, Path("evil.pt")), some_images())
    assert not Path("was-run").exists()
    meant = with_checkpoint(config, Path("evil.pt"))
    Path("evil.pt").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"diffusion\.checkpoint\.sha256: evil\.pt has .*, the conf says"):
        convert(meant, some_images())
    Path("evil.pt").unlink()
    with pytest.raises(ConfigError, match=r"diffusion\.checkpoint\.path: there is no file evil\.pt"):
        convert(meant, some_images())


class PerfectNetwork(nn.Module):
    """Knows that every image is black."""

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        alpha_bar = NoiseSchedule.cosine(1000).alpha_bar[t].float()[:, None, None, None]
        return (x_t + alpha_bar.sqrt()) / (1 - alpha_bar).sqrt()


def test_judgement_of_a_converted_network() -> None:
    config, _ = described({})
    black = Split(np.zeros((20, 1, SIDE, SIDE), np.uint8), np.arange(20) % CLASSES)
    images = ImageDataset.create("black", ("a", "b", "c"), train=black, validation=black, test=black)
    cpu = torch.device("cpu")
    assert judge(DiffusionModel(PerfectNetwork(), config, CLASSES, ""), images, 0, cpu) < 1e-6
    untrained = build_unet(config, 1, SIDE, CLASSES)  # predicts zero
    assert judge(DiffusionModel(untrained, config, CLASSES, ""), images, 0, cpu) == pytest.approx(1, abs=0.03)
