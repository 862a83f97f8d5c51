"""What a claim is made of: its registration, scores looked up in the table, comparisons with their margin.

Accuracies of different classifiers are compared with the standard error of their difference, as if the images were
independent draws; the spread over training seeds is not in it. "Beats" means above by more than that error, "at least"
not below by more than it: one standard error, so single outcomes near a margin are weak evidence.

A classifier that only guesses has a robust accuracy all the same, that of guessing. It satisfies no check, and a
comparison with it is not judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from pag.report.formats import measured, method_name, percent, points, threat

BEATS = "“Beats” means above by more than one standard error of the difference."
CHANCE = (
    "A classifier is at chance level if its clean accuracy is not above that of naming the commonest class by more "
    "than two standard errors: it satisfies no check, and comparisons with it are not judged."
)
AT_LEAST = "“At least” means not below by more than one standard error of the difference."


class NotTested(Exception):  # noqa: N818 (an outcome, not an error)
    """The scores do not contain what the claim's rule needs; the message says what is missing."""


@dataclass(frozen=True)
class Check:
    """One comparison of a rule, written out with its numbers."""

    text: str
    satisfied: bool | None  # None: the classifier to compare with is at chance level


# What one group of scores is: the main runs of a dataset and architecture; those and the λ sweep; those and the
# variants of the gradient-norm penalty; all architectures of a dataset; the toy experiment.
Scope = Literal["arch", "sweep", "penalties", "dataset", "toy"]
ClaimChecks = Callable[[pd.DataFrame], list[Check]]


@dataclass(frozen=True)
class Claim:
    number: int
    statement: str
    rule: str
    scope: Scope
    checks: ClaimChecks


CLAIMS: list[Claim] = []


def claim(number: int, statement: str, rule: str, scope: Scope = "arch") -> Callable[[ClaimChecks], ClaimChecks]:
    """Register a function as the test of a claim; statement and rule are printed in the report."""

    def register(checks: ClaimChecks) -> ClaimChecks:
        CLAIMS.append(Claim(number, statement, rule, scope, checks))
        return checks

    return register


@dataclass(frozen=True)
class Score:
    """An accuracy (or a mean of accuracies) with its standard error."""

    method: str
    value: float
    error: float
    n: int
    learnt: bool  # the classifier is above chance level

    def __str__(self) -> str:
        level = "" if self.learnt else ", at chance level"
        return f"{method_name(self.method)} {measured(self.value, self.error)} % (n = {self.n}{level})"


def methods_of(scores: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(scores["method"]))


def present(scores: pd.DataFrame, methods: tuple[str, ...]) -> list[str]:
    return [method for method in methods if method in set(scores["method"])]


def threat_models(scores: pd.DataFrame) -> list[tuple[str, float]]:
    """(norm, radius) of every AutoAttack column: L2 first, radii ascending."""
    rows = scores[scores["attack"] == "AutoAttack"][["norm", "eps"]].drop_duplicates()
    return sorted((str(norm), float(eps)) for norm, eps in rows.itertuples(index=False))


def smallest(scores: pd.DataFrame, norm: str) -> tuple[str, float]:
    models = [model for model in threat_models(scores) if model[0] == norm]
    if not models:
        raise NotTested(f"a threat model of the norm {norm}")
    return models[0]


def accuracy(scores: pd.DataFrame, method: str, norm: str | None = None, eps: float | None = None) -> Score:
    """AutoAttack accuracy of the method's main run at a radius, or its clean accuracy without one."""
    rows = scores[(scores["run"] == "main") & (scores["method"] == method)]
    if norm is None:
        rows, what = rows[rows["measure"] == "clean"], "clean accuracy"
    else:
        rows = rows[(rows["measure"] == "robust") & (rows["norm"] == norm) & (rows["eps"] == eps)]
        what = f"accuracy at {threat(norm, eps or 0)}"
    rows = rows.dropna(subset=["value"])
    if rows.empty:
        raise NotTested(f"the {what} of {method}")
    row = rows.iloc[0]
    own = scores[(scores["run"] == "main") & (scores["method"] == method)]
    return Score(method, float(row["value"]), float(row["error"]), int(row["n"]), learnt(own))


def learnt(scores: pd.DataFrame) -> bool:
    """Whether one classifier is above chance level; taken to be where its metrics do not say what chance is."""
    clean = scores[scores["measure"] == "clean"]
    return not (clean["value"] <= clean["chance"] + 2 * clean["error"]).any()


def mean_accuracy(scores: pd.DataFrame, method: str, models: list[tuple[str, float]]) -> Score:
    """Mean over threat models; the same images are behind each, so the error is the mean of their errors."""
    parts = [accuracy(scores, method, *model) for model in models]
    size = len(parts)
    value, error = sum(p.value for p in parts) / size, sum(p.error for p in parts) / size
    return Score(method, value, error, parts[0].n, parts[0].learnt)


def reaches(value: float, needed: float) -> bool:
    """value ≥ needed, forgiving the rounding of decimal fractions."""
    return value >= needed - 1e-9


def beats(where: str, ours: Score, other: Score) -> Check:
    text, difference, error = _compare(where, ours, other)
    return Check(text, judged(ours, other, difference > error))


def at_least(where: str, ours: Score, other: Score) -> Check:
    text, difference, error = _compare(where, ours, other)
    return Check(text, judged(ours, other, difference >= -error))


def gains(where: str, ours: Score, other: Score, needed: float) -> Check:
    gain = ours.value - other.value
    text = f"{where}: {ours}, {other}: {points(gain)} points, needs {points(needed)}"
    return Check(text, judged(ours, other, reaches(gain, needed)))


def judged(ours: Score, other: Score, satisfied: bool) -> bool | None:
    """The outcome of a comparison of two accuracies, with what chance level makes of it."""
    return (ours.learnt and satisfied) if other.learnt else None


def _compare(where: str, ours: Score, other: Score) -> tuple[str, float, float]:
    difference, error = ours.value - other.value, (ours.error**2 + other.error**2) ** 0.5
    return f"{where}: {ours}, {other}: {points(difference)} ± {percent(error)} points", difference, error
