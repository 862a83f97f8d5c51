"""new: from a folder or archive of images to an experiment on them, in conf/<name>.yaml and params.yaml.

    python -m stages.new mine --images FOLDER_OR_ARCHIVE
    dvc repro

The images are read as the experiment will read them, so that what is wrong with them is said now.
"""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from pag.datasets.preparation import prepare
from pag.foundation.atomic import write_bytes
from pag.foundation.attackable import square_attack_fits
from pag.foundation.config.conf import Conf
from pag.foundation.config.data import DataConfig
from pag.foundation.config.params import load_params
from pag.foundation.config.section import ConfigError, check
from pag.foundation.interrupts import held
from pag.images.dataset import ImageDataset
from stages.new.estimate import minutes
from stages.new.look import TEST, VALIDATION, reading
from stages.new.values import CPU, GPU, Scale, conf_of, experiment
from stages.shared.command import run_stage
from stages.shared.device import best_device, hardware
from stages.shared.edits import uncommitted

HEADER = """\
# Written by `python -m stages.new`: values to start from, sized by the images and by the machine ({machine}).
# Every key: docs/conf.md.
"""


@click.command()
@click.argument("name")
@click.option("--images", "source", required=True, help="<class>/* or train/<class>/* + test/<class>/*, or an archive")
@click.option("--image-size", type=click.IntRange(min=8, max=512), help="pixels a side that the images are brought to")
@click.option("--allow-overlap", is_flag=True, help="keep images that are in two parts or classes (data.allow_overlap)")
@click.option("--allow-dark", is_flag=True, help="the images are dark (data.allow_dark)")
def main(name: str, source: str, image_size: int | None, allow_overlap: bool, allow_dark: bool) -> None:
    path = Path("conf") / f"{name}.yaml"
    require_free(name, path)
    if image_size is not None and not square_attack_fits(image_size, image_size):
        raise ConfigError(f"--image-size {image_size}: AutoAttack cannot take it, use a multiple of 8 but 24")
    params = load_params()
    if edits := uncommitted():
        click.echo(f"{', '.join(edits)} had edits that git does not have: `git restore` would take them back too")
    device = best_device()
    scale = GPU if device.type == "cuda" else CPU
    data = reading(Path(source).expanduser(), root_of(source), scale.largest_side, scale.most_images, image_size)
    data = data.model_copy(update={"allow_overlap": allow_overlap, "allow_dark": allow_dark})
    images = prepare(name, data, params.seed, say=click.echo)
    content = conf_of(images, data, scale)
    conf = check(Conf, content, str(path))

    estimate = minutes(images, conf, scale.arch, device)

    with held():  # both files or none
        set_params(experiment(name, scale))
        write_bytes(path, (HEADER.format(machine=hardware(device)) + text_of(content)).encode())
    click.echo(summary(name, images, data, scale))
    click.echo(duration(estimate))
    attacked = conf.evaluation.images or len(images.test)
    click.echo(f"{attacked} images under attack: standard errors of up to {50 / attacked**0.5:.0f} points")
    add_to_git(path)
    click.echo(
        f"params.yaml says to run that (`git restore params.yaml && git rm -qf --cached --ignore-unmatch {path} && rm "
        f"{path}` takes it back; commit both before `dvc exp run`). `python -m benchmarks.miniature {name} "
        "--first-look` does a few steps of vanilla and SBG in about two minutes, to see the report. Now run:\n\n"
        "  dvc repro"
    )


def require_free(name: str, path: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise ConfigError(f"name '{name}': expected letters, digits, - and _")
    if path.exists() or name == "toy":
        raise ConfigError(f"{path} exists: choose another name, or remove it, from git too")


def root_of(source: str) -> str:
    """`data.root`: relative inside the repository, so that the conf is good in every clone."""
    path, here = Path(source).expanduser().resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def set_params(values: dict[str, Any]) -> None:
    """Change params.yaml and keep its comments."""
    path = Path("params.yaml")
    content = YAML().load(path)
    content.update(values)
    write_bytes(path, text_of(content).encode())


def add_to_git(path: Path) -> None:
    """The copies that queued experiments work in lack what git does not know."""
    try:
        done = subprocess.run(["git", "add", str(path)], check=False, capture_output=True, text=True)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        click.echo(f"{path} is not added to git, which queued experiments need ({problem.splitlines()[0]})")


def text_of(content: dict[str, Any]) -> str:
    yaml, text = YAML(), io.StringIO()
    yaml.representer.ignore_aliases = lambda data: True
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.dump(content, text)
    return text.getvalue()


def summary(name: str, images: ImageDataset, data: DataConfig, scale: Scale) -> str:
    channels, side, _ = images.image_shape
    counts = ", ".join(f"{len(split):,} {part}" for part, split in images.splits())
    resized = f", resized to {side}×{side}" if data.image_size else f" of {side}×{side} pixels"
    limited = f" (of more: data.train_limit is {data.train_limit:,})" if data.train_limit else ""
    cut = (("test", data.test_fraction, TEST), ("validation", data.validation_fraction, VALIDATION))
    raised = " and ".join(f"data.{part}_fraction is {of:g}" for part, of, usual in cut if of and of > usual)
    limited += f" ({raised}: the smallest class needs one there)" if raised else ""
    return (
        f"conf/{name}.yaml: {counts} {'grey' if channels == 1 else 'colour'} images{limited}{resized} in "
        f"{images.num_classes} classes; vanilla, AT-L2, CM, NN and SBG with a {scale.arch}"
    )


def duration(parts: dict[str, float]) -> str:
    each = ", ".join(f"{part} {value:.0f}" for part, value in parts.items())
    total = sum(parts.values())
    text = f"{total:.0f} minutes" if total < 120 else f"{total / 60:.0f} hours"
    return f"About {text} on this machine, a rough estimate from a few steps timed now (minutes: {each})"


if __name__ == "__main__":
    run_stage(main)
