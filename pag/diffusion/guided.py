"""The weights of the U-Net of guided-diffusion (Dhariwal and Nichol 2021) and improved-diffusion as ours, and back.

Both packages write the same names. A layer of theirs is one of ours, but for attention: they project q, k and v with
one convolution, whose rows stand head by head (q, k, v of the first head, then of the second: the "legacy" order) or
all q first ("new").
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from pag.diffusion.model.unet import ClassConditionalUNet

AttentionOrder = Literal["legacy", "new"]
LAYERS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"}
PARTS = ("to_q", "to_k", "to_v")  # of their projection


class DoesNotFit(ValueError):  # noqa: N818 (an outcome, of which callers make an error of their own)
    """Weights that are of another network; the message says which."""


@dataclass(frozen=True)
class Counterpart:
    """A weight or bias of theirs, or a part of it."""

    name: str
    part: int | None = None  # of the joint projection
    heads: int = 1


def from_guided(
    theirs: Mapping[str, Tensor], network: ClassConditionalUNet, order: AttentionOrder
) -> dict[str, Tensor]:
    """Their weights as `network.load_state_dict` takes them, float32.

    Raises KeyError if one is missing, DoesNotFit if one is of another shape or has no place in `network`.
    """
    ours, places = {}, counterparts(network)
    for name, mine in network.state_dict().items():
        their = places[name]
        tensor = theirs[their.name].float()
        if tensor.numel() != mine.numel() * (1 if their.part is None else len(PARTS)):
            raise DoesNotFit(f"its {their.name} has shape {tuple(tensor.shape)}, our {name} {tuple(mine.shape)}")
        if their.part is not None:
            tensor = _split(tensor, their.heads, order)[their.part]
        ours[name] = tensor.reshape(mine.shape).clone()
    if unknown := sorted(theirs.keys() - {their.name for their in places.values()}):
        raise DoesNotFit(f"our network has no place for its {unknown[0]}")
    return ours


def to_guided(network: ClassConditionalUNet, order: AttentionOrder = "legacy") -> dict[str, Tensor]:
    """The weights of `network` as `load_state_dict` of both packages' UNetModel takes them."""
    theirs: dict[str, Tensor] = {}
    projections: dict[Counterpart, list[Tensor]] = defaultdict(list)
    places = counterparts(network)
    for name, mine in network.state_dict().items():
        their, tensor = places[name], mine.detach().cpu().clone()
        if their.name.endswith(("qkv.weight", "proj_out.weight")):
            tensor.unsqueeze_(-1)  # of a convolution over the pixels in a row
        if their.part is None:
            theirs[their.name] = tensor
        else:
            projections[Counterpart(their.name, heads=their.heads)].append(tensor)
    for their, parts in projections.items():
        theirs[their.name] = _join(parts, their.heads, order)
    return theirs


def _split(qkv: Tensor, heads: int, order: AttentionOrder) -> tuple[Tensor, ...]:
    """(3W, …) → q, k and v, (W, …) each with the channels of a head side by side."""
    if order == "new":
        return qkv.chunk(3)
    return tuple(part.flatten(0, 1) for part in qkv.unflatten(0, (heads, 3, -1)).unbind(1))


def _join(parts: list[Tensor], heads: int, order: AttentionOrder) -> Tensor:
    if order == "new":
        return torch.cat(parts)
    return torch.stack([part.unflatten(0, (heads, -1)) for part in parts], dim=1).flatten(0, 2)


def counterparts(network: ClassConditionalUNet) -> dict[str, Counterpart]:
    """Our weights and biases by name → theirs."""
    places = {}
    for ours, theirs in _layers(network.net):
        layer = network.net.get_submodule(ours)
        parent, _, last = ours.rpartition(".")
        where: dict[str, Any] = {}
        if last in PARTS:
            where = {"part": PARTS.index(last), "heads": network.net.get_submodule(parent).heads}
        for kind, _ in layer.named_parameters():
            places[f"net.{ours}.{kind}"] = Counterpart(f"{theirs}.{kind}", **where)
    return places


def _layers(net: Any) -> Iterator[tuple[str, str]]:
    """(our layer, theirs) by name; in their network the layers of all levels are numbered through."""
    yield from LAYERS.items()
    number = count(1)
    for level, block in enumerate(net.down_blocks):
        for index in range(len(block.resnets)):
            yield from _pair(net, f"down_blocks.{level}", index, f"input_blocks.{next(number)}")
        if block.downsamplers:
            yield from _inside(net, f"down_blocks.{level}.downsamplers.0", f"input_blocks.{next(number)}.0", "op")
    yield from _inside(net, "mid_block.resnets.0", "middle_block.0")
    yield from _inside(net, "mid_block.attentions.0", "middle_block.1")
    yield from _inside(net, "mid_block.resnets.1", "middle_block.2")
    number = count()
    for level, block in enumerate(net.up_blocks):
        for index in range(len(block.resnets)):
            theirs = f"output_blocks.{next(number)}"
            yield from _pair(net, f"up_blocks.{level}", index, theirs)
        if block.upsamplers:  # behind the last pair
            place = 2 if hasattr(block, "attentions") else 1
            yield from _inside(net, f"up_blocks.{level}.upsamplers.0", f"{theirs}.{place}", "conv")


def _pair(net: Any, block: str, index: int, theirs: str) -> Iterator[tuple[str, str]]:
    """A residual block, and the attention behind it where the level has one."""
    yield from _inside(net, f"{block}.resnets.{index}", f"{theirs}.0")
    if hasattr(net.get_submodule(block), "attentions"):
        yield from _inside(net, f"{block}.attentions.{index}", f"{theirs}.1")


def _inside(net: Any, ours: str, theirs: str, convolution: str = "") -> Iterator[tuple[str, str]]:
    """The layers of a residual block, of attention, or the one `convolution` that changes the resolution."""
    block = net.get_submodule(ours)
    if isinstance(block, ResnetBlock2D):
        layers = {name: layer for name, layer in RESIDUAL.items() if getattr(block, name) is not None}
    else:
        layers = ATTENTION if isinstance(block, Attention) else {"conv": convolution}
    for name, layer in layers.items():
        yield f"{ours}.{name}", f"{theirs}.{layer}"
