"""The commands of README, CONTRIBUTING and docs/ are the ones that work."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from closure import ROOT

from pag.foundation.config.conf import load_conf
from pag.foundation.config.section import read_yaml

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


def test_the_two_commands_are_there() -> None:
    assert "pip install -e . && dvc repro" in COMMANDS
    assert "pip install -e '.[test]' && pytest" in COMMANDS


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "pip install -e '.\\[test\\]' && pytest" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("dvc ")])
def test_dvc_understands_the_command(command: str, answer: Callable[..., str]) -> None:
    """With the output of a preset in place of $(python -m stages.preset NAME), as a shell would put it."""
    from dvc.cli import parse_args

    preset = r"\$\(python -m (stages\.preset [^)]+)\)"
    for part in re.sub(preset, lambda match: answer(*match[1].split()).strip(), command).split(" && "):
        parse_args([word.strip("'") for word in part.split()[1:]])


def test_overrides_name_existing_keys() -> None:
    for file, key in re.findall(r"-S '?(?:(conf/\w+\.yaml):)?(?:\+\+)?([\w.]+)=", TEXT):
        content = read_yaml(ROOT / (file or "params.yaml"))
        if file:  # with the keys that it leaves at their defaults
            content = load_conf(Path(file).stem, ROOT / "conf").model_dump()
        for part in key.split("."):
            assert part in content, f"{file or 'params.yaml'}: {key}"
            content = content[part]


def test_the_stages_that_they_name_exist() -> None:
    for stage in re.findall(r"dvc repro (\w+)@", TEXT):
        assert stage in read_yaml(ROOT / "dvc.yaml")["stages"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", PAGES[0].read_text())
    assert {str(page.relative_to(ROOT)) for page in PAGES[1:]} <= set(linked)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"python -m (benchmarks\.\w+|stages\.\w+)", TEXT))))
def test_the_modules_that_they_name_answer(name: str, answer: Callable[..., str]) -> None:
    assert "Usage: " in answer(name, "--help")
