"""Every command says what it is for, and one command lists them all."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from workspace import ROOT

from pag.foundation.config.section import read_yaml
from stages.preset import names

STAGES = sorted({stage["cmd"].split()[2] for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values()})


def test_one_command_lists_stages_and_presets() -> None:
    command = [sys.executable, "-m", "stages"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert {name.removeprefix("stages.") for name in STAGES} | set(names(ROOT / "presets")) | {
        "new",
        "preset",
    } <= listed


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (["train", "digits", "cnn"], "python -m stages.train"),
        (["trian"], "python -m stages.NAME, did you mean 'train'"),
    ],
)
def test_a_stage_is_no_argument(given: list[str], advice: str) -> None:
    command = [sys.executable, "-m", "stages", *given]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and advice in done.stderr


@pytest.mark.parametrize("stage", ["stages.train", "stages.new"])
def test_help_is_what_the_module_says(stage: str, answer: Callable[..., str]) -> None:
    said = answer(stage, "--help")
    assert f"{stage.split('.')[1]}: " in said
    assert f"\n      python -m {stage} " in said  # the examples keep their lines
    assert "`python -m stages` lists all stages" in said


def test_help_says_what_the_arguments_are(answer: Callable[..., str]) -> None:
    said = " ".join(answer("stages.train", "--help").split())
    assert "DATASET has a file conf/DATASET.yaml. ARCH is an architecture" in said
