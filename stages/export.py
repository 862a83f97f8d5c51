"""export: what was trained, in the form that other tools load; no stage of the pipeline, and nothing is uploaded.

python -m stages.export guided-diffusion digits exported/diffusion
python -m stages.export huggingface digits cnn sbg exported/sbg
python -m stages.export robustbench cifar10 rn18 sbg exported/sbg
"""

from collections.abc import Callable
from pathlib import Path

import click
import torch

from pag.evaluation.trained import load_trained
from pag.foundation.atomic import atomic_directory
from pag.foundation.config.section import ConfigError, nearest
from pag.images.dataset import load
from pag.interchange import robustbench
from pag.interchange.card import model_card
from pag.interchange.classifier import save_folder
from pag.interchange.measured import Measured, load_metrics
from stages.shared import paths
from stages.shared.command import run_stage

# Data sets whose images anybody can get. What may be made of others, their owner knows.
PUBLISHED = ("cifar10", "cifar10-jpeg", "cifar100", "digits", "mnist5k", "stl10", "tinyimagenet")
CPU = torch.device("cpu")
NEW_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group()
def main() -> None:
    """What was trained, in the form that other tools load."""


@main.command("guided-diffusion")
@click.argument("dataset")
@NEW_FOLDER
def guided_diffusion_command(dataset: str, folder: Path) -> None:
    """The diffusion model of DATASET as OpenAI's guided-diffusion and improved-diffusion load it."""
    from pag.diffusion.model.trained import load_diffusion  # with diffusers, which takes seconds to load
    from pag.interchange import guided_diffusion

    images = load(paths.images(dataset))
    model = load_diffusion(paths.diffusion(dataset), CPU, images)
    write(folder, lambda new: guided_diffusion.export(new, model, images.image_shape))


@main.command("huggingface")
@click.argument("dataset")
@click.argument("arch")
@click.argument("run")
@NEW_FOLDER
def huggingface_command(dataset: str, arch: str, run: str, folder: Path) -> None:
    """The classifier of RUN as a model folder of the Hugging Face Hub: weights, config and card."""
    found = measured(dataset, arch, run)
    write(folder, lambda new: save_folder(new, found.model, found.config(), model_card(found)))


@main.command("robustbench")
@click.argument("dataset")
@click.argument("arch")
@click.argument("run")
@NEW_FOLDER
def robustbench_command(dataset: str, arch: str, run: str, folder: Path) -> None:
    """The classifier of RUN for RobustBench: a module whose load_model() it benchmarks, and model-info JSON."""
    found = measured(dataset, arch, run)
    write(folder, lambda new: robustbench.export(new, found))


def measured(dataset: str, arch: str, run: str) -> Measured:
    trained = sorted(paths.DATA.glob("*/classifiers/*/*"))
    asked, there = f"{dataset} {arch} {run}", [f"{p.parts[-4]} {p.parts[-2]} {p.parts[-1]}" for p in trained]
    if there and asked not in there:
        raise ConfigError(f"no classifier {asked} was trained here{nearest(asked, there)}")
    images = load(paths.images(dataset))
    model, about = load_trained(paths.classifier(dataset, arch, run), images, arch, run, CPU)
    licence = "mit" if dataset in PUBLISHED else None
    return Measured(model, about, load_metrics(paths.record(dataset, arch, run), about), images, licence)


def write(folder: Path, into: Callable[[Path], None]) -> None:
    """Fill a new folder, whole or not at all."""
    if folder.exists():
        raise ConfigError(f"{folder} exists: name a new folder")
    with atomic_directory(folder) as new:
        into(new)
    click.echo(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    run_stage(main)
