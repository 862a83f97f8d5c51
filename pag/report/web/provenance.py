"""Where the numbers come from: runs with their hashes, machines and times, parameters, versions.

Nothing of the moment at which the page is written: the same results give the same bytes.
"""

import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pag.foundation.config.conf import Conf
from pag.report.content import Content, label
from pag.report.formats import MISSING, Table, duration
from pag.report.tables import untimed

PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "timm",
    "pyautoattack",
    "foolbox",
    "numpy",
    "pandas",
    "matplotlib",
    "altair",
)
HASH = 12  # characters that are shown of one


def provenance(content: Content) -> list[Table]:
    return [_runs(content), _parameters(content), _versions()]


def _runs(content: Content) -> Table:
    rows = []
    for run in (*content.results.runs, *content.results.variants, *content.results.externals):
        found = run.metrics
        hashes = found.dataset_hash[:HASH], found.weights_sha256[:HASH]
        trained_on = found.train_hardware or MISSING
        seed = MISSING if found.seed is None else str(found.seed)
        rows.append([label(run), seed, *hashes, duration(found.train_seconds), trained_on, found.hardware])
    header = ["Run", "seed", "images", "weights", "training", "trained on", "evaluated on"]
    about = "Hashes of the images and of the classifier's weights; wall time of the training steps."
    every = (*content.results.runs, *content.results.variants, *content.results.externals)
    caption = " ".join([about, *untimed([(label(run), run.metrics.untimed) for run in every])])
    return Table("runs", "Runs", caption, header, rows)


def _parameters(content: Content) -> Table:
    rows = [[f"params.yaml: {key}", value] for key, value in _flat(content.params.model_dump(by_alias=True))]
    for dataset, conf in content.confs.items():
        rows += [[f"conf/{dataset}.yaml: {key}", value] for key, value in _flat(_changed(conf))]
    caption = "What params.yaml says, and what each conf sets to another value than the default; variants left out."
    return Table("parameters", "Parameters", caption, ["Parameter", "value"], rows)


def _changed(conf: Conf) -> dict[str, Any]:
    return conf.model_dump(by_alias=True, exclude_defaults=True, exclude={"variants"})


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _versions() -> Table:
    rows = [["Python", platform.python_version()], *([name, _version(name)] for name in PACKAGES)]
    return Table("versions", "Versions", "Of the environment that wrote this page.", ["Package", "version"], rows)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING
