"""What a claim is made of: its registration, scores looked up in the table, comparisons with their margin.

A comparison asks whether a difference of two accuracies is above a margin, and answers yes or no where the 95 %
interval of the difference (pag.report.difference) lies on one side of the margin, "undecided" where it contains it.

A classifier that only guesses has a robust accuracy all the same, that of guessing. It satisfies no check, and a
comparison with it is not judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from pag.report.difference import LEVEL, Difference, Measurement, difference
from pag.report.formats import measured, method_name, p_value, percent, points, threat
from pag.report.outcomes import Sample

SLACK = 0.02  # "at least" forgives a loss this small
CERTAINTY = (
    "Comparisons are of the same images, image by image (“paired”) where the evaluation recorded them, and over "
    "training seeds where both methods have several. A check is undecided if the 95 % interval of the difference "
    "contains what the check asks for; p is two-sided, of a true difference equal to that. A claim does not hold if "
    "one of its checks fails, and is undecided if none fails and one is undecided; intervals are not widened for the "
    "number of checks. With one training seed (n is the images alone) an outcome is about these trained networks, not "
    "about the methods."
)
BEATS = "“Beats” means that the difference is above 0."
AT_LEAST = f"“At least” means not more than {100 * SLACK:g} points below."
CHANCE = (
    "A classifier is at chance level if its clean accuracy is not above that of naming the commonest class by more "
    "than two standard errors: it satisfies no check, and comparisons with it are not judged."
)


class NotTested(Exception):  # noqa: N818 (an outcome, not an error)
    """The scores do not contain what the claim's rule needs; the message says what is missing."""


Verdict = Literal["yes", "no", "undecided", "not judged"]  # the last: what to compare with is at chance level


@dataclass(frozen=True)
class Check:
    """One comparison of a rule, written out with its numbers."""

    text: str
    verdict: Verdict


def settled(text: str, satisfied: bool) -> Check:
    """A check without a measure of its certainty."""
    return Check(text, "yes" if satisfied else "no")


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


@dataclass(frozen=True, eq=False)
class Score:
    """An accuracy (or a mean of accuracies) of one classifier, or of several that differ in their training seed."""

    method: str
    measured: Measurement
    n: int
    learnt: bool  # the classifier is above chance level

    @property
    def value(self) -> float:
        return self.measured.value

    def __str__(self) -> str:
        level = "" if self.learnt else ", at chance level"
        seeds = self.measured.by_seed
        if len(seeds) == 1:
            return f"{method_name(self.method)} {measured(self.value, self.measured.error)} % (n = {self.n}{level})"
        spread = f"{len(seeds)} seeds, deviation {percent(float(np.std(seeds, ddof=1)))}"
        return f"{method_name(self.method)} {percent(self.value)} % ({spread}, n = {self.n}{level})"


def methods_of(scores: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(scores["method"]))


def require(scores: pd.DataFrame, *methods: str) -> None:
    """Raise NotTested with those of `methods` that were not run."""
    if missing := [method for method in methods if method not in set(scores["method"])]:
        raise NotTested(f"a run of {', '.join(missing)}")


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
    """AutoAttack accuracy of the method's main run and its replicas at a radius, or clean accuracy without one."""
    own = scores[(scores["method"] == method) & ((scores["run"] == "main") | scores["replica"])]
    if norm is None:
        rows, what = own[own["measure"] == "clean"], "clean accuracy"
    else:
        rows = own[(own["measure"] == "robust") & (own["norm"] == norm) & (own["eps"] == eps)]
        what = f"accuracy at {threat(norm, eps or 0)}"
    rows = rows.dropna(subset=["value"]).sort_values("replica", kind="stable")
    if rows.empty or rows["replica"].iloc[0]:
        raise NotTested(f"the {what} of {method}")
    return scored(method, rows, learnt(own[~own["replica"]]))


