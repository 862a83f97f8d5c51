"""One call of the run: which stage is next, how long it may take, and what is written down of it."""

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.cifar10 import schedule
from benchmarks.cifar10.forecast import Forecast
from benchmarks.cifar10.lanes import Lanes
from benchmarks.cifar10.plan import (
    Plan,
    Rates,
    Sizes,
    diffusion_steps,
    plan_classifiers,
    realizations,
)
from benchmarks.cifar10.probes import attention_backends
from benchmarks.cifar10.rates import Probe, calibrate, first_line, is_fatal
from benchmarks.cifar10.results import write_results
from benchmarks.cifar10.schedule import Stage
from benchmarks.cifar10.settings import DATASET, Scale, write_settings
from benchmarks.cifar10.state import Clock, State
from pag.datasets.base import load
from stages import paths
from stages.device import best_device

LANE_SHARE = 0.8  # of an evaluation's time is lost to the training beside which it runs: a guess
LANE_SECONDS = 90.0  # a process of a lane that has less would be stopped before it has finished any part
SMALLEST_LR = {"classifier": 0.01, "diffusion": 5e-5}  # what diverges above it is trained anew with a smaller one


class Experiment:
    """One call's view of the run in the working directory."""

    def __init__(self, scale: Scale, archive: Path, state: State, clock: Clock, out: Path, lanes: Lanes | None) -> None:
        """lanes: where evaluations run; None: in this process."""
        self.scale, self.archive, self.state, self.clock, self.out = scale, archive, state, clock, out
        self.lanes = lanes
        self.device = best_device()
        self.configure()

    def configure(self) -> None:
        decided = self.state.decisions.get("conf", {})
        self.conf, self.params = write_settings(Path(), self.scale, self.archive, decided)

    def decide(self, section: str, **values: Any) -> None:
        """Fix values of the conf for this and all later calls."""
        self.state.decisions.setdefault("conf", {}).setdefault(section, {}).update(values)
        self.configure()

    def run(self) -> bool:
        """Run what the call has time for. True when everything is done."""
        sizes = self.measured()
        if "diffusion_steps" not in self.state.decisions:
            steps = diffusion_steps(self.rates, sizes, self.clock.run_left)
            self.state.decisions["diffusion_steps"] = steps
            self.decide("diffusion", steps=steps)
            say(f"plan: {steps:,} diffusion steps of {self.conf.diffusion.batch_size}")
        self.forecast = Forecast(
            self.state, self.rates, sizes, self.conf.diffusion.steps, beside_training=self.lanes is not None
        )
        stages = [schedule.DIFFUSION, *(schedule.distillation(name) for name in realizations(self.scale.methods))]
        return self.work_off(stages) and self.work_off(self.classifier_stages(sizes))

    def measured(self) -> Sizes:
        """Prepare the images and measure the machine, unless that is done."""
        self.perform(schedule.PREPARE)
        images = load(paths.images(DATASET))
        if "rates" not in self.state.decisions:
            with self.stage("calibrate"):
                if self.device.type == "cuda":
                    backends = attention_backends(self.conf, self.device)
                    say(f"attention of the U-Net can run on: {', '.join(backends) or 'math only'}")
                probe = Probe(self.state.decisions.setdefault("probes", {}), lambda: self.state.save(self.clock))
                found = calibrate(images, self.conf, self.scale, self.device, probe)
                self.state.decisions |= {"rates": asdict(found.rates), "throughput": found.throughput}
                self.state.decisions["conf"] = found.decided
            self.configure()
        self.rates = Rates(**self.state.decisions["rates"])
        return Sizes(
            methods=self.scale.methods,
            required=self.scale.required,
            train_images=len(images.train),
            steps_per_epoch=max(1, len(images.train) // self.conf.classifier.batch_size),
            min_epochs=self.scale.min_epochs,
            max_epochs=self.scale.max_epochs,
            attack_images=self.scale.attack_images,
            max_diffusion_steps=self.scale.max_diffusion_steps,
            stage_overhead=self.scale.stage_overhead,
            attack_share=1.0 if self.lanes is None else LANE_SHARE,
        )

    def classifier_stages(self, sizes: Sizes) -> list[Stage]:
        if "plan" not in self.state.decisions:
            plan = plan_classifiers(self.rates, sizes, self.clock.run_left)
            self.state.decisions["plan"] = asdict(plan)
            self.decide("classifier", epochs=plan.epochs)
            self.decide("evaluation", images=plan.attack_images)
            say(f"plan: {', '.join(plan.methods)}; {plan.epochs} epochs; {plan.attack_images} images under attack")
            for text in plan.given_up:
                say(f"plan: {text}")
        self.forecast.plan = Plan(**self.state.decisions["plan"])
        return [make(method) for method in sizes.methods for make in (schedule.training, schedule.evaluation)]

    def work_off(self, stages: list[Stage]) -> bool:
        """Run `stages` as far as they fit, evaluations beside the others if there are lanes. True when none is left."""
        while True:
            self.collect()
            stages = self.affordable(stages)
            ready = [s for s in schedule.ready(stages, self.state.stages) if s.name not in {*self.state.failed}]
            if self.lanes is not None:
                for evaluation in [s for s in ready if s.is_evaluation]:
                    if evaluation.name not in self.lanes and self.clock.call_left > LANE_SECONDS:
                        say(f"{evaluation.name}: begins in a lane, {self.clock.run_left:.0f} s left in all")
                        self.lanes.start(evaluation)
                ready = [s for s in ready if not s.is_evaluation]
            stage = schedule.next_stage(ready, self.forecast.stage, self.clock.call_left, self.clock.is_last_call)
            if stage is not None:
                self.perform(stage)
            elif self.lanes is not None and self.lanes.busy:
                self.collect(wait_for_one=True)
            else:
                break
        left = [s.name for s in stages if s.name not in {*self.state.stages, *self.state.failed}]
        if self.clock.is_last_call:
            for name in left:
                self.give_up(f"{name}: it does not fit into the time that is left")
        return not left

    def collect(self, wait_for_one: bool = False) -> None:
        """Write down the evaluations that ended in the lanes."""
        if self.lanes is None:
            return
        for ended in self.lanes.ended(wait_for_one):
            if ended.code == 0:
                seconds = self.state.partial.pop(ended.name, 0.0) + ended.seconds
                self.state.stages[ended.name] = {"seconds": round(seconds, 1)}
                say(f"{ended.name}: done in {seconds:.0f} s, beside the training")
            else:
                self.give_up(f"{ended.name} failed beside the training: {ended.last_line}; again by itself")
                self.perform(schedule.evaluation(ended.name.removeprefix("evaluate ")))
            self.state.save(self.clock)
            self.write_results()

    def affordable(self, stages: list[Stage]) -> list[Stage]:
        """Without the optional classifiers that have not begun and would be evaluated only after the run's time."""
        pending = [s.name for s in stages if self.forecast.is_pending(s)]
        left = self.clock.run_left - sum(map(self.forecast.kept_from_others, pending))
        kept: list[Stage] = []
        for stage in stages:
            _, _, method = stage.name.partition(" ")
            optional = stage.is_training and method in self.scale.methods[self.scale.required :]
            if optional and not self.has_begun(stage):
                seconds = self.forecast.planned(stage.name) + self.forecast.planned(f"evaluate {method}")
                if seconds > left:
                    self.give_up(f"{method}: no time left for its training and evaluation")
                    return [s for s in kept if not s.name.endswith(f" {method}")]
            kept.append(stage)
        return kept

    def has_begun(self, stage: Stage) -> bool:
        return stage.name in self.state.stages or stage.name in self.state.partial

    def perform(self, stage: Stage) -> None:
        """Run a stage unless it is finished. One that fails is noted and left out, so that the others still run.

        A training gets further chances: with smaller steps if it diverged, else not compiled.
        """
        if stage.name in self.state.stages:
            return
        try:
            with self.stage(stage.name):
                stage.run()
        except Exception as error:
            if is_fatal(error):
                raise
            traceback.print_exc()
            remedy = self.remedy(stage, error)
            if remedy is None:
                if "/" not in stage.name:  # nothing can be done without the images, the diffusion model, the gradients
                    raise
                self.state.failed.append(stage.name)
            self.give_up(f"{stage.name} failed: {first_line(error)}" + (f"; again with {remedy}" if remedy else ""))
            self.state.partial.pop(stage.name, None)  # it starts afresh

    def remedy(self, stage: Stage, error: Exception) -> str | None:
        """Change the conf for another try of a training, in words; None where nothing is left to try."""
        if not stage.name.startswith("train "):
            return None
        section = "classifier" if stage.is_training else "diffusion"
        config = self.conf.classifier if stage.is_training else self.conf.diffusion
        if isinstance(error, FloatingPointError) and config.lr > SMALLEST_LR[section]:
            self.decide(section, lr=config.lr / 2)
            return f"{section}.lr = {config.lr / 2:g}"
        if config.compile:
            self.decide(section, compile=False)
            return f"{section}.compile = false"
        return None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, record it as finished if it ends, and write the results."""
        say(f"{name}: begins, {self.clock.call_left:.0f} s left in this call, {self.clock.run_left:.0f} s in all")
        torch._dynamo.reset()  # compiled code of an earlier stage's network counts against this one's
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.state.save(self.clock)
        start = self.clock.used
        try:
            yield
        except BaseException:
            self.state.partial[name] = self.state.partial.get(name, 0.0) + self.clock.used - start
            raise
        seconds = self.state.partial.pop(name, 0.0) + self.clock.used - start
        self.state.stages[name] = {"seconds": round(seconds, 1)}
        if self.device.type == "cuda":
            self.state.stages[name]["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        self.state.save(self.clock)
        say(f"{name}: done in {seconds:.0f} s")
        self.write_results()

    def give_up(self, text: str) -> None:
        if self.state.note(text):
            say(f"given up: {text}")

    def write_results(self) -> None:
        """What a figure or a table trips over must not cost the run."""
        try:
            write_results(self.out, self.state, self.params, self.conf)
        except Exception as error:
            say(f"the results could not be written: {first_line(error)}")


def say(text: str) -> None:
    click.echo(f"[cifar10] {text}")
