"""What every chart of index.html is made of: bars, lines and points in the methods' colours, with their errors."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from pag.report.formats import method_name
from pag.report.style import COLOURS, marker

SHAPES = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}
SHOWN = "indexof(hidden, datum.method) < 0"  # `hidden` is set by the page's switches
ROW = 22  # pixels of a bar


def variable(method: str) -> str:
    """The CSS variable that holds the method's colour; a combination has that of its robust part."""
    name = method.split("+", maxsplit=1)[0]
    return f"--{name if name in COLOURS else 'others'}"


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


def bars(rows: pd.DataFrame, title: str, domain: list[float] | None = None) -> alt.LayerChart:
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


def lines(
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


def points(rows: pd.DataFrame, x: alt.X, title: str, more: Sequence[str]) -> alt.LayerChart:
    """A point per run with its standard error."""
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
    """Of the rows that `specification` adds."""
    return alt.Chart(alt.NamedData("rows")).transform_filter(SHOWN)


def _errors(base: alt.Chart, axis: str) -> alt.Chart:
    """From low to high, in the colour of the text: in front of marks that hide short ones."""
    bars = base.transform_filter("isValid(datum.low)").mark_rule(color="currentColor", strokeWidth=1.2)
    return bars.encode(x="low:Q", x2="high:Q") if axis == "x" else bars.encode(y="low:Q", y2="high:Q")


def specification(chart: alt.LayerChart, rows: pd.DataFrame) -> dict[str, Any]:
    """Vega-Lite with its data, and as wide as its place on the page."""
    named = rows.assign(label=rows["method"].map(method_name)).to_dict("records")
    values = [{key: value for key, value in row.items() if not pd.isna(value)} for row in named]
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    whole = chart.add_params(alt.param(name="hidden", value=[])).properties(width="container", autosize=fit)
    return {key: value for key, value in whole.to_dict().items() if key != "config"} | {"datasets": {"rows": values}}
