"""A soak: experiments with random valid parameters, each killed at a random moment, then the main job once more.

    python -m benchmarks.soak [--seed 0] [--experiments 10]

In a temporary copy with miniature values. A killed `dvc exp run` is repeated until it succeeds; at the end `dvc repro`
must find its way back to the committed parameters, and `dvc status` have nothing to say. Where a kill has cut DVC's
own list of who is at work, it is deleted, as docs/experiments.md says.
"""

import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.miniature import copy_repository, shrink

CUT = "Unable to read RWLock-file"  # DVC writes it in place
LIMIT = 3600  # seconds that one DVC command may take, beside other jobs too
CONF = "conf/digits.yaml:"
CHOICES: dict[str, Callable[[random.Random], object]] = {
    "lambda": lambda rng: round(rng.uniform(0, 4), 2),
    "training_seed": lambda rng: rng.randrange(10),
    "seed": lambda rng: rng.randrange(3),
    f"{CONF}classifier.epochs": lambda rng: rng.randint(1, 3),
    f"{CONF}classifier.lr": lambda rng: rng.choice([0.001, 0.002]),
    f"{CONF}alignment.classes_per_image": lambda rng: rng.choice([1, 3, "all"]),
    f"{CONF}diffusion.steps": lambda rng: rng.randint(2, 6),
    f"{CONF}distill.noise_draws": lambda rng: rng.randint(1, 2),
    f"{CONF}evaluation.images": lambda rng: rng.choice([10, 20]),
}


def dvc(folder: Path, *arguments: str, killed_after: float | None = None) -> tuple[int, str]:
    """Exit code and output; with `killed_after`, its whole process group ends by SIGKILL after so many seconds."""
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=killed_after or LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    return process.returncode, output


def drawn(rng: random.Random) -> list[str]:
    """Two or three parameters with values, as `dvc exp run` takes them."""
    keys = rng.sample(sorted(CHOICES), rng.randint(2, 3))
    return [word for key in keys for word in ("-S", f"{key}={CHOICES[key](rng)}")]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@click.command()
@click.option("--seed", default=0, help="of the parameters and the moments")
@click.option("--experiments", default=10)
def main(seed: int, experiments: int) -> None:
    rng, start, kills = random.Random(seed), time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_repository(folder)
        lists = {"baselines": ["vanilla"], "heuristics": ["nn"], "realizations": ["nn", "sbg"], "robust": []}
        shrink(folder, ["digits"], {**lists, "point_sets": []})
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "Miniature")
        for number in range(experiments):
            options = drawn(rng)
            for _ in range(rng.randint(1, 2)):
                code, _ = dvc(folder, "exp", "run", *options, killed_after=rng.uniform(3, 60))
                kills += code < 0
            code, output = dvc(folder, "exp", "run", *options)
            if code and CUT in output:
                click.echo("DVC was killed while it wrote .dvc/tmp/rwlock, which is deleted")
                (folder / ".dvc/tmp/rwlock").unlink()
                code, output = dvc(folder, "exp", "run", *options)
            if code:
                raise click.ClickException(f"experiment {shlex.join(options)} ended with {code}:\n{output[-2000:]}")
            click.echo(f"experiment {number + 1}: {shlex.join(options)}, {kills} kills so far")
        git(folder, "restore", "params.yaml", "conf")
        for command in (["repro"], ["status"]):
            code, output = dvc(folder, *command)
            if code or (command == ["status"] and "up to date" not in output):
                raise click.ClickException(f"dvc {command[0]} after the soak:\n{output[-2000:]}")
    click.echo(
        f"{experiments} experiments, {kills} kills, dvc repro and status are clean: {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
