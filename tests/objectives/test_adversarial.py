"""Adversarial objectives against what they must reduce to."""

import pytest
import torch
from torch import Tensor, nn

from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch

IMAGES = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
BATCH = Batch(IMAGES, torch.tensor([0, 1, 2, 3, 0, 1]), seed=11)
THREATS = [ThreatModel("L2", 0.5), ThreatModel("Linf", 0.1)]


class Recorder(nn.Module):
    """A small classifier that remembers what it was given, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)
            )
        self.seen: list[tuple[Tensor, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images.detach().clone(), self.training, self.network[0].weight.requires_grad))
        return self.network(images)


def objectives(threat_model: ThreatModel) -> list:
    step_size = threat_model.eps / 2
    return [
        AdversarialTraining(threat_model, 5, step_size),
        Trades(threat_model, 5, step_size, beta=6.0),
    ]


@pytest.mark.parametrize("threat_model", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize("index", [0, 1], ids=["at", "trades"])
def test_trains_on_images_inside_the_ball(threat_model: ThreatModel, index: int) -> None:
    model = Recorder().train()
    objectives(threat_model)[index](model, BATCH)
    x_adv, training, _ = model.seen[-1]
    assert training
    assert 0 < threat_model.distance(x_adv - IMAGES).max() <= threat_model.eps * (1 + 1e-5)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@pytest.mark.parametrize("threat_model", THREATS, ids=lambda threat: threat.norm)
def test_more_steps_find_a_larger_loss(threat_model: ThreatModel) -> None:
    terms = []
    for steps in (1, 10):
        at = AdversarialTraining(threat_model, steps, threat_model.eps / 4)(Recorder().train(), BATCH)
        trades = Trades(threat_model, steps, threat_model.eps / 4, beta=6.0)(Recorder().train(), BATCH)
        terms.append((at["cross_entropy"], trades["divergence"]))
    assert terms[1][0] > terms[0][0]
    assert terms[1][1] > terms[0][1]


@pytest.mark.parametrize("index", [0, 1], ids=["at", "trades"])
def test_crafting_leaves_statistics_mode_and_parameters_alone(index: int) -> None:
    model = Recorder().train()
    terms = objectives(THREATS[0])[index](model, BATCH)
    crafting = [entry for entry in model.seen if not entry[1]]
    assert len(crafting) == 5 + index  # TRADES also asks for the clean prediction
    assert not any(requires_grad for _, _, requires_grad in crafting)
    assert model.training
    assert model.network[1].num_batches_tracked == 1 + index  # the passes that are trained on
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_frozen_parameter_stays_frozen_and_an_error_restores_the_mode() -> None:
    model = Recorder().train()
    model.network[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="PGD with steps = 0"):
        AdversarialTraining(THREATS[0], 0, 0.1)(model, BATCH)
    assert model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["network.0.bias"]


def test_trades_without_weight_is_plain_training_on_the_clean_images() -> None:
    model = Recorder().train()
    terms = Trades(THREATS[0], 2, 0.2, beta=0.0)(model, BATCH)
    assert terms["divergence"] == 0
    assert torch.equal(terms["cross_entropy"], cross_entropy(model, BATCH)["cross_entropy"])


def test_divergence_is_the_mean_kl_between_clean_and_adversarial_predictions() -> None:
    model = Recorder().train()
    terms = Trades(THREATS[0], 2, 0.2, beta=3.0)(model, BATCH)
    clean, adversarial = (model.network(images).softmax(1).double() for images, _, _ in model.seen[-2:])
    expected = 3 * (clean * (clean / adversarial).log()).sum(1).mean()
    assert terms["divergence"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_random_start_belongs_to_the_batch() -> None:
    objective = AdversarialTraining(THREATS[0], 1, 0.2)
    losses = [objective(Recorder().train(), Batch(IMAGES, BATCH.labels, seed))["cross_entropy"] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
