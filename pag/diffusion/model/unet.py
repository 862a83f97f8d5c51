"""The class-conditional U-Net of improved-diffusion (Nichol and Dhariwal 2021), built from diffusers' blocks."""

import math

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from pag.foundation.config.diffusion import DiffusionConfig


class ClassConditionalUNet(nn.Module):
    """Noise prediction eps_pred(x_t, t, y) for y = 0..num_classes−1, and without a class for y = num_classes.

    The time embedding sees t · time_scale, 1000/T as in improved-diffusion: its sinusoids were chosen for 0..1000, and
    a network meets the same range whatever the length of the schedule.
    """

    def __init__(self, net: UNet2DModel, time_scale: float) -> None:
        super().__init__()
        self.net = net
        self.time_scale = time_scale

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        """x_t (B, C, H, W) around [−1, 1], t (B,) or (), class_labels (B,) → (B, C, H, W), or (B, 2C, H, W) with
        learned sigma: the noise prediction, then the interpolation between the variance bounds."""
        return self.net(x_t, t.float() * self.time_scale, class_labels, return_dict=False)[0]


def build_unet(config: DiffusionConfig, in_channels: int, image_size: int, num_classes: int) -> ClassConditionalUNet:
    """The network of `config` for images of `in_channels` and side `image_size`; random weights from the global RNG.

    Raises ValueError when the architecture does not fit the image size or the heads do not fit the channels.
    """
    side = config.image_size or image_size
    sides = _sides(side, len(config.multipliers), config.attention)
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    attends = [level_side in config.attention for level_side in sides]
    _check_heads(config, widths, attends)
    groups = math.gcd(config.channels, 32)  # 32 groups as published; narrower networks get what divides their widths
    resampling, down, up = "conv", "DownBlock2D", "UpBlock2D"
    if config.resblock_updown:
        resampling, down, up = "resnet", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    net = UNet2DModel(
        sample_size=side,
        in_channels=in_channels,
        out_channels=in_channels * (2 if config.learn_sigma else 1),
        block_out_channels=tuple(widths),
        layers_per_block=config.blocks,
        down_block_types=tuple("AttnDownBlock2D" if attend else down for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else up for attend in reversed(attends)),
        downsample_type=resampling,
        upsample_type=resampling,
        attention_head_dim=config.head_dim if config.heads is None else 1,
        dropout=config.dropout,
        norm_num_groups=groups,
        attn_norm_num_groups=groups,  # by default the middle block's attention goes unnormalised with scale-shift
        resnet_time_scale_shift="scale_shift" if config.scale_shift_norm else "default",
        num_class_embeds=num_classes + 1,
    )
    for module in net.modules():
        if isinstance(module, Attention) and config.heads is not None:
            module.heads = config.heads  # diffusers has one head_dim for all levels
    _zero_outputs(net)
    return ClassConditionalUNet(net, 1000 / config.timesteps if config.rescale_timesteps else 1)


def _zero_outputs(net: UNet2DModel) -> None:
    """Every residual branch and the network itself start as zero, which diffusers leaves out."""
    outputs: list[nn.Module] = [net.conv_out]
    for module in net.modules():
        if isinstance(module, ResnetBlock2D):
            outputs.append(module.conv2)
        elif isinstance(module, Attention):
            outputs.append(module.to_out[0])
    for output in outputs:
        for parameter in output.parameters():
            nn.init.zeros_(parameter)


def _sides(side: int, levels: int, attention: list[int]) -> list[int]:
    """The resolution of each level, in pixels a side."""
    if side % 2 ** (levels - 1):
        raise ValueError(
            f"images of side {side} cannot be halved {levels - 1} times: shorten diffusion.multipliers "
            f"or set diffusion.image_size to a multiple of {2 ** (levels - 1)}"
        )
    sides = [side // 2**level for level in range(levels)]
    if missing := [resolution for resolution in attention if resolution not in sides]:
        raise ValueError(f"diffusion.attention = {missing}: the U-Net has no such resolution, only {sides}")
    return sides


def _check_heads(config: DiffusionConfig, widths: list[int], attends: list[bool]) -> None:
    key, parts = ("head_dim", config.head_dim) if config.heads is None else ("heads", config.heads)
    attended = {width for width, attend in zip(widths, attends, strict=True) if attend}
    attended.add(widths[-1])  # the middle block always has attention
    if bad := sorted(width for width in attended if width % parts):
        raise ValueError(f"diffusion.{key} = {parts} does not divide the {bad[0]} channels of a level with attention")


def eps_half(output: Tensor, channels: int) -> Tensor:
    """The noise prediction (B, channels, H, W) in a network output with or without learned sigma."""
    assert output.shape[1] in (channels, 2 * channels), output.shape
    return output[:, :channels]
