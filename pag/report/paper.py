"""The paper's numbers (paper.json), looked up by dataset, architecture, method and measure.

Accuracies are handed out as fractions in [0, 1], like the project's own.
"""

import json
import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

# Datasets that repeat one of the paper's with other files: name here -> (name in the paper, the mark beside it).
VARIANTS = {"cifar10-jpeg": ("cifar10", "JPEG copy")}
RADIUS_TOLERANCE = 2e-3  # relative: 0.0314 is 8/255, 0.03 is not
TABLE8_SBG = 2.0  # λ of SBG on CIFAR-10 in Table 8, the convention of the full sum over classes


@cache
def load_paper() -> dict[str, Any]:
    """paper.json: `about`, `accuracy` (dataset -> arch -> method -> numbers in percent), `figure5`, `toy`,
    `runtime`."""
    return json.loads(Path(__file__).with_name("paper.json").read_text())


def paper_dataset(dataset: str) -> str:
    return VARIANTS[dataset][0] if dataset in VARIANTS else dataset


def variant_mark(dataset: str) -> str | None:
    """'JPEG copy' for a dataset that is compared with another one of the paper, else None."""
    return VARIANTS[dataset][1] if dataset in VARIANTS else None


def same_radius(a: float, b: float) -> bool:
    """Whether two radii mean the same."""
    return math.isclose(a, b, rel_tol=RADIUS_TOLERANCE)


def paper_clean(dataset: str, arch: str, method: str) -> float | None:
    """The paper's clean accuracy in [0, 1], None where it has no such cell."""
    return _fraction(_cell(dataset, arch, method).get("clean"))


def paper_robust(dataset: str, arch: str, method: str, norm: str, eps: float) -> float | None:
    """The paper's AutoAttack accuracy in [0, 1] at this radius, None where it has no such cell."""
    radii = _cell(dataset, arch, method).get(norm, {})
    return next((_fraction(value) for key, value in radii.items() if same_radius(float(Fraction(key)), eps)), None)


def paper_foolbox(dataset: str, arch: str, method: str, attack: str) -> float | None:
    """The paper's accuracy in [0, 1] under a Foolbox attack of Table 6, None where it has no such cell."""
    return _fraction(_cell(dataset, arch, method).get("foolbox", {}).get(attack))


def paper_attacks(dataset: str, arch: str, method: str) -> list[str]:
    """The Foolbox attacks of Table 6."""
    return list(_cell(dataset, arch, method).get("foolbox", {}))


def paper_toy(method: str, measure: str) -> float | None:
    """The paper's toy accuracy in [0, 1]: method vanilla or nn, measure clean or pgd; None for others."""
    return _fraction(load_paper()["toy"].get(method, {}).get(measure))


def _cell(dataset: str, arch: str, method: str) -> dict[str, Any]:
    return load_paper()["accuracy"].get(paper_dataset(dataset), {}).get(arch, {}).get(method, {})


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
