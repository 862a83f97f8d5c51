"""The arithmetic of the benchmark's plan, its clocks and its order of stages."""

import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cifar10 import schedule
from benchmarks.cifar10.forecast import Forecast
from benchmarks.cifar10.plan import (
    Plan,
    Rates,
    Sizes,
    attack_seconds,
    diffusion_steps,
    plan_classifiers,
    realizations,
)
from benchmarks.cifar10.state import STOPPING_SECONDS, Clock, OutOfTime, State

METHODS = ("rn18/sbg", "rn18/vanilla", "rn18/at-l2", "rn18/cm", "vit/sbg")
RATES = Rates(
    diffusion_step=0.05,
    distilled_image=0.001,
    heuristic_image=0.0001,
    training_step={"rn18/sbg": 0.02, "rn18/vanilla": 0.01, "rn18/at-l2": 0.05, "rn18/cm": 0.02, "vit/sbg": 0.02},
    attacked_radius={"rn18": 1.0, "vit": 1.0},
    attacked_image={"rn18": 0.1, "vit": 0.1},
)
SIZES = Sizes(
    methods=METHODS,
    required=3,
    train_images=10_000,
    steps_per_epoch=100,
    min_epochs=10,
    max_epochs=50,
    attack_images=(500, 1000),
    max_diffusion_steps=10_000,
    stage_overhead=5.0,
    attack_share=1.0,
)


def spent(plan: Plan) -> float:
    return sum(seconds for name, seconds in plan.seconds.items() if name.split()[1] in plan.methods)


@pytest.mark.parametrize("seconds", [400.0, 600.0, 900.0, 1500.0, 4000.0])
def test_a_plan_fits_into_its_time(seconds: float) -> None:
    plan = plan_classifiers(RATES, SIZES, seconds)
    assert spent(plan) <= seconds
    more = sum(RATES.training_step[method] * SIZES.steps_per_epoch for method in plan.methods)
    assert plan.epochs == SIZES.max_epochs or spent(plan) + more > 0.9 * seconds


def test_more_time_never_gives_less() -> None:
    plans = [plan_classifiers(RATES, SIZES, seconds) for seconds in range(400, 4000, 100)]
    for less, more in itertools.pairwise(plans):
        assert (len(more.methods), more.attack_images) >= (len(less.methods), less.attack_images)
        if (len(more.methods), more.attack_images) == (len(less.methods), less.attack_images):
            assert more.epochs >= less.epochs


def test_methods_are_given_up_from_the_end_and_in_words() -> None:
    assert plan_classifiers(RATES, SIZES, 4000).methods == METHODS
    assert plan_classifiers(RATES, SIZES, 4000).given_up == ()
    plan = plan_classifiers(RATES, SIZES, 420)
    assert plan.methods == METHODS[: len(plan.methods)] and len(plan.methods) < len(METHODS)
    assert [text.split(":")[0] for text in plan.given_up] == list(METHODS[len(plan.methods) :])


def test_the_required_methods_run_with_few_epochs_if_need_be() -> None:
    plan = plan_classifiers(RATES, SIZES, 220)
    assert plan.methods == METHODS[:3]
    assert 1 <= plan.epochs < SIZES.min_epochs
    assert plan.given_up[-1] == f"epochs: {plan.epochs}, fewer than the 10 that were wanted"


def test_evaluations_beside_the_training_leave_it_more_epochs() -> None:
    alone = plan_classifiers(RATES, SIZES, 500)
    beside = plan_classifiers(RATES, replace(SIZES, attack_share=0.5), 500)
    assert (len(beside.methods), beside.epochs) > (len(alone.methods), alone.epochs)


def test_few_images_under_attack_cost_nearly_as_much_as_more() -> None:
    """At each radius 1 s and 0.1 s an image; nearly nothing of vanilla is left after the smallest radius."""
    assert attack_seconds(RATES, SIZES, "rn18/sbg", 500) == pytest.approx(3 * 1.0 + 1.2 * 500 * 0.1 + 5.0)
    assert attack_seconds(RATES, SIZES, "rn18/vanilla", 500) == pytest.approx(1.0 + 0.15 * 500 * 0.1 + 5.0)


