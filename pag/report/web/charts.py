"""The charts of index.html as Vega-Lite specifications: numbers under the pointer, methods that can be hidden.

Vega-Lite through Altair: the smallest of the libraries that embed themselves (0.9 MB; Bokeh 1.3, Plotly 4.7), its SVG
takes the page's colours, in both themes, and screen readers find the marks in it.
"""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from pag.report.content import Group
from pag.report.curves import with_curves
from pag.report.formats import NORM_NAMES, radius, threat, unit_of
from pag.report.outcomes import NORMS, survived
from pag.report.studies import sweep_of
from pag.report.web.marks import bars, lines, points, specification

QUANTITIES = {"validation_accuracy": (100, "validation accuracy (%)"), "alignment": (1, "alignment term, λ included")}
DIGITS = 6  # of what is embedded


@dataclass(frozen=True)
class Chart:
    name: str
    title: str
    spec: dict[str, Any]  # Vega-Lite
    about: str = ""


def accuracy_charts(group: Group) -> list[Chart]:
    """Clean and robust accuracy of the main runs as bars with standard errors, a chart per threat model."""
    main = group.main_scores
    charts: list[Chart] = []
    for (measure, norm, eps), own in main[main["measure"].isin(["clean", "robust"])].groupby(
        ["measure", "norm", "eps"], sort=False, dropna=False
    ):
        title = "Clean" if measure == "clean" else threat(str(norm), float(str(eps)))
        rows = _percent(own)
        if not rows.empty:
            name = f"{group.name}-accuracy-{len(charts)}"
            charts.append(Chart(name, title, specification(bars(rows, "accuracy (%)", [0, 100]), rows)))
    return charts


def radius_charts(group: Group) -> list[Chart]:
    """AutoAttack's accuracy over the radius, a chart per norm; 0 stands for no attack."""
    main = group.main_scores[group.main_scores["measure"].isin(["clean_attacked", "robust"])]
    charts: list[Chart] = []
    for norm in dict.fromkeys(main["norm"].dropna()):
        own = main[(main["norm"] == norm) | (main["measure"] == "clean_attacked")]
        rows = _percent(own.assign(eps=own["eps"].fillna(0.0)))
        charts.append(_over_radius(f"{group.name}-radius-{norm}", NORM_NAMES[str(norm)], rows))
    return charts


def quick_charts(group: Group) -> list[Chart]:
    """Accuracy over more radii, of a quick attack, where the evaluation recorded it."""
    charts: list[Chart] = []
    for norm in NORMS:
        values = []
        for run in with_curves(group.main):
            radii, broken_at = run.outcomes.curve.get(norm, ((), ())) if run.outcomes else ((), ())
            for eps in (0.0, *radii) if len(radii) else ():
                accuracy = round(100 * float(survived(np.asarray(broken_at), eps).mean()), 2)
                values.append({"method": run.method, "run": run.name, "eps": float(eps), "value": accuracy})
        if values:
            title = f"{NORM_NAMES[norm]}, quick attack"
            charts.append(_over_radius(f"{group.name}-quick-{norm}", title, pd.DataFrame(values)))
    return charts


def _over_radius(name: str, title: str, rows: pd.DataFrame) -> Chart:
    unit = unit_of(rows["eps"].to_numpy())
    placed = rows.assign(radius=rows["eps"].map(radius), x=(rows["eps"] * unit).round(DIGITS))
    norm = title.partition(",")[0]
    x = alt.X("x:Q", title=f"{norm} radius ε" + ("" if unit == 1 else f" (1/{unit})"), scale=alt.Scale(padding=8))
    chart = lines(placed, x, "accuracy (%)", ["radius"], [0, 100])
    return Chart(name, title, specification(chart, placed))


