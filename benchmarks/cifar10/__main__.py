"""The paper's headline experiment on a GPU within a stated time: ``python -m benchmarks.cifar10 --minutes M --state DIR``.

Runs the project's own stages in DIR on a JPEG copy of CIFAR-10: measure the machine, plan, diffusion model, gradients,
classifiers, AutoAttack. DIR remembers what is done; a further call with the same DIR goes on, and `--total-minutes` is
what all calls together may take. Results are written to DIR/out (or `--out`) after every stage.
"""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.cifar10 import rates as measuring
from benchmarks.cifar10 import schedule
from benchmarks.cifar10.plan import (
    Plan,
    Rates,
    Sizes,
    affordable,
    diffusion_steps,
    distillation_seconds,
    plan_classifiers,
    realizations,
)
from benchmarks.cifar10.results import write_results
from benchmarks.cifar10.schedule import Stage
from benchmarks.cifar10.settings import DATASET, FULL, MINIATURE, ROOT, Scale, write_settings
from benchmarks.cifar10.state import Clock, OutOfTime, State
from pag.config.conf import Conf
from pag.datasets.base import ImageDataset, load
from stages import paths
from stages.command import run_stage
from stages.device import best_device

PREPARE_SECONDS = 60.0  # a guess, the only stage before the measurements


