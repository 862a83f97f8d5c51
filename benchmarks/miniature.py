"""The whole pipeline through DVC on a few steps of everything, in a temporary copy: does every stage run?

    python -m benchmarks.miniature [digits …]                 the experiment of params.yaml on these datasets
    python -m benchmarks.miniature --first-look               vanilla and SBG on digits alone
    python -m benchmarks.miniature --preset table1 …          presets, as `dvc exp run $(python -m stages.preset …)`
    python -m benchmarks.miniature --preset all

The repository's files are copied, the confs shrunk, and DVC runs there. Presets run on a few images (real ones where
they are at hand, see miniature_data.py), the real architectures for a step or two, attacks of a few iterations, and
two variants where a preset has more; presets of the same datasets share a copy, and two copies are at work at a time.
The numbers mean nothing; of data sets the report is kept, to look at.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.miniature_data import provide
from pag.foundation.config.conf import load_conf
from pag.foundation.config.section import ConfigError, read_yaml
from stages.preset import DEFAULTS, Preset, load_preset, names

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "data/miniature"  # the last report

# What is shrunk, section by section; everything else stays as the conf has it.
CONF: dict[str, dict[str, Any]] = {
    "diffusion": {"channels": 16, "head_dim": 16, "blocks": 1, "steps": 4, "batch_size": 16},
    "distill": {"noise_draws": 1, "heldout_images": 10},
    "heuristics": {"nn_candidates": 5},
    "classifier": {"epochs": 1},
    "evaluation": {
        "attack": {"version": "quick", "steps": 2, "target_classes": 1},
        "images": 10,
        "threat_models": {"L2": [0.5], "Linf": [0.1]},
    },
}
FIRST_LOOK = {"baselines": ["vanilla"], "heuristics": [], "realizations": ["sbg"], "robust": [], "point_sets": []}
TOY = {"samples_per_mode": 50, "epochs": 2, "seeds": 2, "nn_candidates": 20}

# And for the presets of the paper's datasets, in addition.
PAPER_CONF: dict[str, dict[str, Any]] = {
    "diffusion": {"steps": 2, "timesteps": 25, "multipliers": [1, 2], "attention": [8], "image_size": 16},
    "distill": {"heldout_images": 2},
    "heuristics": {"nn_candidates": 2},
    "classifier": {"batch_size": 12},
    "evaluation": {"images": 2},
}
PGD_STEPS = 1  # of adversarial training and TRADES
LARGE_EPS = {"steps": 1, "images": 1}


def copy_repository(folder: Path) -> None:
    """The files that git has or could have, as they are in the working tree, under a git of their own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    identity = (["config", "user.name", "miniature"], ["config", "user.email", "miniature@localhost"])
    for git in (["init", "--quiet"], *identity):
        subprocess.run(["git", *git], cwd=folder, check=True)


def shrink(folder: Path, datasets: Iterable[str], params: dict[str, Any]) -> None:
    """Rewrite params.yaml and the confs of a copy."""
    raw = [name for name in datasets if read_yaml(folder / f"conf/{name}.yaml")["data"].get("root")]
    edit(folder / "params.yaml", {"datasets": list(datasets), "raw": raw, **params})
    edit(folder / "conf/toy.yaml", TOY)
    for dataset in datasets:
        path = folder / "conf" / f"{dataset}.yaml"
        for section, values in CONF.items():
            edit(path, values, section)
        large_eps = read_yaml(path)["evaluation"]["large_eps"]
        edit(path, {"large_eps": large_eps | {"steps": 2}}, "evaluation")


def shrink_paper(folder: Path, datasets: Iterable[str]) -> None:
    """Confs of the paper's datasets: in addition a slice of images, a step of training, the radii of the paper."""
    for dataset in datasets:
        path = folder / "conf" / f"{dataset}.yaml"
        before = read_yaml(path)
        shrink(folder, [dataset], {})
        edit(path, provide(dataset, folder / "raw" / dataset), "data")
        for section, values in PAPER_CONF.items():
            edit(path, values, section)
        classes = before["alignment"]["classes_per_image"]
        edit(path, {"classes_per_image": 2 if classes == "all" else min(2, classes)}, "alignment")
        evaluation = before["evaluation"]
        kept = {"threat_models": evaluation["threat_models"], "large_eps": evaluation["large_eps"] | LARGE_EPS}
        edit(path, kept, "evaluation")
        for method in ("at-l2", "at-linf", "trades-linf"):
            edit(path, {method: before["methods"][method] | {"steps": PGD_STEPS}}, "methods")


def shrink_presets(folder: Path) -> None:
    """What the presets of a copy set of the shrunk keys themselves; and two of the variants of each."""
    for path in (folder / "presets").glob("*.yaml"):
        content = read_yaml(path)
        variants = content.get("params", {}).get("variants", [])
        if len(variants) > 2:  # they run the same code
            content["params"]["variants"] = [variants[0], variants[-1]]
        confs = content if path.stem == DEFAULTS else content.get("conf", {})
        for dataset, values in confs.items():
            for key in list(values):
                section, field = key.split(".")
                if dataset != "digits" and (section == "data" or field == "threat_models"):
                    del values[key]  # `shrink_paper` has cut the images, and keeps the radii
                    continue
                small = CONF.get(section, {}) | PAPER_CONF.get(section, {})
                values[key] = small.get(field, values[key])
        YAML().dump(content, path)


