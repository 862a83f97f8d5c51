"""The charts of index.html as Vega-Lite specifications: numbers under the pointer, methods that can be hidden.

Vega-Lite through Altair: the smallest of the libraries that embed themselves (0.9 MB; Bokeh 1.3, Plotly 4.7), its SVG
takes the page's colours, in both themes, and screen readers find the marks in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from pag.report.content import Group
from pag.report.curves import with_curves
from pag.report.formats import NORM_NAMES, method_name, radius, threat
from pag.report.outcomes import NORMS, survived
from pag.report.studies import sweep_of
from pag.report.style import COLOURS, marker

SHAPES = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}
SHOWN = "indexof(hidden, datum.method) < 0"  # `hidden` is set by the page's switches
ROW = 22  # pixels of a bar
QUANTITIES = {"validation_accuracy": (100, "validation accuracy (%)"), "alignment": (1, "alignment term, λ included")}
DIGITS = 6  # of what is embedded


@dataclass(frozen=True)
class Chart:
    name: str
    title: str
    spec: dict[str, Any]  # Vega-Lite
    about: str = ""


def variable(method: str) -> str:
    """The CSS variable that holds the method's colour; a combination has that of its robust part."""
    name = method.split("+", maxsplit=1)[0]
    return f"--{name if name in COLOURS else 'others'}"


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
            charts.append(Chart(name, title, _spec(_bars(rows, "accuracy (%)", [0, 100]), rows)))
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
    unit = _unit(rows["eps"])
    placed = rows.assign(radius=rows["eps"].map(radius), x=(rows["eps"] * unit).round(DIGITS))
    norm = title.partition(",")[0]
    x = alt.X("x:Q", title=f"{norm} radius ε" + ("" if unit == 1 else f" (1/{unit})"), scale=alt.Scale(padding=8))
    chart = _lines(placed, x, "accuracy (%)", ["radius"], [0, 100])
    return Chart(name, title, _spec(chart, placed))


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
            chart = _points(rows, x, "accuracy (%)", ["alignment", "λ"])
            title = threat(str(norm), float(of_norm["eps"].min()))
            charts.append(Chart(f"{group.name}-alignment-{norm}", title, _spec(chart, rows)))
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
        spec = _spec(_lines(rows, x, "accuracy (%)", ["λ"], [0, 100]), rows)
        charts.append(Chart(f"{group.name}-lambda-{len(charts)}", threat(str(norm), float(str(eps))), spec))
    rows = _table(swept[swept["measure"] == "alignment"], 1, 3)
    if not rows.empty:
        spec = _spec(_lines(rows, x, "mean cosine with SBG", ["λ"]), rows)
        charts.append(Chart(f"{group.name}-lambda-alignment", "Alignment", spec))
    return charts


def cost_charts(group: Group) -> list[Chart]:
    """Wall time of the trainings, and of one step."""
    rows = _table(group.main_scores[group.main_scores["measure"] == "seconds_per_step"], 1000, 2)
    if rows.empty:
        return []
    return [Chart(f"{group.name}-cost", "Time of a training step", _spec(_bars(rows, "ms per step"), rows))]


def training_charts(group: Group, curves: pd.DataFrame) -> list[Chart]:
    """A chart per recorded quantity; `curves`: method, run, epoch, quantity, value."""
    charts: list[Chart] = []
    for quantity, own in curves.groupby("quantity", sort=False):
        scale, title = QUANTITIES.get(str(quantity), (1, str(quantity).replace("_", " ")))
        rows = own[["method", "run", "epoch"]].assign(value=(scale * own["value"]).round(4))
        chart = _lines(rows, alt.X("epoch:Q"), title, ["epoch"], points=False)
        charts.append(Chart(f"{group.name}-training-{quantity}", title, _spec(chart, rows)))
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
    return _table(scores, 100, 2)


def _unit(radii: pd.Series) -> int:
    """255 where all radii are whole numbers of grey levels; else 1."""
    levels = 255 * radii
    return 255 if (levels - levels.round()).abs().max() < 0.02 else 1


def _looks(rows: pd.DataFrame) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    methods = list(dict.fromkeys(rows["method"]))
    colours = [f"var({variable(method)})" for method in methods]
    dashes = [[4, 3] if "+" in method else [1, 0] for method in methods]
    shapes = [SHAPES[marker(method)] for method in methods]
    return (
        alt.Color("method:N", scale=alt.Scale(domain=methods, range=colours), legend=None),
        alt.Shape("method:N", scale=alt.Scale(domain=methods, range=shapes), legend=None),
        alt.StrokeDash("method:N", scale=alt.Scale(domain=methods, range=dashes), legend=None),
    )


