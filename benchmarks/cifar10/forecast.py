"""How long the stages still take: as planned, corrected by what their kind took so far."""

from dataclasses import dataclass

from benchmarks.cifar10 import schedule
from benchmarks.cifar10.plan import Plan, Rates, Sizes, distillation_seconds
from benchmarks.cifar10.schedule import Stage
from benchmarks.cifar10.state import State


@dataclass
class Forecast:
    """Seconds of stages. `plan` is None as long as only the diffusion model and the gradients are decided on."""

    state: State
    rates: Rates
    sizes: Sizes
    diffusion_steps: int
    beside_training: bool  # whether evaluations share the GPU with the training
    plan: Plan | None = None

    def stage(self, name: str) -> float:
        """What the stage of this name still takes."""
        kind, _, what = name.partition(" ")
        if kind == "distill":
            return distillation_seconds(self.rates, self.sizes, what)
        if name == schedule.DIFFUSION.name:
            whole = self.diffusion_steps * self.rates.diffusion_step + self.rates.compile_diffusion
        else:
            whole = self.planned(name)
        return max(self.sizes.stage_overhead, whole - self.state.partial.get(name, 0.0))

    def planned(self, name: str) -> float:
        """The whole of a classifier's training or evaluation, by itself."""
        assert self.plan is not None, name
        return self._correction(name.split(maxsplit=1)[0]) * self.plan.seconds[name]

    def kept_from_others(self, evaluation: str) -> float:
        """The seconds for which an evaluation keeps everything else from running."""
        return self.sizes.attack_share * self.planned(evaluation)

    def is_pending(self, stage: Stage) -> bool:
        """Whether an evaluation is still to be done, of a classifier that is trained."""
        return stage.is_evaluation and stage.name not in self.state.stages and stage.needs[0] in self.state.stages

    def _correction(self, kind: str) -> float:
        """Seconds over planned seconds of the finished stages of a kind.

        Evaluations beside a training share the GPU with it: how long they take says nothing of their work.
        """
        assert self.plan is not None
        done = [name for name in self.plan.seconds if name.startswith(kind) and name in self.state.stages]
        if not done or (kind == "evaluate" and self.beside_training):
            return 1.0
        taken = sum(self.state.stages[name]["seconds"] for name in done)
        return taken / sum(self.plan.seconds[name] for name in done)
