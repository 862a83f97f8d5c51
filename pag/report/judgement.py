"""Which claims hold on which group of scores.

A claim is judged on one group: one dataset and architecture, one dataset, or the toy experiment. It holds if every
check of its rule does, and does not if one fails; if none fails but one could not be judged, it is not tested, and
otherwise it is undecided if one check is.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

import pag.report.claims
import pag.report.further_claims  # noqa: F401 (their functions enter CLAIMS)
from pag.report.results import QUICK
from pag.report.rules import CLAIMS, Check, Claim, NotTested, Scope

Outcome = Literal["holds", "does not hold", "undecided", "not tested here"]


@dataclass(frozen=True)
class Finding:
    """The outcome of a claim on one group of scores."""

    claim: Claim
    group: str
    note: str  # what must stand beside it, e.g. "JPEG copy"; empty: nothing
    outcome: Outcome
    checks: tuple[Check, ...]
    missing: str | None  # what a claim that was not tested would need


def judge(scores: pd.DataFrame) -> list[Finding]:
    """Every claim on every group of the table of scores, in the order of the claims."""
    return [
        Finding(entry, name, "; ".join(group["note"].dropna().unique()), *_outcome(entry, group))
        for entry in CLAIMS
        for name, group in _groups(scores, entry.scope)
    ]


def _groups(scores: pd.DataFrame, scope: Scope) -> list[tuple[str, pd.DataFrame]]:
    if scope == "toy":
        return [("toy", scores[scores["dataset"] == "toy"])]
    images = scores[(scores["dataset"] != "toy") & (scores["run"] != "external")]  # claims are about methods
    keys = ["dataset"] if scope == "dataset" else ["dataset", "arch"]
    groups = []
    for key, group in images.groupby(keys, sort=False):
        chosen = (group["run"] == "main") | group["replica"]
        if scope == "sweep":
            chosen = group["run"].isin(["main", "sweep"])
        if scope == "penalties":
            chosen |= (group["run"] == "other") & (group["method"] == "gradnorm")
        groups.append(("/".join(map(str, key)), group[chosen]))
    return groups


def _outcome(entry: Claim, scores: pd.DataFrame) -> tuple[Outcome, tuple[Check, ...], str | None]:
    """Outcome, checks, and what a claim that was not tested would need."""
    if (scores["attack"] == QUICK).any():
        return "not tested here", (), "the standard AutoAttack: a quick attack proves nothing"
    try:
        checks = tuple(entry.checks(scores))
    except NotTested as missing:
        return "not tested here", (), str(missing)
    verdicts = {check.verdict for check in checks}
    if "no" in verdicts:
        return "does not hold", checks, None
    if "not judged" in verdicts:
        return "not tested here", checks, "a classifier above chance level to compare with"
    return "undecided" if "undecided" in verdicts else "holds", checks, None
