"""From a run to its objective: training without alignment, or what alignment is added to."""

from pag.foundation.config.runs import Run
from pag.foundation.config.training import MethodsConfig
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.objectives.baselines.gaussian_noise import GaussianNoise
from pag.objectives.baselines.gradient_norm import GradientNorm
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Objective


def baseline_objective(run: Run, methods: MethodsConfig) -> Objective:
    """The objective of the run's baseline, as the run and conf's section of that name describe it."""
    assert run.baseline is not None
    if run.baseline == "vanilla":
        return cross_entropy
    if run.baseline == "gradnorm":
        assert run.penalty is not None
        return GradientNorm(run.penalty)
    if run.baseline == "noise":
        assert methods.noise is not None  # a run without it is refused
        return GaussianNoise(methods.noise.sigma)
    config = methods.adversarial(run.baseline)
    threat_model = ThreatModel(config.norm, config.eps)
    step_size = config.step_size or 1.5 * config.eps / config.steps
    if config.beta is None:
        return AdversarialTraining(threat_model, config.steps, step_size)
    return Trades(threat_model, config.steps, step_size, config.beta)
