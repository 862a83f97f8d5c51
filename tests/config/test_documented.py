"""docs/conf.md names every key with its default, in the order of the code."""

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pag.classifiers import ARCHITECTURES
from pag.datasets.loaders import LOADERS
from pag.foundation.config import data, diffusion, evaluation, external, runs, training
from pag.foundation.config.conf import Conf

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/conf.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {
    "data": data.DataConfig,
    "diffusion": diffusion.DiffusionConfig,
    "diffusion.checkpoint": diffusion.CheckpointConfig,
    "distill": diffusion.DistillConfig,
    "heuristics": diffusion.HeuristicsConfig,
    "classifier": training.ClassifierConfig,
    "alignment": training.AlignmentConfig,
    "methods.at-l2, at-linf, trades-linf": training.AdversarialConfig,
    "evaluation": evaluation.EvaluationConfig,
    "evaluation.attack": evaluation.AttackConfig,
    "evaluation.large_eps": evaluation.LargeEpsConfig,
    "variants.NAME": runs.Variant,
    "external.NAME": external.External,
}


def table(section: str) -> dict[str, tuple[str, str]]:
    """key → (default, meaning)"""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| `")]
    return {row[1].strip(" `"): (row[2].strip(), row[3]) for row in rows}


def words(annotation: Any) -> set[str]:
    """The words that a value may be."""
    if get_origin(annotation) is Literal:
        return {value for value in get_args(annotation) if isinstance(value, str)}
    return {word for part in get_args(annotation) for word in words(part)}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default_and_values(section: str) -> None:
    documented, fields = table(section), SECTIONS[section].model_fields
    assert list(documented) == [field.alias or name for name, field in fields.items()]
    for (default, meaning), field in zip(documented.values(), fields.values(), strict=True):
        if field.is_required():
            assert default == ""
        else:
            value = field.get_default(call_default_factory=True)
            value = {} if isinstance(value, BaseModel) else value
            assert YAML(typ="safe").load(default) == (list(value) if isinstance(value, tuple) else value)
        assert words(field.annotation) <= set(re.findall(r"\w+", meaning))


def test_every_section_is_documented() -> None:
    headings = {heading.split(".")[0] for heading in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)}
    assert headings - {"Names"} == set(Conf.model_fields)
    names = set(re.findall(r"`([\w-]+)`", PAGE.split("## Names\n")[1]))
    unnamed = {*ARCHITECTURES, *LOADERS} - {"mlp"} - names  # mlp is the toy's
    assert not unnamed, f"docs/conf.md, under Names, does not name {', '.join(unnamed)}"
    for name, field in training.MethodsConfig.model_fields.items():
        assert f"`{field.alias or name}`" in PAGE.split("## methods\n")[1].split("\n## ")[0]