def alignment_charts(group: Group) -> list[Chart]:
    """Robust accuracy at the smallest radius against measured alignment, a point per run."""
    aligned = group.scores[group.scores["measure"] == "alignment"].set_index("name")["value"]
    robust = group.scores[group.scores["measure"] == "robust"]
    charts: list[Chart] = []
    for norm, of_norm in robust.groupby("norm", sort=False):
        rows = _percent(of_norm[of_norm["eps"] == of_norm["eps"].min()])
        rows["alignment"] = rows["run"].map(aligned).round(3)
        rows = rows.dropna(subset=["alignment"])
        if not rows.empty:
            x = alt.X("alignment:Q", title="alignment (mean cosine with SBG)", scale=alt.Scale(zero=False, padding=12))
            chart = points(rows, x, "accuracy (%)", ["alignment", "λ"])
            title = threat(str(norm), float(of_norm["eps"].min()))
            charts.append(Chart(f"{group.name}-alignment-{norm}", title, specification(chart, rows)))
    return charts


def weight_charts(group: Group) -> list[Chart]:
    """Robust accuracy and alignment over λ, for methods that were swept."""
    swept = sweep_of(group.scores).dropna(subset=["weight", "value"])
    if swept.empty:
        return []
    smallest = min((weight for weight in swept["weight"] if weight > 0), default=1.0)
    to_scale = alt.Scale(type="symlog", constant=smallest, padding=12)
    x = alt.X("λ:Q", scale=to_scale, axis=alt.Axis(values=sorted(set(swept["weight"]))))
    charts: list[Chart] = []
    for (norm, eps), own in swept[swept["measure"] == "robust"].groupby(["norm", "eps"], sort=False):
        rows = _percent(own)
        spec = specification(lines(rows, x, "accuracy (%)", ["λ"], [0, 100]), rows)
        charts.append(Chart(f"{group.name}-lambda-{len(charts)}", threat(str(norm), float(str(eps))), spec))
    rows = _table(swept[swept["measure"] == "alignment"], 1, 3)
    if not rows.empty:
        spec = specification(lines(rows, x, "mean cosine with SBG", ["λ"]), rows)
        charts.append(Chart(f"{group.name}-lambda-alignment", "Alignment", spec))
    return charts


def cost_charts(group: Group) -> list[Chart]:
    """Wall time of the trainings, and of one step."""
    rows = _table(group.main_scores[group.main_scores["measure"] == "seconds_per_step"], 1000, 2)
    if rows.empty:
        return []
    return [Chart(f"{group.name}-cost", "Time of a training step", specification(bars(rows, "ms per step"), rows))]


def training_charts(group: Group, curves: pd.DataFrame) -> list[Chart]:
    """A chart per recorded quantity; `curves`: method, run, epoch, quantity, value."""
    charts: list[Chart] = []
    for quantity, own in curves.groupby("quantity", sort=False):
        scale, title = QUANTITIES.get(str(quantity), (1, str(quantity).replace("_", " ")))
        rows = own[["method", "run", "epoch"]].assign(value=(scale * own["value"]).round(4))
        chart = lines(rows, alt.X("epoch:Q"), title, ["epoch"], points=False)
        charts.append(Chart(f"{group.name}-training-{quantity}", title, specification(chart, rows)))
    return charts


def _table(scores: pd.DataFrame, scale: float, digits: int) -> pd.DataFrame:
    """What a chart embeds of scores: a row per known value with method, run, value, low, high, n, paper, λ."""
    known = scores.dropna(subset=["value"])
    value, error = scale * known["value"].astype(float), scale * known["error"].astype(float)
    rows = pd.DataFrame({"method": known["method"], "run": known["name"], "value": value.round(digits)})
    rows = rows.assign(low=(value - error).clip(lower=0).round(digits), high=(value + error).round(digits))
    rows = rows.assign(eps=known["eps"], error=error.round(digits), n=known["n"].astype(float))
    rows = rows.assign(paper=(scale * known["paper"].astype(float)).round(digits), λ=known["weight"])
    return rows.reset_index(drop=True)


def _percent(scores: pd.DataFrame) -> pd.DataFrame:
    rows = _table(scores, 100, 2)
    return rows.assign(high=rows["high"].clip(upper=100))
