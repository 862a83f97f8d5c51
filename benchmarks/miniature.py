"""The whole pipeline through DVC on a few steps of everything, in a temporary copy: does every stage run?

``python -m benchmarks.miniature [digits …]`` copies the repository's tracked files, shrinks the confs, and runs
``dvc repro`` there; a second ``dvc repro`` must find everything up to date. The numbers mean nothing and are not kept.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).resolve().parents[1]

# What is shrunk, section by section; everything else stays as the conf has it.
CONF: dict[str, dict[str, Any]] = {
    "diffusion": {"channels": 16, "head_dim": 16, "blocks": 1, "steps": 4, "batch_size": 16},
    "distill": {"noise_draws": 1, "nn_candidates": 5, "heldout_images": 10},
    "classifier": {"epochs": 1},
    "evaluation": {"images": 10, "threat_models": {"L2": [0.5], "Linf": [0.1]}},
}
TOY = {"samples_per_mode": 50, "epochs": 2, "seeds": 2, "nn_candidates": 20}


def copy_repository(folder: Path) -> None:
    """The tracked files as they are in the working tree, under git and DVC of their own."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def shrink(folder: Path, datasets: list[str], params: dict[str, Any]) -> None:
    """Rewrite params.yaml and the confs of a copy."""
    edit(folder / "params.yaml", {"datasets": datasets, **params})
    edit(folder / "conf/toy.yaml", TOY)
    for dataset in datasets:
        path = folder / "conf" / f"{dataset}.yaml"
        for section, values in CONF.items():
            edit(path, values, section)
        large_eps = yaml.safe_load(path.read_text())["evaluation"]["large_eps"]
        edit(path, {"large_eps": large_eps | {"steps": 2}}, "evaluation")


def edit(path: Path, values: dict[str, Any], section: str | None = None) -> None:
    content = yaml.safe_load(path.read_text())
    (content if section is None else content[section]).update(values)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder` with this interpreter; its output is shown and returned. Raises CalledProcessError."""
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            click.echo(line, nl=False)
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(lines)


@click.command()
@click.argument("datasets", nargs=-1)
def main(datasets: tuple[str, ...]) -> None:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_repository(folder)
        shrink(folder, list(datasets or ["digits"]), {})
        dvc(folder, "repro")
        assert "up to date" in dvc(folder, "repro"), "a second `dvc repro` found something to do"
        assert (folder / "results/report/report.md").is_file()
    click.echo(f"the miniature of {', '.join(datasets or ['digits'])} took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
