"""dvc.yaml: every stage declares exactly the code it runs, and only alignment runs depend on λ."""

import re
from pathlib import Path

import pytest
from closure import ROOT, closure

from pag.foundation.config.section import read_yaml

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
REGISTRIES = {Path("pag/datasets"), Path("pag/classifiers"), Path("pag/report")}  # declared as a whole


def script_of(stage: dict) -> Path:
    module = re.match(r"python -m (stages\.\w+)", stage["cmd"]).group(1)
    return Path(*module.split(".")).with_suffix(".py")


def code_deps(stage: dict) -> list[Path]:
    return [Path(dep) for dep in stage["deps"] if dep.startswith(("pag/", "stages/"))]


def params_of(stage: dict) -> set[str]:
    """Keys of params.yaml that a stage depends on."""
    return {entry for entry in stage.get("params", []) if isinstance(entry, str)}


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_the_import_closure(name: str) -> None:
    declared = code_deps(STAGES[name])
    missing = [
        file
        for file in sorted(closure(script_of(STAGES[name])))
        if not any(file == dep or dep in file.parents for dep in declared)
    ]
    assert not missing, f"add to the deps of {name}: {', '.join(map(str, missing))}"


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_nothing_that_is_not_imported(name: str) -> None:
    files = closure(script_of(STAGES[name]))
    idle = [dep for dep in code_deps(STAGES[name]) if not any(file == dep or dep in file.parents for file in files)]
    assert not idle, f"remove from the deps of {name}: {', '.join(map(str, idle))}"


@pytest.mark.parametrize("name", STAGES)
def test_folder_deps_are_imported_as_a_whole(name: str) -> None:
    """A folder may stand for its files only where the stage imports them all (or picks one by name)."""
    files = closure(script_of(STAGES[name]))
    for dep in code_deps(STAGES[name]):
        if (ROOT / dep).is_dir() and dep not in REGISTRIES:
            inside = {p.relative_to(ROOT) for p in (ROOT / dep).rglob("*.py") if p.read_text().strip()}
            assert inside <= files, f"{name}: {dep} holds files that the stage does not import: {inside - files}"


def test_only_alignment_training_depends_on_lambda() -> None:
    assert {name for name in STAGES if "lambda" in params_of(STAGES[name])} == {"train_pag", "train_robust_pag"}


def test_editing_the_objective_retrains_only_the_alignment_runs() -> None:
    objective = Path("pag/objectives/alignment.py")
    assert {name for name in STAGES if objective in closure(script_of(STAGES[name]))} == {
        "train_pag",
        "train_robust_pag",
        "train_variant",
        "toy",  # trains its own alignment runs
    }


def test_editing_the_report_reruns_only_the_report() -> None:
    touched = {
        name for name in STAGES if any(file.parts[:2] == ("pag", "report") for file in closure(script_of(STAGES[name])))
    }
    assert touched == {"report"}


def test_training_never_needs_the_diffusion_model() -> None:
    for name in ("train", "train_pag", "train_robust_pag", "train_variant"):
        assert not any(dep.endswith("/diffusion") for dep in STAGES[name]["deps"])
        assert not [file for file in closure(script_of(STAGES[name])) if file.parts[:2] == ("pag", "diffusion")]


def test_the_seed_of_the_classifiers_leaves_data_and_diffusion_alone() -> None:
    upstream = {"prepare", "train_diffusion", "distill", "distill_sbg", "noise_levels"}
    for name in upstream:
        assert "training_seed" not in params_of(STAGES[name])
        assert "seed" in params_of(STAGES[name])
