"""The rates that the plan is made from, measured before anything long is begun."""

import functools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import torch

from benchmarks.cifar10.plan import Rates
from benchmarks.cifar10.probes import (
    REALIZATIONS,
    attack_seconds,
    diffusion_seconds,
    distillation_seconds,
    training_seconds,
)
from benchmarks.cifar10.settings import Scale
from pag.config.conf import ClassifierConfig, Conf
from pag.datasets.base import ImageDataset


@dataclass(frozen=True)
class Calibration:
    """The rates that the plan needs, which networks can be compiled, and throughputs to report."""

    rates: Rates
    decided: dict[str, dict[str, Any]]  # values for the conf, by section
    throughput: dict[str, float]


class Probe:
    """Measures once: what an earlier call measured before its time was over is taken from `known`."""

    def __init__(self, known: dict[str, Any], save: Callable[[], None]) -> None:
        """known: name → values as JSON has them; measurements are added, and `save` is called after each."""
        self.known, self.save = known, save

    def __call__(self, name: str, measure: Callable[[], Any]) -> Any:
        if name not in self.known:
            self.known[name] = measure()
            self.save()
        return self.known[name]

    def compiled(self, name: str, measure: Callable[[], Any]) -> Any:
        """The same, or None and a line that says why it failed: compilers fail in many ways. Failures are not kept."""
        torch._dynamo.reset()
        try:
            return self(name, measure)
        except Exception as error:
            if is_fatal(error):
                raise
            traceback.print_exc()
            click.echo(f"torch.compile failed, running eagerly: {first_line(error)}")
            return None


def calibrate(images: ImageDataset, conf: Conf, scale: Scale, device: torch.device, probe: Probe) -> Calibration:
    """Measure with the run's own settings. What cannot be compiled here is reported and runs eagerly."""
    decided: dict[str, dict[str, Any]] = {}
    throughput = step_throughput(images, conf, scale, device, probe)

    config = conf.diffusion
    measured = None
    if config.compile:
        measured = probe.compiled("diffusion, compiled", lambda: diffusion_seconds(images, config, scale, device))
    if measured is None:
        decided["diffusion"] = {"compile": False}
        eager = config.model_copy(update={"compile": False})
        measured = probe("diffusion", lambda: diffusion_seconds(images, eager, scale, device))
    diffusion_start, diffusion_step = measured
    click.echo(f"diffusion: {config.batch_size / diffusion_step:,.0f} images/s after {diffusion_start:.0f} s")

    sbg, heuristic = probe(
        "distillation", lambda: distillation_seconds(images, conf.diffusion, conf.distill, scale, device)
    )
    click.echo(f"distillation: SBG {1 / sbg:,.0f} images/s, CM {1 / heuristic:,.0f} images/s")

    steps, training_start = step_seconds(images, conf, scale, device, probe)
    if training_start is None:
        decided["classifier"] = {"compile": False}

    attacked: dict[str, tuple[float, float]] = {}
    count = scale.calibration_images
    for arch in scale.archs:
        attacked[arch] = probe(
            f"AutoAttack {arch}", functools.partial(attack_seconds, images, arch, scale.calibration_images, device)
        )
    attack_rate = {arch: count / (fixed + count * each) for arch, (fixed, each) in attacked.items()}
    for arch, rate in attack_rate.items():
        click.echo(f"AutoAttack on {arch}: {rate:.2f} images/s of {count} that meet every attack's whole budget")
    throughput |= {
        "diffusion training, images/s": config.batch_size / diffusion_step,
        "distillation SBG, images/s": 1 / sbg,
        "distillation CM, images/s": 1 / heuristic,
        **{f"AutoAttack {arch}, images/s": rate for arch, rate in attack_rate.items()},
    }
    rates = Rates(
        diffusion_step=diffusion_step,
        distilled_image=sbg,
        heuristic_image=heuristic,
        training_step=steps,
        attacked_radius={arch: fixed for arch, (fixed, _) in attacked.items()},
        attacked_image={arch: each for arch, (_, each) in attacked.items()},
        compile_diffusion=diffusion_start,
        compile_training=training_start or 0.0,
    )
    return Calibration(rates, decided, throughput)


