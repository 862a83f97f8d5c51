"""Every run of a dataset as a point: robust accuracy against clean accuracy, and against measured alignment."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from pag.report.formats import NORM_NAMES, method_name, name_of, radius
from pag.report.labels import label_points
from pag.report.style import PLOT_DPI, bar_ends, colour, error_bars, house_style, ink, marker

FACE = 0.45  # opacity of a marker within its edge, so that those behind it can be seen
LINE = 15.5  # characters on an inch of the words below the panels


@dataclass(frozen=True)
class Abscissa:
    measure: str  # in the table of scores
    label: str
    scale: float
    smallest_span: float  # values this close must not look like an order


ALIGNMENT = Abscissa("alignment", "alignment (mean cosine with SBG)", 1.0, 0.05)
CLEAN = Abscissa("clean", "clean accuracy (%)", 100.0, 5.0)


def scatter_figure(dataset: str, scores: pd.DataFrame, across: Abscissa) -> Figure:
    """One panel per architecture (row) and norm (column), at the smallest radius; `scores`: all runs of the dataset.

    Large, named points are the main runs, small ones the variants; a line joins the runs of a method over its weight.
    What of this there is to see is said below the panels.
    """
    robust = scores[scores["measure"] == "robust"]
    attacks = " and ".join(robust["attack"].unique())
    archs, norms = list(dict.fromkeys(scores["arch"])), list(dict.fromkeys(robust["norm"]))
    with house_style():
        width = 4.6 * len(norms)
        figure = Figure(figsize=(width, 4.1 * len(archs)), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(len(archs), len(norms), squeeze=False)
        drawn = []
        for row, arch in zip(panels, archs, strict=True):
            for axes, norm in zip(row, norms, strict=True):
                group = robust[(robust["arch"] == arch) & (robust["norm"] == norm)]
                eps = group["eps"].min()
                points = _points(group[group["eps"] == eps], scores[scores["arch"] == arch], across)
                _scatter(axes, points, across)
                drawn.append((axes, points))
                axes.set(xlabel=across.label, ylabel=f"{attacks} accuracy (%)")
                axes.set_title(f"{dataset} / {arch}, {NORM_NAMES[norm]} radius {radius(eps)}")
        words = fill(" ".join(_words(pd.concat([points for _, points in drawn]), scores, across)), int(LINE * width))
        figure.supxlabel(words, x=0.005, ha="left", fontsize=8)
        figure.draw_without_rendering()  # settles the layout, which the places of the labels depend on
        for axes, points in drawn:
            named = points[points["label"] != ""]
            places = list(zip(named["x"], named["y"], strict=True))
            others = list(zip(points["x"], points["y"], strict=True))
            inks = [ink(method) for method in named["method"]]
            label_points(axes, places, list(named["label"]), inks, others, _lines(points, across))
        return figure


def _words(points: pd.DataFrame, scores: pd.DataFrame, across: Abscissa) -> Iterator[str]:
    """How to read the figure; `points`: of all panels."""
    if (points["run"] != "main").any():
        yield "Large: the main runs; small: variants."
    if points["replica"].any():
        yield "Hollow, without bars: further training seeds."
    weighed = points[points["joined"]].groupby("method")["strength"].nunique()
    if (weighed > 1).any():
        yield "A line joins the runs of one method over its weight (λ, or the penalty's),"
        yield "which is written at its ends and at the main run."
    known = points["x_error"].notna().any()
    yield f"Bars: one standard error{'' if known else '; that of the alignment is not known'}."
    own = scores[scores["measure"] == across.measure]
    if len(unknown := own[own["value"].isna()]):
        names = dict.fromkeys(_run_name(row) for row in unknown.to_dict("records"))
        yield f"Not here, as their {across.label.split(' (')[0]} was not measured: {', '.join(names)}."


def _run_name(row: dict[Hashable, Any]) -> str:
    if row["run"] == "main" or not pd.isna(row["penalty"]):
        return name_of(str(row["method"]), None if pd.isna(row["penalty"]) else float(row["penalty"]))
    return str(row["variant"])


def _points(robust: pd.DataFrame, scores: pd.DataFrame, across: Abscissa) -> pd.DataFrame:
    """A row per run with x, y (percent), their errors, strength (its λ or penalty), joined (to the line) and label."""
    x = scores[scores["measure"] == across.measure].set_index("name")
    points = robust.assign(x=across.scale * robust["name"].map(x["value"]), y=100 * robust["value"])
    points = points.assign(x_error=across.scale * robust["name"].map(x["error"]), y_error=100 * robust["error"])
    points = points.assign(strength=points["weight"].fillna(points["penalty"])).dropna(subset=["x", "y"])
    over_weight = points["run"].isin(["main", "sweep"]) | points["penalty"].notna()
    points["joined"] = over_weight & points["strength"].notna() & ~points["replica"]
    ends = points[points["joined"]].groupby("method")["strength"].agg(["min", "max"])
    points["label"] = [_label(row, ends) for row in points.to_dict("records")]
    return points.sort_values("run", key=lambda run: run != "main", kind="stable")


def _lines(points: pd.DataFrame, across: Abscissa) -> list[list[tuple[float, float]]]:
    """All that is drawn through the points: the lines that join them and their error bars."""
    joined = points[points["joined"]].sort_values("strength").groupby("method", sort=False)
    lines = [list(zip(own["x"], own["y"], strict=True)) for _, own in joined]
    for bar in points[~points["replica"]].to_dict("records"):
        x, y = bar["x"], bar["y"]
        lines.append([(x, end) for end in bar_ends(y, bar["y_error"], 100)])
        if not pd.isna(bar["x_error"]):
            lines.append([(end, y) for end in bar_ends(x, bar["x_error"], across.scale)])
    return lines


def _label(row: dict[Hashable, Any], ends: pd.DataFrame) -> str:
    """A main run's method; of a line over the weight, those of its ends and of the main run on it."""
    method, main = str(row["method"]), row["run"] == "main"
    name = [method_name(method)] if main else []
    if row["joined"] and (low := ends["min"][method]) != (high := ends["max"][method]):
        strength = radius(float(row["strength"]))
        if main or row["strength"] in (low, high):
            kind = "λ = " if not pd.isna(row["weight"]) else "" if main else "penalty "
            name.append(f"{kind}{strength}")
    return " ".join(name)


