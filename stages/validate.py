"""validate: every parameter file, whatever else is up to date; a misspelt key would otherwise do nothing, silently.

Architectures, attacks, variants and the files of external networks, which only later stages look up, are looked up here
too: a whole `dvc repro` stops at a wrong one before it trains. What was checked, with the values that the files leave
at their defaults, goes to data/parameters.json.
"""

from collections.abc import Iterable
from pathlib import Path

import click

from pag.classifiers import known_architectures
from pag.evaluation.foolbox import ATTACKS
from pag.foundation.artifacts import save_json
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.external import external_of
from pag.foundation.config.params import Params, load_params, not_looked_at
from pag.foundation.config.runs import Variant, run_of, variant_of
from pag.foundation.config.section import ConfigError, nearest
from pag.foundation.config.toy import load_toy
from pag.foundation.config.training import AlignedConfig
from pag.foundation.repository import repository
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.edits import uncommitted


@click.command()
def main() -> None:
    try:
        check_files()
    except ConfigError as error:
        edited = [file for file in uncommitted() if file in str(error)]
        stays = f" ({', '.join(edited)} is not as in git: a value of `-S`, if that was it, stays there)"
        raise ConfigError(f"{error}{stays if edited else ''}") from None


def check_files() -> None:
    params = load_params()
    require_known("params.yaml: archs", params.archs, known_architectures(params.archs))
    for dataset in params.datasets:
        require_copied(dataset)
        conf = load_conf(dataset)
        if conf.data.root is not None and dataset not in params.raw:
            raise not_looked_at(dataset)
        check_names(params, conf, dataset)
    checked = {"params": params, "toy": load_toy(), **{dataset: load_conf(dataset) for dataset in params.datasets}}
    save_json(
        paths.PARAMETERS, {name: section.model_dump(mode="json", by_alias=True) for name, section in checked.items()}
    )


def require_copied(dataset: str) -> None:
    """A queued experiment runs in a copy of what git knows, which a new conf may not be among."""
    path = Path("conf") / f"{dataset}.yaml"
    if not path.exists() and (repository() / path).exists():
        raise ConfigError(
            f"{path} is not in this experiment's copy of the repository, as git does not know it: `git add {path}`, "
            "then queue the experiment again"
        )


def check_names(params: Params, conf: Conf, dataset: str) -> None:
    """Architectures, attacks and runs that the conf of a data set names, or must have a section for."""
    source = f"conf/{dataset}.yaml"
    for method, config in conf.methods:
        if isinstance(config, AlignedConfig):
            known = ["default", *known_architectures(config.weight)]
            require_known(f"{source}: methods.{method}.lambda", config.weight, known)
    require_known(f"{source}: evaluation.foolbox", conf.evaluation.foolbox, ATTACKS)
    if not any(conf.evaluation.threat_models.values()):
        raise ConfigError(f"{source}: evaluation.threat_models has no radius, expected at least one")
    chosen = params.variants if dataset in params.variant_datasets else []
    for name in [*params.methods(), *conf.variants, *chosen]:
        run_of(name, dataset, params.archs[0], params, conf)
    for name in chosen:
        require_gradients(params, variant_of(conf, dataset, name), f"{source}: variants.{name}")
    run = params.externals if dataset in params.external_datasets else []
    for name in dict.fromkeys([*conf.external, *run]):
        external = external_of(conf, dataset, name)
        if name in run:  # the files of another may be somewhere else
            external.require_files(paths.external(name))


def require_gradients(params: Params, variant: Variant, source: str) -> None:
    """A variant's gradients must be distilled; and it does not follow the λ of params.yaml, which would retrain every
    variant at each change, so where that is set it must say its own."""
    if variant.realization not in (None, "sbg", *params.heuristics):
        raise ConfigError(
            f"{source} is trained on '{variant.realization}', which is not distilled: add it to heuristics"
        )
    if variant.realization is not None and params.weight is not None and variant.weight is None:
        raise ConfigError(
            f"{source} has no lambda, and the {params.weight:g} of params.yaml is not for variants: give it one of its "
            "own, set lambda: null, or leave it out of variants"
        )


def require_known(source: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{source}: unknown name '{name}'{nearest(name, list(known))}")


if __name__ == "__main__":
    run_stage(main)
