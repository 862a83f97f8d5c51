"""SBG against the analytic score of a Gaussian mixture, and its independence of the batch."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pag.diffusion.model.schedule import NoiseSchedule
from pag.diffusion.model.unet import build_unet
from pag.foundation.config.diffusion import DiffusionConfig
from pag.foundation.seeding import generator
from pag.gradients import score
from pag.gradients.score import passes, score_based_gradients

SCHEDULE = NoiseSchedule.cosine(1000)
T = SCHEDULE.nearest_t(0.5)
ALPHA_BAR = float(SCHEDULE.alpha_bar[T])
CLASSES, MODES, SHAPE = 3, 2, (1, 2, 2)
SPREAD = 0.3
CENTRES = torch.empty(CLASSES, MODES, 4).uniform_(-1, 1, generator=torch.Generator().manual_seed(5)).double()


def log_joint(x_t: Tensor) -> Tensor:
    """log p(x_t, y) up to a constant, (B, CLASSES), of a mixture whose classes and modes are equally likely."""
    variance = ALPHA_BAR * SPREAD**2 + 1 - ALPHA_BAR
    distance = (x_t.flatten(1)[:, None, None] - ALPHA_BAR**0.5 * CENTRES).square().sum(-1)
    return torch.logsumexp(-distance / (2 * variance), dim=2)


class OptimalNetwork(nn.Module):
    """E[noise | x_t, y] = −√(1−ᾱ) ∇ log p(x_t | y), from the modes' responsibilities; y = CLASSES means no class."""

    def __init__(self, garbage_sigma: bool = False) -> None:
        super().__init__()
        self.garbage_sigma = garbage_sigma
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        assert (t == T).all()
        self.seen.append((x_t, class_labels))
        variance = ALPHA_BAR * SPREAD**2 + 1 - ALPHA_BAR
        to_centres = ALPHA_BAR**0.5 * CENTRES - x_t.flatten(1).double()[:, None, None]  # (B, CLASSES, MODES, 4)
        logits = -to_centres.square().sum(-1) / (2 * variance)
        other_class = torch.arange(CLASSES) != class_labels[:, None]
        logits = logits.masked_fill((other_class & (class_labels < CLASSES)[:, None])[..., None], -torch.inf)
        weights = logits.flatten(1).softmax(1).reshape(-1, CLASSES, MODES, 1)
        eps_pred = (
            (-((1 - ALPHA_BAR) ** 0.5) * (weights * to_centres).sum((1, 2)) / variance).reshape(x_t.shape).float()
        )
        return torch.cat([eps_pred, 100 * torch.ones_like(eps_pred)], 1) if self.garbage_sigma else eps_pred


def some_images(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def noised(images: Tensor, indices: Tensor, draw: int, seed: int) -> Tensor:
    """x_t as documented: noise named by (seed, "noise", index, draw)."""
    noise = torch.stack([torch.randn(SHAPE, generator=generator(seed, "noise", int(i), draw)) for i in indices])
    return (ALPHA_BAR**0.5 * (2 * images - 1) + (1 - ALPHA_BAR) ** 0.5 * noise).double()


def gradients_of_log_posterior(x_t: Tensor) -> Tensor:
    """∇ log p(y|x_t) by autograd, (B, CLASSES, *SHAPE)."""
    x_t = x_t.clone().requires_grad_()
    log_posterior = log_joint(x_t).log_softmax(1)
    return torch.stack([torch.autograd.grad(log_posterior[:, y].sum(), x_t, retain_graph=True)[0] for y in range(3)], 1)


@pytest.mark.parametrize("garbage_sigma", [False, True])
@pytest.mark.parametrize("noise_draws", [1, 3])
def test_sign_and_scale_on_a_gaussian_mixture(noise_draws: int, garbage_sigma: bool) -> None:
    images, indices = some_images(20), torch.arange(100, 120)
    model = OptimalNetwork(garbage_sigma)
    gradients = score_based_gradients(model, images, indices, SCHEDULE, T, CLASSES, noise_draws, seed=7)
    draws = [gradients_of_log_posterior(noised(images, indices, draw, seed=7)) for draw in range(noise_draws)]
    torch.testing.assert_close(gradients.double(), torch.stack(draws).mean(0), atol=1e-5, rtol=1e-4)


def test_a_step_along_the_gradient_makes_the_class_likelier() -> None:
    images, indices = some_images(20), torch.arange(20)
    gradients = score_based_gradients(OptimalNetwork(), images, indices, SCHEDULE, T, CLASSES, 1, seed=0).double()
    x_t = noised(images, indices, draw=0, seed=0)
    before = log_joint(x_t).softmax(1)
    for y in range(CLASSES):
        after = log_joint(x_t + 0.05 * gradients[:, y]).softmax(1)
        assert (after[:, y] > before[:, y]).all()


def test_one_noise_draw_serves_all_classes_of_an_image() -> None:
    model = OptimalNetwork()
    score_based_gradients(model, some_images(2), torch.tensor([4, 9]), SCHEDULE, T, CLASSES, 1, seed=0)
    x_t, labels = (torch.cat(parts) for parts in zip(*model.seen, strict=True))
    for slot in (4, 9):
        of_image = slice(slot * (CLASSES + 1), (slot + 1) * (CLASSES + 1))
        assert labels[of_image].tolist() == [0, 1, 2, 3]
        assert (x_t[of_image] == x_t[of_image][0]).all()


def test_network_is_put_into_eval_mode() -> None:
    model = OptimalNetwork().train()
    score_based_gradients(model, some_images(1), torch.tensor([0]), SCHEDULE, T, CLASSES, 1, seed=0)
    assert not model.training


@pytest.mark.parametrize("t", [-1, 1000])
def test_level_outside_the_schedule_is_refused(t: int) -> None:
    with pytest.raises(ValueError, match=rf"t = {t} lies outside the schedule: expected 0\.\.999"):
        score_based_gradients(OptimalNetwork(), some_images(1), torch.tensor([0]), SCHEDULE, t, CLASSES, 1, seed=0)


class PositionDependent(nn.Module):
    """What rounding does in a real network, exaggerated: the pass's size and the place in it change the output."""

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        place = torch.arange(len(x_t), dtype=torch.float32)[:, None, None, None]
        return x_t * (1 + class_labels[:, None, None, None]) + place.cos() + len(x_t)


def random_unet(num_classes: int) -> nn.Module:
    sizes = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4], "head_dim": 16, "dropout": 0.5}
    config = DiffusionConfig.model_validate({**sizes, "timesteps": 1000, "learn_sigma": False})
    model = build_unet(config, in_channels=1, image_size=8, num_classes=num_classes)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=random)
    return model