def scored(method: str, rows: pd.DataFrame, above_chance: bool) -> Score:
    """The same accuracy of one or several training seeds, a row each, the main run's first."""
    samples = [sample for sample in rows["sample"] if isinstance(sample, Sample)]
    images = {sample.images for sample in samples}
    recorded = len(samples) == len(rows) and len(images) == 1
    found = Measurement(
        by_seed=tuple(float(value) for value in rows["value"]),
        error=float(rows["error"].iloc[0]),
        images=images.pop() if recorded else None,
        correct=np.stack([sample.correct for sample in samples]) if recorded else None,
    )
    return Score(method, found, int(rows["n"].iloc[0]), above_chance)


def learnt(scores: pd.DataFrame) -> bool:
    """Whether one classifier is above chance level; taken to be where its metrics do not say what chance is."""
    clean = scores[scores["measure"] == "clean"]
    return not (clean["value"] <= clean["chance"] + 2 * clean["error"]).any()


def mean_accuracy(scores: pd.DataFrame, method: str, models: Sequence[tuple[str, float]]) -> Score:
    """Mean over threat models; the same images are behind each, so the error is the mean of their errors."""
    parts = [accuracy(scores, method, *model) for model in models]
    by_seed = zip(*(part.measured.by_seed for part in parts), strict=True)
    correct = [part.measured.correct for part in parts if part.measured.correct is not None]
    recorded = len(correct) == len(parts)
    found = Measurement(
        by_seed=tuple(float(np.mean(values)) for values in by_seed),
        error=float(np.mean([part.measured.error for part in parts])),
        images=parts[0].measured.images if recorded else None,
        correct=np.mean(correct, axis=0) if recorded else None,
    )
    return Score(method, found, parts[0].n, parts[0].learnt)


def seconds_per_step(scores: pd.DataFrame, first: str, second: str) -> tuple[float, float]:
    """Of the main runs of two methods, timed on the same machine."""
    main = scores[(scores["measure"] == "seconds_per_step") & (scores["run"] == "main")]
    timed = main.dropna(subset=["value"]).set_index("method")
    if not {first, second} <= set(timed.index):
        raise NotTested(f"seconds_per_step in the metrics of {first} and {second}")
    if timed["hardware"][first] != timed["hardware"][second]:
        raise NotTested(f"{first} and {second} timed on the same machine")
    return float(timed["value"][first]), float(timed["value"][second])


def mean_reaches(text: str, mean: float, deviation: float, count: int, needed: float) -> Check:
    """Whether a mean over training seeds is at least `needed`: by Student's t interval of that mean."""
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / count**0.5 if count > 1 else 0.0
    verdict: Verdict = "undecided"
    if not mean - reach < needed <= mean + reach:
        verdict = "yes" if reaches(mean, needed) else "no"
    return Check(f"{text}, 95 % interval ± {100 * reach:.1f}, needs {100 * needed:.1f}", verdict)


def reaches(value: float, needed: float) -> bool:
    """value ≥ needed, forgiving the rounding of decimal fractions."""
    return value >= needed - 1e-9


def beats(where: str, ours: Score, other: Score) -> Check:
    return gains(where, ours, other, 0.0)


def at_least(where: str, ours: Score, other: Score) -> Check:
    return gains(where, ours, other, -SLACK)


def gains(where: str, ours: Score, other: Score, margin: float) -> Check:
    """Whether ours − other is above the margin, as far as the data tell."""
    if min(len(ours.measured.by_seed), len(other.measured.by_seed)) < 2:
        ours, other = _first_seed(ours), _first_seed(other)
    found = difference(ours.measured, other.measured)
    low, high = found.interval
    how = "paired" if found.paired else "not paired"
    needed = f"must be above {100 * margin:+g}" if margin else "must be above 0"
    spread = f"{points(found.value)} points, 95 % interval {points(low)} to {points(high)}, {how}"
    return Check(
        f"{where}: {ours}, {other}: {spread}; {needed}, {p_value(found.p(margin))}",
        _verdict(ours, other, found, margin),
    )


def _first_seed(score: Score) -> Score:
    return Score(score.method, score.measured.first_seed(), score.n, score.learnt)


def _verdict(ours: Score, other: Score, found: Difference, margin: float) -> Verdict:
    low, high = found.interval
    if not other.learnt:
        return "not judged"
    if not ours.learnt or high <= margin:
        return "no"
    return "yes" if low >= margin else "undecided"
