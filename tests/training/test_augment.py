import pytest
import torch

from pag.training import augment


def expected(plan: augment.AugmentationPlan, index: int, sample: torch.Tensor) -> torch.Tensor:
    """The definition, one pixel at a time."""
    out = torch.zeros_like(sample)
    height, width = sample.shape[-2:]
    top, left = (plan.offsets[index] - plan.crop_padding).tolist()
    for y in range(height):
        for x in range(width):
            column = width - 1 - x if plan.flips[index] else x
            if 0 <= y + top < height and 0 <= column + left < width:
                out[..., y, x] = sample[..., y + top, column + left]
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 3, 5, 7), (2, 1, 6, 4)])
def test_apply_is_the_definition(shape, flip):
    plan = augment.draw(50, crop_padding=2, flip=flip, seed=3, epoch=1)
    indices = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:16]
    tensor = torch.arange(16 * 105 * 8)[: 16 * torch.Size(shape).numel()].reshape(16, *shape).to(torch.int8)
    out = augment.apply(plan, indices, tensor)
    assert out.dtype == torch.int8
    for index, before, after in zip(indices.tolist(), tensor, out, strict=True):
        assert torch.equal(after, expected(plan, index, before))


def test_gradients_move_with_their_image():
    plan = augment.draw(32, crop_padding=4, flip=True, seed=0, epoch=0)
    indices = torch.arange(32)
    images = torch.randint(0, 100, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    gradients = torch.stack([images, -images], dim=1).to(torch.int8)
    moved = augment.apply(plan, indices, images.to(torch.uint8)).to(torch.int8)
    assert torch.equal(augment.apply(plan, indices, gradients), torch.stack([moved, -moved], dim=1))


def test_samples_differ_within_a_batch_and_between_epochs():
    first, second = (augment.draw(1000, crop_padding=4, flip=True, seed=0, epoch=epoch) for epoch in (0, 1))
    assert torch.equal(first.offsets, augment.draw(1000, crop_padding=4, flip=True, seed=0, epoch=0).offsets)
    assert not torch.equal(first.offsets, second.offsets)
    assert not torch.equal(first.flips, second.flips)
    assert first.offsets.unique().tolist() == list(range(9)), "every position of the crop"
    assert 400 < first.flips.sum() < 600


def test_flips_do_not_depend_on_whether_they_are_used():
    """The crops of two runs that differ in `flip` only are the same."""
    assert torch.equal(augment.draw(9, 4, True, 0, 0).offsets, augment.draw(9, 4, False, 0, 0).offsets)


def test_identity_returns_the_tensor_itself():
    plan = augment.draw(10, crop_padding=0, flip=False, seed=0, epoch=0)
    tensor = torch.zeros(4, 1, 8, 8)
    assert augment.apply(plan, torch.arange(4), tensor) is tensor
    assert torch.equal(augment.apply(plan, torch.arange(4), torch.zeros(4, 2)), torch.zeros(4, 2)), "points pass"


def test_noncontiguous_input():
    plan = augment.draw(4, crop_padding=2, flip=True, seed=0, epoch=0)
    images = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).float()
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        augment.apply(plan, torch.arange(4), images), augment.apply(plan, torch.arange(4), channels_last)
    )


@pytest.mark.gpu
def test_gpu_equals_cpu():
    plan = augment.draw(64, crop_padding=4, flip=True, seed=0, epoch=0)
    images = torch.randint(0, 255, (64, 3, 32, 32), dtype=torch.uint8)
    out = augment.apply(plan, torch.arange(64, device="cuda"), images.cuda())
    assert torch.equal(out.cpu(), augment.apply(plan, torch.arange(64), images))