@pytest.mark.parametrize("batches", [[1] * 23, [3] * 7 + [2], [7, 7, 7, 2], "shuffled"])
@pytest.mark.parametrize("network", ["unet", "position-dependent", "position-dependent, 40 classes"])
@pytest.mark.usefixtures("two_threads")
def test_same_bits_whatever_the_batch(network: str, batches: list[int] | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(score.GROUP, "cpu", 8)
    num_classes = 40 if network.endswith("40 classes") else 3
    model = random_unet(num_classes) if network == "unet" else PositionDependent()
    images = torch.rand(23, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    order = (
        torch.randperm(23, generator=torch.Generator().manual_seed(1)) if batches == "shuffled" else torch.arange(23)
    )

    def run(rows: Tensor) -> Tensor:
        return score_based_gradients(model, images[rows], rows + 5, SCHEDULE, T, num_classes, 1, seed=3)

    result = torch.empty(23, num_classes, 1, 8, 8)
    for rows in order.split(batches if isinstance(batches, list) else 5):
        result[rows] = run(rows)
    assert torch.equal(result, run(torch.arange(23)))


def test_samples_per_pass_are_bounded_and_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(score.GROUP, "cpu", 4)
    monkeypatch.setitem(score.MAX_SAMPLES, "cpu", 7)
    images, indices = some_images(6), torch.arange(6)
    model = OptimalNetwork()
    gradients = score_based_gradients(model, images, indices, SCHEDULE, T, CLASSES, 1, seed=0)
    assert {len(x_t) for x_t, _ in model.seen} == {6}  # 4 · (3 + 1) pairs in 3 passes
    expected = gradients_of_log_posterior(noised(images, indices, draw=0, seed=0))
    torch.testing.assert_close(gradients.double(), expected, atol=1e-5, rtol=1e-4)


def test_consecutive_images_fill_the_passes() -> None:
    assert passes(torch.arange(6, 14), group=4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert passes(torch.tensor([0, 4, 8, 1]), group=4) == [[0, 3], [1], [2]]


def test_network_of_another_size() -> None:
    """A network that works at 2×2 on flat 6×6 images: the gradient of the flat 2×2 image, spread over 6×6."""
    flat, indices = torch.full((1, 1, 6, 6), 0.7), torch.tensor([0])
    large = score_based_gradients(OptimalNetwork(), flat, indices, SCHEDULE, T, CLASSES, 1, seed=0, image_size=2)
    small = score_based_gradients(OptimalNetwork(), flat[..., :2, :2], indices, SCHEDULE, T, CLASSES, 1, seed=0)
    assert large.shape == (1, CLASSES, 1, 6, 6)
    torch.testing.assert_close(large.mean((-1, -2)), small.mean((-1, -2)))
    quarters = nn.functional.avg_pool2d(large.flatten(0, 1), 3).flatten(1)
    assert torch.cosine_similarity(quarters, small.flatten(0, 1).flatten(1)).min() > 0.99


def test_bfloat16_where_it_is_asked_for_and_close() -> None:
    model, images, indices = random_unet(3), torch.rand(4, 1, 8, 8), torch.arange(4)
    seen: list[bool] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(torch.is_autocast_enabled("cpu")))

    def gradients(precision: Literal["float32", "bf16"]) -> Tensor:
        seen.clear()
        return score_based_gradients(model, images, indices, SCHEDULE, T, 3, 1, seed=0, precision=precision)

    exact = gradients("float32")
    assert seen and not any(seen)
    rough = gradients("bf16")
    assert seen and all(seen)
    cosine = torch.cosine_similarity(exact.flatten(2), rough.flatten(2), dim=2)
    assert rough.dtype == torch.float32
    assert cosine.min() > 0.95
