"""preset: the arguments of `dvc exp run` for a table or figure of the paper, or the list of all presets.

    python -m stages.preset
    dvc exp run $(python -m stages.preset table1)
    dvc exp run $(python -m stages.preset table1 --dataset cifar10-jpeg)
    python -m stages.preset table1 --set && dvc repro

A preset (presets/<name>.yaml) names every method, dataset and architecture that it wants; what it does not name is
not run. Keys of a conf that any preset changes have their usual value in presets/defaults.yaml. The arguments set all
of that, whatever an earlier experiment left in params.yaml and conf/. They leave out what conf/ says at this moment,
since DVC takes a default that is written out for a change: so use them at once. The seeds remain those of params.yaml.
"""

import re
from pathlib import Path
from typing import Any

import click
from pydantic import Field, model_validator

from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.params import Params
from pag.foundation.config.runs import variant_of
from pag.foundation.config.section import ConfigError, Section, check, load, nearest, read_yaml
from stages.shared.command import run_stage
from stages.shared.edits import uncommitted

FOLDER = Path("presets")
DEFAULTS = "defaults"
NOTHING: dict[str, Any] = {
    "lambda": None,
    "datasets": [],
    "raw": [],  # what the confs say of the datasets
    "baselines": [],
    "heuristics": [],
    "realizations": [],
    "robust": [],
    "robust_realizations": [],
    "variants": [],
    "variant_datasets": [],
    "variant_archs": [],
    "externals": [],
    "external_datasets": [],
    "point_sets": [],
    "noise_level_figures": [],
}
STOP = "no-such-experiment"  # DVC refuses it in a line; nothing at all would make it run params.yaml as it is
WORD = re.compile(r"[\w.+-]+")


class Preset(Section):
    """presets/<name>.yaml: one experiment, or the presets that it consists of, or a command that is no experiment."""

    description: str
    params: dict[str, Any] | None = None  # of params.yaml, except the seeds; what is missing is NOTHING's
    like: str | None = None  # a preset of the same datasets, whose conf this one starts from
    conf: dict[str, dict[str, Any]] = Field({})  # dataset -> dotted key -> value
    parts: list[str] | None = None
    command: str | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Preset":
        if sum(kind is not None for kind in (self.params, self.parts, self.command)) != 1:
            raise ValueError("expected exactly one of params, parts and command")
        return self

    def values(self) -> dict[str, Any]:
        """The keys of params.yaml that the preset decides on."""
        assert self.params is not None
        return NOTHING | self.params

    def on(self, dataset: str) -> "Preset":
        """The same experiment on another dataset than its one."""
        given = self.values()["datasets"]
        if len(given) != 1:
            raise ConfigError(f"--dataset {dataset} takes the place of one dataset, this preset has {len(given)}")
        params = {key: [dataset] if value == given else value for key, value in self.values().items()}
        return self.model_copy(update={"params": params, "conf": {dataset: self.conf.get(given[0], {})}})


def load_preset(name: str, folder: Path = FOLDER) -> Preset:
    """Raises ConfigError with one line for an unknown name (with the nearest) and for a preset that is not valid."""
    known = names(folder)
    if name not in known:
        raise ConfigError(f"unknown preset '{name}'{nearest(name, known)} (`python -m stages.preset` lists them)")
    path = folder / f"{name}.yaml"
    preset = load(Preset, path)
    if preset.params is None:
        return preset
    params = check(Params, {"seed": 0, "training_seed": 0, **preset.values()}, str(path))
    bases = [read_yaml(folder / f"{DEFAULTS}.yaml"), load_preset(preset.like, folder).conf if preset.like else {}]
    datasets = dict.fromkeys([*params.datasets, *params.noise_level_figures])
    conf = {
        dataset: {key: value for part in (*bases, preset.conf) for key, value in part.get(dataset, {}).items()}
        for dataset in datasets
    }
    return preset.model_copy(update={"conf": conf})


def names(folder: Path = FOLDER) -> list[str]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist: run from the repository's root")
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != DEFAULTS)


def arguments(name: str, dataset: str | None = None, folder: Path = FOLDER) -> list[str]:
    """The arguments after `dvc exp run`; none of them holds a blank. Raises ConfigError for what is no experiment.

    dataset: takes the place of the preset's own one, for instance a copy of the same images.
    """
    preset = load_preset(name, folder)
    if preset.command is not None:
        raise ConfigError(f"{name} is no DVC experiment, run: {preset.command}")
    if preset.parts is not None:
        raise ConfigError(f"{name} takes more than one experiment, run: {', '.join(preset.parts)}")
    if dataset is not None:
        load_conf(dataset)
        preset = preset.on(dataset)
    values = preset.values()
    for changed in values["variant_datasets"]:
        for variant in values["variants"]:
            variant_of(load_conf(changed), changed, variant)  # which another dataset may not have
    values["raw"] = [name for name in values["datasets"] if load_conf(name).data.root is not None]
    settings = [f"{key}={_text(value)}" for key, value in values.items()]
    for changed, keys in preset.conf.items():  # ++ also sets a key that the file leaves at its default
        settings += [f"conf/{changed}.yaml:++{key}={_text(value)}" for key, value in _news(changed, keys).items()]
    return [*(word for setting in settings for word in ("-S", setting)), "report"]


def _news(dataset: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Those of `dotted.key: value` that conf/<dataset>.yaml does not say yet."""
    path = Path("conf") / f"{dataset}.yaml"
    content = read_yaml(path)
    for key, value in keys.items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    wanted = check(Conf, content, f"{path} with the preset")
    before, after = (conf.model_dump(by_alias=True) for conf in (load_conf(dataset), wanted))
    return {key: value for key, value in keys.items() if _at(before, key) != _at(after, key)}


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = None if content is None else content.get(part)
    return content


def _text(value: Any) -> str:
    """A value in the grammar of `-S`, without blanks: the shell splits the output of a command at them."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_text(content)}' for key, content in value.items())}}}"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    assert WORD.fullmatch(text), text
    return text


@click.command()
@click.argument("name", required=False)
@click.option("--dataset", help="in the place of the preset's one dataset")
@click.option("--set", "write", is_flag=True, help="into params.yaml and conf/, for `dvc repro`, in place of printing")
def main(name: str | None, dataset: str | None, write: bool) -> None:
    if name is None:
        if write:
            raise ConfigError("--set needs a preset's name: `python -m stages.preset` lists them")
        width = max(map(len, names()))
        for known in names():
            click.echo(f"{known:<{width}}  {load_preset(known).description}")
        return
    if write:
        from dvc.utils.cli_parse import to_path_overrides
        from dvc.utils.hydra import apply_overrides

        if edits := uncommitted():
            click.echo(f"{', '.join(edits)} had edits that git does not have: `git restore` takes them back too")
        for file, overrides in to_path_overrides(arguments(name, dataset)[1::2]).items():
            apply_overrides(file, overrides)
        click.echo("params.yaml and conf/ say so now (`git diff`); `git restore params.yaml conf` takes it back")
        return
    try:
        click.echo(" ".join(arguments(name, dataset)))
    except ConfigError:
        click.echo(STOP)
        raise


if __name__ == "__main__":
    run_stage(main)