def step_seconds(
    images: ImageDataset, conf: Conf, scale: Scale, device: torch.device, probe: Probe
) -> tuple[dict[str, float], float | None]:
    """Seconds of a training step of every method, and until a compiled one is at its rate; None: do not compile.

    The run compiles if the least number of epochs repays it. Alignment with any store costs the same, and a
    combination of objectives the sum of them. Only the first architecture is compiled here.
    """
    eager_config = conf.classifier.model_copy(update={"compile": False})
    first, *others = scale.archs

    def measure(arch: str, config: ClassifierConfig) -> dict[str, tuple[float, float]]:
        names = ("vanilla", "sbg", "at-l2") if arch == first else ("sbg",)
        return {
            f"{arch}/{name}": training_seconds(images, f"{arch}/{name}", conf, config, scale.calibration_steps, device)
            for name in names
        }

    found = dict(probe(f"steps {first}", lambda: measure(first, eager_config)))
    start = compiled = None
    if conf.classifier.compile:
        compiled = probe.compiled(f"steps {first}, compiled", lambda: measure(first, conf.classifier))
    if compiled is not None:
        steps = scale.min_epochs * (len(images.train) // conf.classifier.batch_size)
        saved = sum(steps * (found[method][1] - seconds) - wait for method, (wait, seconds) in compiled.items())
        click.echo(
            f"compiling {first}: {'saves' if saved > 0 else 'costs'} {abs(saved):.0f} s in {scale.min_epochs} epochs"
        )
        if saved > 0:
            found, start = dict(compiled), max(wait for wait, _ in compiled.values())
    for arch in others:
        found |= probe(f"steps {arch}", functools.partial(measure, arch, eager_config))
    seconds = {method: step for method, (_, step) in found.items()}
    for method, step in seconds.items():
        click.echo(f"{method}: {1000 * step:.1f} ms a step of {conf.classifier.batch_size}")
    for method in scale.methods:
        arch, name = method.split("/")
        parts = ["sbg" if part in REALIZATIONS else part for part in name.split("+")]
        seconds[method] = sum(seconds[f"{arch}/{part}"] for part in parts)
    return {method: seconds[method] for method in scale.methods}, start


def step_throughput(
    images: ImageDataset, conf: Conf, scale: Scale, device: torch.device, probe: Probe
) -> dict[str, float]:
    """Training images per second of plain, alignment and AT-PGD-7 steps at each batch size, not compiled; ratios."""
    arch = scale.archs[0]
    found: dict[str, float] = {}
    for batch_size in scale.throughput_batches:
        config = conf.classifier.model_copy(update={"batch_size": batch_size, "compile": False})
        steps = max(2, scale.calibration_steps // (1 if batch_size < 256 else 2))
        names = ("vanilla", "sbg", "at-l2")
        measure = functools.partial(_eager_steps, images, arch, names, conf, config, steps, device)
        seconds = probe(f"eager steps of {batch_size}", measure)
        found |= {f"{name} step, batch {batch_size}, images/s": batch_size / value for name, value in seconds.items()}
        ratio = seconds["at-l2"] / seconds["sbg"]
        found[f"alignment step over AT-PGD-7, batch {batch_size}"] = ratio
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
        click.echo(f"steps of {batch_size}, eager: {times}; alignment is {ratio:.2f}× faster than AT-PGD-7")
    return found


def _eager_steps(
    images: ImageDataset,
    arch: str,
    names: Sequence[str],
    conf: Conf,
    config: ClassifierConfig,
    steps: int,
    device: torch.device,
) -> dict[str, float]:
    return {name: training_seconds(images, f"{arch}/{name}", conf, config, steps, device)[1] for name in names}


def is_fatal(error: Exception) -> bool:
    """Whether this process can do nothing more on its GPU: such an error stays, a new process may go on."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
