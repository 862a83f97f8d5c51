"""Random crops and flips, drawn once per image and epoch and applied alike to the image and to its gradients."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pag.foundation.seeding import generator


@dataclass(frozen=True)
class AugmentationPlan:
    """What happens to every image of the data set in one epoch."""

    offsets: (
        torch.Tensor
    )  # int64 (N, 2): top left corner (row, column) of the crop in the padded image, 0..2·crop_padding
    flips: torch.Tensor  # bool (N,): mirrored left to right after the crop
    crop_padding: int  # pixels of zeros on each side
    identity: bool  # nothing to do for any image


def draw(num_images: int, crop_padding: int, flip: bool, seed: int, epoch: int) -> AugmentationPlan:
    """One epoch's plan: crops uniform over all positions, flips with probability 1/2."""
    stream = generator(seed, "augment", epoch)
    offsets = torch.randint(2 * crop_padding + 1, (num_images, 2), generator=stream)
    flips = torch.randint(2, (num_images,), generator=stream) == 1
    return AugmentationPlan(
        offsets, flips if flip else torch.zeros_like(flips), crop_padding, not (crop_padding or flip)
    )


def apply(plan: AugmentationPlan, indices: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Crop (zero padding), then flip each sample of `tensor` as the plan says for the images `indices` (B,).

    tensor (B, …, H, W) of any dtype and device: images (B, C, H, W) as well as gradients (B, k, C, H, W). The result
    has its shape; where the plan changes nothing it is `tensor` itself.
    """
    if plan.identity:
        return tensor
    assert len(indices) == len(tensor), (indices.shape, tensor.shape)
    batch, (height, width) = len(tensor), tensor.shape[-2:]
    device, padding = tensor.device, plan.crop_padding
    indices = indices.to(plan.offsets.device)
    offsets, flips = plan.offsets[indices].to(device), plan.flips[indices].to(device)

    # where each output pixel comes from, as a position in the flattened padded image: (B, H, W)
    columns = torch.arange(width, device=device)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + offsets[:, 1, None]
    rows = torch.arange(height, device=device) + offsets[:, 0, None]
    positions = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]

    planes = F.pad(tensor.reshape(batch, -1, height, width), (padding,) * 4).flatten(2)
    positions = positions.reshape(batch, 1, -1).expand(-1, planes.shape[1], -1)
    return planes.gather(2, positions).reshape(tensor.shape)
