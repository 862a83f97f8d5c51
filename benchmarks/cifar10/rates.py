"""The rates that the plan is made from, measured before anything long is begun."""

from collections.abc import Callable
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


def calibrate(images: ImageDataset, conf: Conf, scale: Scale, device: torch.device) -> Calibration:
    """Measure with the run's own settings. What cannot be compiled here is reported and runs eagerly."""
    decided: dict[str, dict[str, Any]] = {}
    throughput = step_throughput(images, conf, scale, device)

    config = conf.diffusion
    measured = _compiled(lambda: diffusion_seconds(images, config, scale, device)) if config.compile else None
    if measured is None:
        decided["diffusion"] = {"compile": False}
        config = config.model_copy(update={"compile": False})
        measured = diffusion_seconds(images, config, scale, device)
    diffusion_start, diffusion_step = measured
    click.echo(f"diffusion: {config.batch_size / diffusion_step:,.0f} images/s after {diffusion_start:.0f} s")

    sbg, heuristic = distillation_seconds(images, conf.diffusion, conf.distill, scale, device)
    click.echo(f"distillation: SBG {1 / sbg:,.0f} images/s, CM {1 / heuristic:,.0f} images/s")

    steps, training_start = step_seconds(images, conf, scale, device)
    if training_start is None:
        decided["classifier"] = {"compile": False}

    attacked = {arch: attack_seconds(images, arch, scale.calibration_images, device) for arch in scale.archs}
    for arch, seconds in attacked.items():
        click.echo(f"AutoAttack on {arch}: {1 / seconds:.2f} images/s with every attack's whole budget")
    throughput |= {
        "diffusion training, images/s": config.batch_size / diffusion_step,
        "distillation SBG, images/s": 1 / sbg,
        "distillation CM, images/s": 1 / heuristic,
        **{f"AutoAttack {arch}, images/s": 1 / seconds for arch, seconds in attacked.items()},
    }
    rates = Rates(
        diffusion_step=diffusion_step,
        distilled_image=sbg,
        heuristic_image=heuristic,
        training_step=steps,
        attacked_image=attacked,
        compile_diffusion=diffusion_start,
        compile_training=training_start or 0.0,
    )
    return Calibration(rates, decided, throughput)


def step_seconds(
    images: ImageDataset, conf: Conf, scale: Scale, device: torch.device
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

    found = measure(first, eager_config)
    start = None
    compiled = _compiled(lambda: measure(first, conf.classifier)) if conf.classifier.compile else None
    if compiled is not None:
        steps = scale.min_epochs * (len(images.train) // conf.classifier.batch_size)
        saved = sum(steps * (found[method][1] - seconds) - wait for method, (wait, seconds) in compiled.items())
        click.echo(
            f"compiling {first}: {'saves' if saved > 0 else 'costs'} {abs(saved):.0f} s in {scale.min_epochs} epochs"
        )
        if saved > 0:
            found, start = compiled, max(wait for wait, _ in compiled.values())
    for arch in others:
        found |= measure(arch, eager_config)
    seconds = {method: step for method, (_, step) in found.items()}
    for method, step in seconds.items():
        click.echo(f"{method}: {1000 * step:.1f} ms a step of {conf.classifier.batch_size}")
    for method in scale.methods:
        arch, name = method.split("/")
        parts = ["sbg" if part in REALIZATIONS else part for part in name.split("+")]
        seconds[method] = sum(seconds[f"{arch}/{part}"] for part in parts)
    return {method: seconds[method] for method in scale.methods}, start


def _compiled(measure: Callable[[], Any]) -> Any:
    """The measurement, or None after a line that says why it failed: compilers fail in many ways."""
    try:
        torch._dynamo.reset()
        return measure()
    except Exception as error:
        click.echo(f"torch.compile failed, running eagerly: {first_line(error)}")
        return None


def step_throughput(images: ImageDataset, conf: Conf, scale: Scale, device: torch.device) -> dict[str, float]:
    """Training images per second of plain, alignment and AT-PGD-7 steps at each batch size, not compiled; ratios."""
    arch = scale.archs[0]
    found: dict[str, float] = {}
    for batch_size in scale.throughput_batches:
        config = conf.classifier.model_copy(update={"batch_size": batch_size, "compile": False})
        steps = max(2, scale.calibration_steps // (1 if batch_size < 256 else 2))
        seconds = {
            name: training_seconds(images, f"{arch}/{name}", conf, config, steps, device)[1]
            for name in ("vanilla", "sbg", "at-l2")
        }
        found |= {f"{name} step, batch {batch_size}, images/s": batch_size / value for name, value in seconds.items()}
        ratio = seconds["at-l2"] / seconds["sbg"]
        found[f"alignment step over AT-PGD-7, batch {batch_size}"] = ratio
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
        click.echo(f"steps of {batch_size}, eager: {times}; alignment is {ratio:.2f}× faster than AT-PGD-7")
    return found


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
