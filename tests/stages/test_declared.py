"""What a stage loads and which parameters it reads while it runs are among its deps and params in dvc.yaml.

The stages of the chain run here with fresh imports of the project's modules: sys.modules then says what a run loaded.
"""

import re
import sys
from pathlib import Path

import pytest
from readings import Readings
from workspace import ROOT, Workspace

from pag.foundation.config.section import read_yaml

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
CODE = ("pag/", "stages/")
RUNS = {  # group of dvc.yaml → a stage of it
    "prepare": ("prepare", "digits"),
    "check": ("check", "digits"),
    "train_diffusion": ("train_diffusion", "digits"),
    "distill": ("distill", "digits", "nn"),
    "distill_sbg": ("distill_sbg", "digits"),
    "train": ("train", "digits", "cnn", "at-l2"),
    "train_pag": ("train", "digits", "cnn", "sbg"),
    "train_robust_pag": ("train", "digits", "cnn", "at-l2+sbg"),
    "train_variant": ("train", "digits", "cnn", "lambda-1"),
    "evaluate": ("evaluate", "digits", "cnn", "vanilla"),
    "evaluate_pag": ("evaluate", "digits", "cnn", "sbg"),
    "prepare_toy": ("prepare_toy",),
    "toy": ("toy",),
}


def ours() -> dict[str, object]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("pag", "stages")}


@pytest.fixture
def fresh_modules():
    """None of the project's modules is loaded; afterwards those of the other tests are back."""
    before = ours()
    for name in before:
        del sys.modules[name]
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def source_of(name: str) -> Path | None:
    """The file of a module; None for an empty package file."""
    base = Path(*name.split("."))
    file = next(path for path in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / path).is_file())
    return file if (ROOT / file).read_text().strip() and file != Path("pag/__init__.py") else None  # the version


def is_declared(group: str, file: str, key: str) -> bool:
    """Whether a key, or a section that it is in, is among the params of a group of dvc.yaml, or the file as a whole,
    which may be a dep too."""
    parts = [part for word in RUNS[group][1:] for part in word.split("+")]
    item = dict(zip(STAGES[group]["matrix"], parts, strict=False))

    def filled(text: str) -> str:
        return re.sub(r"\$\{item\.(\w+)\}", lambda match: item.get(match[1], match[0]), text)

    if file in map(filled, STAGES[group]["deps"]):
        return True
    for entry in STAGES[group].get("params", []):
        declared = {"params.yaml": [entry]} if isinstance(entry, str) else entry
        for declared_file, keys in declared.items():
            if filled(declared_file) == file and (
                keys is None or any(f"{key}.".startswith(f"{filled(each)}.") for each in keys)
            ):
                return True
    return False


@pytest.mark.parametrize("group", RUNS)
@pytest.mark.usefixtures("fresh_modules")
def test_what_a_run_loads_and_reads_is_declared(
    chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    workspace = chain.copy(tmp_path)
    readings = Readings(monkeypatch)
    assert workspace.run(monkeypatch, *RUNS[group]) == 0
    undeclared_keys = {f"{file}: {key}" for file, key in readings.keys if not is_declared(group, file, key)}
    assert not undeclared_keys, f"add to the params of {group}: {', '.join(sorted(undeclared_keys))}"
    assert readings.keys, "no stage runs without parameters"
    declared = [Path(dep) for dep in STAGES[group]["deps"] if dep.startswith(CODE)]
    loaded = {file for name in ours() if (file := source_of(name)) is not None}
    undeclared = {file for file in loaded if not any(file == dep or dep in file.parents for dep in declared)}
    assert not undeclared, f"add to the deps of {group}: {', '.join(map(str, sorted(undeclared)))}"
    if group not in ("train_robust_pag", "train_variant"):  # which may need any room, or one that this run does not
        idle = [dep for dep in declared if not any(file == dep or dep in file.parents for file in loaded)]
        assert not idle, f"remove from the deps of {group}: {', '.join(map(str, idle))}"
