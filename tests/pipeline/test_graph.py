"""dvc.yaml fits a page, and every stage declares exactly the code it runs.

What a stage imports when it is loaded is read from the source here; what a run imports on the way is seen at work in
tests/stages/test_declared.py, and which edits rerun which stages is asked of DVC itself in test_edits.py.
"""

import re
from pathlib import Path

import pytest
from closure import ROOT, closure

from pag.foundation.config.section import read_yaml

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
CODE = ("pag/", "stages/")
# Declared as a whole, though a stage may load only a part: loaders and architectures are imported by name, a store is
# read or stands in computed form, `validate` looks up the names of attacks.
BY_NAME = {Path("pag/datasets"), Path("pag/store"), Path("pag/evaluation")}


def script_of(stage: dict) -> Path:
    module = re.match(r"python -m (stages\.\w+)", stage["cmd"]).group(1)
    return Path(*module.split(".")).with_suffix(".py")


def code_deps(stage: dict) -> list[Path]:
    return [Path(dep) for dep in stage["deps"] if dep.startswith(CODE)]


def params_of(stage: dict) -> set[str]:
    """Keys of params.yaml that a stage depends on."""
    return {entry for entry in stage.get("params", []) if isinstance(entry, str)}


def inside(file: Path, dep: Path) -> bool:
    return file == dep or dep in file.parents


def test_the_pipeline_fits_a_page() -> None:
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len(lines) <= 300
    assert max(len(code_deps(stage)) for stage in STAGES.values()) <= 9
    assert all(stage["desc"] for stage in STAGES.values())


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_what_is_imported(name: str) -> None:
    declared = code_deps(STAGES[name])
    missing = [
        file for file in sorted(closure(script_of(STAGES[name]))) if not any(inside(file, dep) for dep in declared)
    ]
    assert not missing, f"add to the deps of {name}: {', '.join(map(str, missing))}"


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if "stages.train " not in stage["cmd"]])
def test_deps_name_nothing_that_is_not_imported(name: str) -> None:
    """Of the training groups tests/stages/test_declared.py says so."""
    files = closure(script_of(STAGES[name]))
    idle = [dep for dep in code_deps(STAGES[name]) if not any(inside(file, dep) for file in files)]
    assert not idle, f"remove from the deps of {name}: {', '.join(map(str, idle))}"


@pytest.mark.parametrize("name", STAGES)
def test_training_never_needs_the_diffusion_model(name: str) -> None:
    if name.startswith("train") and name != "train_diffusion":
        assert not any("/diffusion" in dep for dep in STAGES[name]["deps"])


def test_the_seed_of_the_classifiers_leaves_data_and_diffusion_alone() -> None:
    for name in ("prepare", "train_diffusion", "distill", "distill_sbg", "noise_levels"):
        assert "training_seed" not in params_of(STAGES[name])
        assert "seed" in params_of(STAGES[name])


def test_models_and_plots_that_dvc_is_told_of_are_those_of_the_default_run() -> None:
    beside = read_yaml(ROOT / "results/dvc.yaml")
    outs = {out["path"] for stage in read_yaml(ROOT / "dvc.lock")["stages"].values() for out in stage.get("outs", [])}
    models = {str(Path(artifact["path"]).relative_to("..")) for artifact in beside["artifacts"].values()}
    assert models == {out for out in outs if "/classifiers/" in out or out.endswith("/diffusion")}
    for (plot,) in (entry.values() for entry in beside["plots"]):
        for axis in (plot["x"], plot["y"]):
            for file in axis if isinstance(axis, dict) else ():
                assert any(inside(Path("results", file), Path(out)) for out in outs), file
