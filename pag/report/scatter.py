"""Every run of a dataset as a point: robust accuracy against clean accuracy, and against measured alignment."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pag.report.formats import NORM_NAMES, method_name, radius
from pag.report.labels import label_points
from pag.report.style import PLOT_DPI, colour, error_bars, house_style, ink, marker


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
    """
    robust = scores[scores["measure"] == "robust"]
    attacks = " and ".join(robust["attack"].unique())
    archs, norms = list(dict.fromkeys(scores["arch"])), list(dict.fromkeys(robust["norm"]))
    with house_style():
        figure = Figure(figsize=(5.2 * len(norms), 4.4 * len(archs)), dpi=PLOT_DPI, layout="constrained")
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
        figure.draw_without_rendering()  # settles the layout, which the places of the labels depend on
        for axes, points in drawn:
            named = points[points["label"] != ""]
            places = list(zip(named["x"], named["y"], strict=True))
            others = list(zip(points["x"], points["y"], strict=True))
            inks = [ink(method) for method in named["method"]]
            label_points(axes, places, list(named["label"]), inks, others, _lines(points))
        return figure


def _points(robust: pd.DataFrame, scores: pd.DataFrame, across: Abscissa) -> pd.DataFrame:
    """A row per run with x, y (percent), error, strength (its λ or penalty), joined (to the line) and label."""
    x = scores[scores["measure"] == across.measure].set_index("name")["value"]
    points = robust.assign(x=across.scale * robust["name"].map(x), y=100 * robust["value"])
    points = points.assign(strength=points["weight"].fillna(points["penalty"])).dropna(subset=["x", "y"])
    over_weight = points["run"].isin(["main", "sweep"]) | points["penalty"].notna()
    points["joined"] = over_weight & points["strength"].notna() & ~points["replica"]
    ends = points[points["joined"]].groupby("method")["strength"].agg(["min", "max"])
    points["label"] = [_label(row, ends) for row in points.to_dict("records")]
    return points.sort_values("run", key=lambda run: run != "main", kind="stable")


def _lines(points: pd.DataFrame) -> list[list[tuple[float, float]]]:
    """All that is drawn through the points: the lines that join them and their error bars."""
    joined = points[points["joined"]].sort_values("strength").groupby("method", sort=False)
    through = [list(zip(own["x"], own["y"], strict=True)) for _, own in joined]
    bars = points[~points["replica"]].to_dict("records")
    return through + [[(bar["x"], bar["y"] + sign * 100 * bar["error"]) for sign in (-1, 1)] for bar in bars]


def _label(row: dict[Hashable, Any], ends: pd.DataFrame) -> str:
    """A main run's method; of a line over the weight, those of its ends and of the main run on it."""
    method, main = str(row["method"]), row["run"] == "main"
    name = [method_name(method)] if main else []
    if row["joined"] and (low := ends["min"][method]) != (high := ends["max"][method]):
        strength = radius(float(row["strength"]))
        if main or row["strength"] in (low, high):
            name.append(strength if pd.isna(row["weight"]) else f"λ = {strength}")
    return " ".join(name)


def _scatter(axes: Axes, points: pd.DataFrame, across: Abscissa) -> None:
    for method, own in points.groupby("method", sort=False):
        shade = colour(str(method))
        line = own[own["joined"]].sort_values("strength")
        axes.plot(line["x"], line["y"], color=shade, linewidth=1.2, zorder=1)
        for main, size in ((False, 5.5), (True, 8.0)):
            some = own[(own["run"] == "main") == main]
            look: dict[str, Any] = {"color": shade, "marker": marker(str(method)), "markersize": size, "mec": "white"}
            axes.plot(some["x"], some["y"], linestyle="none", zorder=3 if main else 2, **look)
        barred = own[~own["replica"]]  # the spread over seeds is in the points
        error_bars(axes, list(barred["x"]), list(barred["y"]), list(100 * barred["error"]), str(method))
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    widen = max(0.0, across.smallest_span - (high - low)) / 2
    axes.set_xlim(low - widen, min(high + widen, 1.01 * across.scale))
    axes.set_xticks([tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= across.scale])
    highest = float((points["y"] + 100 * points["error"]).max())
    axes.set_ylim(-4, min(108.0, 1.1 * highest + 8))  # room for labels