def edit(path: Path, values: dict[str, Any], section: str | None = None) -> None:
    content = read_yaml(path)
    (content if section is None else content[section]).update(values)
    YAML().dump(content, path)


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder` with this interpreter; its output is shown and returned. Raises CalledProcessError."""
    return run(folder, [sys.executable, "-m", "dvc", *arguments])


def run(folder: Path, command: Sequence[str], prefix: str = "") -> str:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # lines come when they are printed
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            click.echo(f"{prefix}{line}", nl=False)
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(lines)


def run_datasets(datasets: list[str], params: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dataset in datasets:
            load_conf(dataset, ROOT / "conf")  # one line for a name that is none
        copy_repository(folder)
        shrink(folder, datasets, params)
        dvc(folder, "repro")
        click.echo("Again, to see that nothing is left to do:")
        again = dvc(folder, "repro")
        started = [line for line in again.splitlines() if line.startswith("Running stage")]
        only_raw = bool(started) and all("'raw@" in line for line in started)  # which always runs
        assert "up to date" in again or only_raw, "a second `dvc repro` found something to do"
        assert (folder / "results/report/report.md").is_file()
        shutil.rmtree(KEPT, ignore_errors=True)
        shutil.copytree(folder / "results/report", KEPT)
    click.echo(f"After a few steps the accuracies are no results. The report, to look at: {KEPT}/index.html")


def run_presets(presets: list[str]) -> None:
    """Every preset, through the shell as the README says; those that share datasets one after the other."""
    found = {name: load_preset(name, ROOT / "presets") for name in presets}
    whole = {name: preset for name, preset in found.items() if preset.parts is None}  # the parts are presets themselves
    groups: dict[tuple[str, ...], list[str]] = {}
    classifiers: dict[tuple[str, ...], int] = {}
    for name, preset in sorted(whole.items(), key=lambda item: -len(_datasets(item[1]))):
        own = _datasets(preset)
        datasets = next((group for group in groups if own and set(own) <= set(group)), own)
        groups.setdefault(datasets, []).append(name)
        classifiers[datasets] = classifiers.get(datasets, 0) + _classifiers(preset)
    largest_first = sorted(groups.items(), key=lambda group: -classifiers[group[0]])
    with ThreadPoolExecutor(max_workers=2) as pool:
        for finished in [pool.submit(_run_group, *group) for group in largest_first]:
            finished.result()


def _datasets(preset: Preset) -> tuple[str, ...]:
    return tuple(preset.values()["datasets"]) if preset.params is not None else ()


def _classifiers(preset: Preset) -> int:
    """About how many the preset trains: a measure of its work."""
    if preset.params is None:
        return 0
    values = preset.values()
    methods = sum(len(values[key]) for key in ("baselines", "realizations", "robust"))
    return len(values["datasets"]) * len(values["archs"]) * methods + min(2, len(values["variants"]))


def _run_group(datasets: tuple[str, ...], presets: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        shrink(folder, [dataset for dataset in datasets if dataset == "digits"], {})
        shrink_paper(folder, [dataset for dataset in datasets if dataset != "digits"])
        shrink_presets(folder)
        for git in (["add", "--all"], ["commit", "--quiet", "--message", "Miniature"]):
            subprocess.run(["git", *git], cwd=folder, check=True)
        for name in presets:
            start = time.perf_counter()
            preset = load_preset(name, folder / "presets")
            python = shlex.quote(sys.executable)
            command = f"{python} -m dvc exp run $({python} -m stages.preset {name})"
            if preset.command is not None:
                command = preset.command.replace("python", python, 1) + " --repeats 1"
            run(folder, ["bash", "-c", command], prefix=f"{name}: ")
            if preset.command is None:
                _check_report(folder, preset)
            click.echo(f"{name}: done after {time.perf_counter() - start:.0f} s")


def _check_report(folder: Path, preset: Preset) -> None:
    """The report is about this preset: it names its methods' results and shows its figures."""
    page = (folder / "results/report/report.md").read_text()
    values = preset.values()
    expected = [f"{dataset}-realizations.png" for dataset in values["datasets"]]
    expected += [f"{dataset}-noise-levels.png" for dataset in values["noise_level_figures"]]
    for dataset in values["datasets"] if values["baselines"] else []:
        for arch in values["archs"]:
            expected += [
                f"### {dataset} / {arch}",
                f"{dataset}-{arch}-large-eps.png",
                f"{dataset}-{arch}-gradients.png",
            ]
    for text in [*expected, *values["variants"]]:
        assert text in page, f"the report does not have {text}"


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--preset", "presets", multiple=True, help="a name of presets/, or all; may be repeated")
@click.option("--first-look", is_flag=True, help="of params.yaml only vanilla and SBG")
def main(datasets: tuple[str, ...], presets: tuple[str, ...], first_look: bool) -> None:
    start = time.perf_counter()
    try:
        if presets:
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # two copies are at work at a time
            run_presets(names(ROOT / "presets") if "all" in presets else list(presets))
        if datasets or not presets:
            run_datasets(list(datasets or ["digits"]), FIRST_LOOK if first_look else {})
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"{shlex.join(error.cmd)} failed with exit status {error.returncode}") from None
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    what = ", ".join([*presets, *datasets]) or "digits"
    click.echo(f"the miniature of {what} took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