def _tooltip(rows: pd.DataFrame, title: str, more: Sequence[str] = ()) -> list[alt.Tooltip]:
    """Only of columns that hold something."""
    shown = ["label", "run", *more, "value", "error", "paper", "n"]
    titles = {"label": "method", "value": title, "error": "standard error"}
    known = {"label", *(column for column in rows if rows[column].notna().any())}
    types = {"label": "N", "run": "N", "radius": "N"}
    return [alt.Tooltip(f"{f}:{types.get(f, 'Q')}", title=titles.get(f, f)) for f in shown if f in known]


def _bars(rows: pd.DataFrame, title: str, domain: list[float] | None = None) -> alt.LayerChart:
    """A bar per method, its standard error, and a line at the paper's number."""
    names = [method_name(method) for method in dict.fromkeys(rows["method"])]
    base = _base().encode(y=alt.Y("label:N", sort=names, title=None))
    scale = alt.Scale(domain=domain) if domain else alt.Scale()
    tooltip = _tooltip(rows, title)
    bars = base.mark_bar(height={"band": 0.7}).encode(
        x=alt.X("value:Q", title=title, scale=scale), color=_looks(rows)[0], tooltip=tooltip
    )
    layers = [bars, *([_errors(base, "x")] if rows["low"].notna().any() else [])]
    if rows["paper"].notna().any():
        paper = base.transform_filter("isValid(datum.paper)")
        layers.append(paper.mark_tick(thickness=3, color="var(--paper)").encode(x="paper:Q", tooltip=tooltip))
    return alt.LayerChart(layer=layers).properties(height=ROW * rows["method"].nunique())


def _lines(
    rows: pd.DataFrame,
    x: alt.X,
    title: str,
    more: Sequence[str],
    domain: list[float] | None = None,
    points: bool = True,
) -> alt.LayerChart:
    """A line per method, points with their standard errors."""
    color, shape, dash = _looks(rows)
    scale = alt.Scale(domain=domain) if domain else alt.Scale(zero=False)
    base = _base().encode(x=x, y=alt.Y("value:Q", title=title, scale=scale))
    tooltip = _tooltip(rows, title, more)
    layers: list[alt.Chart] = [base.mark_line().encode(color=color, strokeDash=dash, tooltip=tooltip)]
    if points:
        layers += _marks(rows, base, color, shape, tooltip)
    return alt.LayerChart(layer=layers).properties(height=260)


def _points(rows: pd.DataFrame, x: alt.X, title: str, more: Sequence[str]) -> alt.LayerChart:
    color, shape, _ = _looks(rows)
    base = _base().encode(x=x, y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)))
    return alt.LayerChart(layer=_marks(rows, base, color, shape, _tooltip(rows, title, more))).properties(height=260)


def _marks(
    rows: pd.DataFrame, base: alt.Chart, color: alt.Color, shape: alt.Shape, tooltip: list[alt.Tooltip]
) -> list[alt.Chart]:
    """Points, and their standard errors where these are known."""
    points = base.mark_point(filled=True, size=90, opacity=1).encode(color=color, shape=shape, tooltip=tooltip)
    return [points, *([_errors(base, "y")] if "low" in rows and rows["low"].notna().any() else [])]


def _base() -> alt.Chart:
    """Of the rows that `_spec` adds."""
    return alt.Chart(alt.NamedData("rows")).transform_filter(SHOWN)


def _errors(base: alt.Chart, axis: str) -> alt.Chart:
    """From low to high, in the colour of the text: in front of marks that hide short ones."""
    bars = base.transform_filter("isValid(datum.low)").mark_rule(color="currentColor", strokeWidth=1.2)
    return bars.encode(x="low:Q", x2="high:Q") if axis == "x" else bars.encode(y="low:Q", y2="high:Q")


def _spec(chart: alt.LayerChart, rows: pd.DataFrame) -> dict[str, Any]:
    """Vega-Lite with its data, and as wide as its place on the page."""
    named = rows.assign(label=rows["method"].map(method_name)).to_dict("records")
    values = [{key: value for key, value in row.items() if not pd.isna(value)} for row in named]
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    whole = chart.add_params(alt.param(name="hidden", value=[])).properties(width="container", autosize=fit)
    return {key: value for key, value in whole.to_dict().items() if key != "config"} | {"datasets": {"rows": values}}
