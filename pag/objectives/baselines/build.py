"""From configuration to objective: training without alignment, or what alignment is added to."""

from pag.foundation.config.conf import MethodsConfig
from pag.foundation.config.section import Baseline
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Objective


def baseline_objective(method: Baseline, methods: MethodsConfig) -> Objective:
    """Plain training, adversarial training or TRADES, as conf's section `method` describes it."""
    if method == "vanilla":
        return cross_entropy
    config = methods.adversarial(method)
    threat_model = ThreatModel(config.norm, config.eps)
    step_size = config.step_size or 1.5 * config.eps / config.steps
    if config.beta is None:
        return AdversarialTraining(threat_model, config.steps, step_size)
    return Trades(threat_model, config.steps, step_size, config.beta)