def _scatter(axes: Axes, points: pd.DataFrame, across: Abscissa) -> None:
    for method, own in points.groupby("method", sort=False):
        line = own[own["joined"]].sort_values("strength")
        axes.plot(line["x"], line["y"], color=colour(str(method)), linewidth=1.2, zorder=1)
        main = own["run"] == "main"
        for some, size, face in ((main, 8.0, FACE), (~main & ~own["replica"], 5.5, FACE), (own["replica"], 5.5, 0.0)):
            _markers(axes, own[some], str(method), size, face)
        barred = own[~own["replica"]]  # the spread over seeds is in the points
        _bars(axes, barred, str(method), across)
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    widen = max(0.0, across.smallest_span - (high - low)) / 2
    axes.set_xlim(low - widen, min(high + widen, across.scale))
    axes.set_xticks([tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= across.scale])
    highest = float((points["y"] + points["y_error"]).max())
    axes.set_ylim(-4, min(108.0, 1.1 * highest + 8))  # room for labels


def _markers(axes: Axes, points: pd.DataFrame, method: str, size: float, face: float) -> None:
    """Small ones in front; whole at the end of the axis too."""
    shade = to_rgba(colour(method), face)
    look: dict[str, Any] = {"marker": marker(method), "markersize": size, "mfc": shade, "mec": ink(method)}
    axes.plot(points["x"], points["y"], linestyle="none", zorder=3 - size / 10, clip_on=False, in_layout=False, **look)


def _bars(axes: Axes, points: pd.DataFrame, method: str, across: Abscissa) -> None:
    x, y = list(points["x"]), list(points["y"])
    error_bars(axes, x, y, [bar_ends(*bar, 100) for bar in zip(y, points["y_error"], strict=True)], method)
    if points["x_error"].notna().any():  # that of an alignment is not known
        ends = [bar_ends(*bar, across.scale) for bar in zip(x, points["x_error"], strict=True)]
        error_bars(axes, x, y, ends, method, across=True)
