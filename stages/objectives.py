"""From configuration to objective: the baselines' losses."""

from pag.attacks.threat_model import ThreatModel
from pag.config.conf import MethodsConfig
from pag.config.section import RobustMethod
from pag.objectives.adversarial import AdversarialTraining, Trades
from pag.objectives.batch import Objective
from pag.objectives.classification import cross_entropy as vanilla

__all__ = ["robust_objective", "vanilla"]


def robust_objective(method: RobustMethod, methods: MethodsConfig) -> Objective:
    """Adversarial training or TRADES as conf's section `method` describes it."""
    config = methods.adversarial(method)
    threat_model = ThreatModel(config.norm, config.eps)
    step_size = config.step_size or 1.5 * config.eps / config.steps
    if config.beta is None:
        return AdversarialTraining(threat_model, config.steps, step_size)
    return Trades(threat_model, config.steps, step_size, config.beta)