@pytest.mark.parametrize(("beside", "expected"), [(False, 2.0), (True, 1.0)])
def test_a_forecast_learns_from_what_had_the_gpu_to_itself(tmp_path: Path, beside: bool, expected: float) -> None:
    state = State(tmp_path / "state.json")
    plan = plan_classifiers(RATES, SIZES, 4000)
    forecast = Forecast(state, RATES, SIZES, 1000, beside, plan)
    for kind in ("train", "evaluate"):
        state.stages[f"{kind} rn18/sbg"] = {"seconds": 2 * plan.seconds[f"{kind} rn18/sbg"]}
    assert forecast.planned("train vit/sbg") == pytest.approx(2 * plan.seconds["train vit/sbg"])
    assert forecast.planned("evaluate vit/sbg") == pytest.approx(expected * plan.seconds["evaluate vit/sbg"])
    state.partial["train diffusion"] = 20.0
    assert forecast.stage("train diffusion") == pytest.approx(1000 * 0.05 - 20)


def test_the_diffusion_model_takes_its_share_up_to_its_limit() -> None:
    steps = [diffusion_steps(RATES, SIZES, seconds) for seconds in (10.0, 1000.0, 1500.0, 100_000.0)]
    assert steps == sorted(steps)
    assert steps[0] == 1 and steps[-1] == SIZES.max_diffusion_steps
    assert 0.2 * 1000 < steps[1] * RATES.diffusion_step < 0.4 * 1000


@pytest.mark.parametrize(
    ("methods", "stores"),
    [
        (["rn18/vanilla", "rn18/at-l2"], ()),
        (["rn18/at-l2+sbg", "rn18/vanilla"], ("sbg",)),
        (["rn18/cm", "vit/sbg"], ("sbg", "cm")),
    ],
)
def test_stores_of_methods(methods: list[str], stores: tuple[str, ...]) -> None:
    assert realizations(methods) == stores


def test_stages_are_the_projects_own_with_their_arguments() -> None:
    stage = schedule.training("rn18/at-l2+sbg")
    assert stage.command.callback.__module__ == "stages.train_robust_pag"
    assert stage.arguments == ("rn18", "at-l2", "sbg") and stage.needs == ("distill sbg",)
    assert schedule.training("rn18/at-l2").command.callback.__module__ == "stages.train"
    assert schedule.training("vit/sbg").command.callback.__module__ == "stages.train_pag"
    assert schedule.evaluation("vit/sbg").needs == ("train vit/sbg", "distill sbg")


def test_the_next_stage_fits_or_can_be_interrupted() -> None:
    ready = [schedule.distillation("sbg"), schedule.training("rn18/vanilla")]

    def chosen(left: float, last: bool, seconds: Callable[[str], float] = lambda name: 50.0) -> str | None:
        stage = schedule.next_stage(ready, seconds, left, last)
        return stage.name if stage else None

    assert chosen(60, last=True) == "distill sbg"
    assert chosen(40, last=False) == "train rn18/vanilla"  # a later call goes on with it
    assert chosen(40, last=True) is None
    assert chosen(40, last=True, seconds=lambda name: 30.0 if "vanilla" in name else 50.0) == "train rn18/vanilla"


def test_a_stage_is_ready_when_what_it_needs_is_finished() -> None:
    stages = [schedule.training("rn18/sbg"), schedule.evaluation("rn18/sbg")]
    assert schedule.ready(stages, {"prepare"}) == []
    assert schedule.ready(stages, {"distill sbg"}) == stages[:1]
    assert schedule.ready(stages, {"distill sbg", "train rn18/sbg"}) == stages[1:]


def test_the_clock_keeps_seconds_for_the_end() -> None:
    now = iter([100.0, 130.0, 130.0, 130.0])
    clock = Clock(100, 300, now=lambda: next(now))
    assert clock.call_left == 70 - STOPPING_SECONDS
    assert clock.run_left == 270 - STOPPING_SECONDS
    assert not clock.is_last_call and Clock(100, 120).is_last_call


def test_the_alarm_interrupts_and_is_switched_off_afterwards() -> None:
    clock = Clock(STOPPING_SECONDS + 0.1, STOPPING_SECONDS + 0.1)
    with pytest.raises(OutOfTime), clock.alarm():
        try:
            time.sleep(10)
        except Exception:  # what a stage does with errors must not stop the alarm
            pytest.fail("the alarm was taken for an error")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_state_is_what_was_saved(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    state.stages["prepare"] = {"seconds": 3.0}
    assert state.note("no ViT") and not state.note("no ViT")
    ticks = iter([0.0, 7.0, 9.0])
    clock = Clock(100, 100, now=lambda: next(ticks))
    state.save(clock)
    again = State(tmp_path / "state.json")
    assert (again.used_seconds, again.stages, again.notes) == (7.0, {"prepare": {"seconds": 3.0}}, ["no ViT"])