class Experiment:
    """One call's view of the run in the working directory."""

    def __init__(self, scale: Scale, archive: Path, state: State, clock: Clock, out: Path) -> None:
        self.scale, self.archive, self.state, self.clock, self.out = scale, archive, state, clock, out
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
        if not self.perform(schedule.PREPARE, PREPARE_SECONDS):
            return False
        images = load(paths.images(DATASET))
        if not self.calibrated(images):
            return False
        sizes = self.sizes(images, self.conf)
        if "diffusion_steps" not in self.state.decisions:
            steps = diffusion_steps(self.rates, sizes, self.clock.run_left)
            self.state.decisions["diffusion_steps"] = steps
            self.decide("diffusion", steps=steps)
            say(f"plan: {steps:,} diffusion steps of {self.conf.diffusion.batch_size}")
        stages = [schedule.DIFFUSION, *(schedule.distillation(name) for name in realizations(self.scale.methods))]
        if not self.work_off(stages, sizes):
            return False
        return self.work_off(self.classifier_stages(sizes), sizes)

    def calibrated(self, images: ImageDataset) -> bool:
        if "rates" not in self.state.decisions:
            with self.stage("calibrate"):
                if self.device.type == "cuda":
                    backends = measuring.attention_backends(self.conf, self.device)
                    say(f"attention of the U-Net can run on: {', '.join(backends) or 'math only'}")
                found = measuring.calibrate(images, self.conf, self.scale, self.device)
                throughput = measuring.step_throughput(images, self.conf, self.scale, self.device, compiled=False)
                self.state.decisions["rates"] = asdict(found.rates)
                self.state.decisions["throughput"] = found.throughput | throughput
                self.state.decisions["conf"] = found.decided
            self.configure()
        if "rates" not in self.state.decisions:
            return False
        self.rates = Rates(**self.state.decisions["rates"])
        return True

    def sizes(self, images: ImageDataset, conf: Conf) -> Sizes:
        return Sizes(
            methods=self.scale.methods,
            required=self.scale.required,
            train_images=len(images.train),
            steps_per_epoch=max(1, len(images.train) // conf.classifier.batch_size),
            min_epochs=self.scale.min_epochs,
            max_epochs=self.scale.max_epochs,
            attack_images=self.scale.attack_images,
            max_diffusion_steps=self.scale.max_diffusion_steps,
            stage_overhead=self.scale.stage_overhead,
        )

    def classifier_stages(self, sizes: Sizes) -> list[Stage]:
        if "plan" not in self.state.decisions:
            plan = plan_classifiers(self.rates, sizes, self.clock.run_left)
            self.state.decisions["plan"] = asdict(plan)
            self.decide("classifier", epochs=plan.epochs)
            self.decide("evaluation", images=plan.attack_images)
            say(f"plan: {', '.join(plan.methods)}; {plan.epochs} epochs; {plan.attack_images} images under attack")
            for text in plan.given_up:
                self.give_up(text)
        self.plan = Plan(**self.state.decisions["plan"])
        return [make(method) for method in self.plan.methods for make in (schedule.training, schedule.evaluation)]

    def work_off(self, stages: list[Stage], sizes: Sizes) -> bool:
        """Run `stages` as far as they fit. True when none is left."""
        while True:
            stages = self.affordable(stages)
            stage = schedule.next_stage(
                stages,
                self.state.stages,
                lambda name: self.expected(name, sizes),
                self.clock.call_left,
                self.clock.is_last_call,
            )
            if stage is None:
                return all(stage.name in self.state.stages for stage in stages)
            self.perform(stage, 0.0)
            if stage.name not in self.state.stages:
                return False

    def expected(self, name: str, sizes: Sizes) -> float:
        """Seconds that a stage still takes, as planned and corrected by what its kind took so far."""
        kind, _, what = name.partition(" ")
        if kind == "distill":
            return distillation_seconds(self.rates, sizes, what)
        if name == schedule.DIFFUSION.name:
            whole = self.conf.diffusion.steps * self.rates.diffusion_step + self.rates.compile_diffusion
        else:
            whole = self.correction(kind) * self.plan.seconds[name]
        return max(sizes.stage_overhead, whole - self.state.partial.get(name, 0.0))

    def correction(self, kind: str) -> float:
        """Seconds over planned seconds of the finished stages of a kind."""
        done = [name for name in self.plan.seconds if name.startswith(kind) and name in self.state.stages]
        if not done:
            return 1.0
        taken = sum(self.state.stages[name]["seconds"] for name in done)
        return taken / sum(self.plan.seconds[name] for name in done)

    def affordable(self, stages: list[Stage]) -> list[Stage]:
        """Without the classifiers whose training has not begun and would end, evaluated, after the run's time."""
        kept = []
        for stage in stages:
            kind, _, method = stage.name.partition(" ")
            begun = stage.name in self.state.stages or stage.name in self.state.partial
            if kind == "train" and "/" in method and not begun:
                expected = {name: self.correction(name.split()[0]) * s for name, s in self.plan.seconds.items()}
                if not affordable(expected, method, 1.0, self.clock.run_left):
                    self.give_up(f"{method}: no time left for its training and evaluation")
                    return [s for s in kept if not s.name.endswith(f" {method}")]
            kept.append(stage)
        return kept

    def perform(self, stage: Stage, least: float) -> bool:
        """Run a stage unless it is finished or the call has less than `least` seconds for it."""
        if stage.name in self.state.stages:
            return True
        if self.clock.call_left < least:
            return False
        with self.stage(stage.name):
            stage.run()
        return stage.name in self.state.stages

    @contextlib.contextmanager
    def stage(self, name: str) -> Any:
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
        write_results(self.out, self.state, self.params, self.conf)


def say(text: str) -> None:
    click.echo(f"[cifar10] {text}")


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), required=True, help="Time of this call.")
@click.option("--total-minutes", type=click.FloatRange(min=0, min_open=True), help="Time of all calls; --minutes.")
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--archive", type=click.Path(path_type=Path, exists=True), help="Raw images; conf's data.root.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results; DIR/out.")
@click.option("--check", is_flag=True, help="Only prepare and measure.")
@click.option("--miniature", is_flag=True, help="A few steps of everything.")
def main(
    minutes: float,
    total_minutes: float | None,
    folder: Path,
    archive: Path | None,
    out: Path | None,
    check: bool,
    miniature: bool,
) -> None:
    out = (out or folder / "out").absolute()
    archive = (archive or _default_archive()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    state = State(Path("state.json"))
    clock = Clock(60 * minutes, 60 * (total_minutes or minutes) - state.used_seconds)
    experiment = Experiment(MINIATURE if miniature else FULL, archive, state, clock, out)
    finished = False
    try:
        with clock.alarm():
            if check:
                finished = experiment.perform(schedule.PREPARE, 0.0) and experiment.calibrated(
                    load(paths.images(DATASET))
                )
            else:
                finished = experiment.run()
    except OutOfTime:
        say("the time of this call is over")
    finally:
        state.save(clock)
    experiment.write_results()
    say("everything is done" if finished else "call again with the same --state to go on")


def _default_archive() -> Path:
    from pag.config.conf import load_conf

    return ROOT / str(load_conf(DATASET, ROOT / "conf").data.root)


if __name__ == "__main__":
    run_stage(main)
