"""The stages of the run, what each needs, and which comes next."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import click

from benchmarks.cifar10.settings import DATASET
from stages import distill, distill_sbg, evaluate, prepare, train, train_diffusion, train_pag, train_robust_pag


@dataclass(frozen=True)
class Stage:
    """One of the project's stages on the run's data set; `resumes`: an interruption costs it seconds only."""

    name: str
    command: click.Command
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    resumes: bool

    @property
    def is_training(self) -> bool:
        return self.name.startswith("train ") and "/" in self.name

    @property
    def is_evaluation(self) -> bool:
        return self.name.startswith("evaluate ")

    def run(self) -> None:
        self.command.main([DATASET, *self.arguments], standalone_mode=False)


PREPARE = Stage("prepare", prepare.main, (), (), False)
DIFFUSION = Stage("train diffusion", train_diffusion.main, (), ("prepare",), True)


def distillation(realization: str) -> Stage:
    if realization == "sbg":
        return Stage("distill sbg", distill_sbg.main, (), (DIFFUSION.name,), False)
    return Stage(f"distill {realization}", distill.main, (realization,), ("prepare",), False)


def training(method: str) -> Stage:
    arch, name = method.split("/")
    store = name.rsplit("+", 1)[-1]
    needs = (f"distill {store}",) if store in ("sbg", "cm") else ("prepare",)
    if "+" in name:
        return Stage(f"train {method}", train_robust_pag.main, (arch, *name.split("+")), needs, True)
    command = train_pag.main if store in ("sbg", "cm") else train.main
    return Stage(f"train {method}", command, (arch, name), needs, True)


def evaluation(method: str) -> Stage:
    arch, name = method.split("/")
    return Stage(f"evaluate {method}", evaluate.main, (arch, name), (f"train {method}", "distill sbg"), True)


def ready(stages: Sequence[Stage], finished: Container[str]) -> list[Stage]:
    """The stages that are not finished and have all they need."""
    return [s for s in stages if s.name not in finished and all(need in finished for need in s.needs)]


def next_stage(
    stages: Sequence[Stage], expected: Callable[[str], float], call_left: float, last_call: bool
) -> Stage | None:
    """The first of the `stages`, which are ready, that fits into the call; or one that a later call can go on with."""
    for stage in stages:
        if expected(stage.name) <= call_left:
            return stage
    if last_call:
        return None
    return next((stage for stage in stages if stage.resumes), None)
