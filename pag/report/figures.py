"""Figures drawn from the scores, and the list of all figures of the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pag.config.params import Params
from pag.report import arrays
from pag.report.arrays import ToyMap
from pag.report.formats import NORM_NAMES, REALIZATION_NAMES, method_name, radius
from pag.report.grids import Panel, diffusion_figure, large_eps_figure, realization_figure
from pag.report.results import Results
from pag.report.style import PLOT_DPI, colour, house_style, marker

CLASS_COLOURS = ("#0072B2", "#D55E00")
CLASS_AREAS = ("#CFE3F1", "#F9DFCC")


@dataclass(frozen=True)
class Illustration:
    """A figure with its file name and what the page says of it."""

    name: str
    dataset: str
    caption: str
    figure: Figure


def illustrations(params: Params, results: Results, folder: Path) -> Iterator[Illustration]:
    """Every figure of the experiment, one at a time; `folder` is the results folder.

    Raises ArtifactError when the arrays of a listed dataset, realisation or method are missing.
    """
    for dataset in params.datasets:
        home = folder / "arrays" / dataset
        yield _realizations(dataset, [*params.heuristics, "sbg"], home)
        diffusion = arrays.read_diffusion(home / "diffusion.npz")
        caption = f"Training loss of the diffusion model, and {diffusion.kind}; columns are classes."
        yield Illustration(f"{dataset}-diffusion", dataset, caption, diffusion_figure(dataset, diffusion))
        for arch in params.archs:
            yield _large_eps(dataset, arch, params.methods(), home)
        yield Illustration(
            f"{dataset}-alignment",
            dataset,
            "Robust accuracy at the smallest radius of each norm against the mean cosine between the input "
            "gradients of the classifier and SBG on held-out images; bars are one standard error.",
            alignment_figure(dataset, results.scores[results.scores["dataset"] == dataset]),
        )
    if results.toy is not None:
        toy = arrays.read_toy(folder / "arrays" / "toy.npz")
        caption = "Predicted class of the toy networks over the plane, with the test points (the paper's Figure 4)."
        yield Illustration("toy", "toy", caption, toy_figure(toy))


def _realizations(dataset: str, realizations: list[str], home: Path) -> Illustration:
    grids = {name: arrays.read_realization(home / "realizations" / f"{name}.npz") for name in realizations}
    panels = [Panel(f"{method_name(name)}: {REALIZATION_NAMES[name]}", grid) for name, grid in grids.items()]
    caption = (
        "Gradients towards each class, each tile scaled by itself (grey images: blue darker, red brighter; colour "
        "images: around grey). The frame marks the input's own class."
    )
    return Illustration(f"{dataset}-realizations", dataset, caption, realization_figure(dataset, panels))


def _large_eps(dataset: str, arch: str, methods: list[str], home: Path) -> Illustration:
    grids = {method: arrays.read_large_eps(home / "large_eps" / arch / f"{method}.npz") for method in methods}
    eps = next(iter(grids.values())).eps
    panels = [Panel(method_name(method), grid) for method, grid in grids.items()]
    caption = (
        f"Test images under targeted PGD of L2 radius {eps:g} towards each class, one panel per method ({arch}). "
        "The frame marks the input's own class."
    )
    figure = large_eps_figure(dataset, arch, eps, panels)
    return Illustration(f"{dataset}-{arch}-large-eps", dataset, caption, figure)


def alignment_figure(dataset: str, scores: pd.DataFrame) -> Figure:
    """One panel per architecture (row) and norm (column): robust accuracy over alignment, a labelled point a method."""
    archs = list(dict.fromkeys(scores["arch"]))
    robust = scores[scores["attack"] == "AutoAttack"]
    norms = list(dict.fromkeys(robust["norm"]))
    with house_style():
        figure = Figure(figsize=(4.6 * len(norms), 3.8 * len(archs)), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(len(archs), len(norms), squeeze=False)
        for row, arch in zip(panels, archs, strict=True):
            aligned = scores[(scores["arch"] == arch) & (scores["measure"] == "alignment")]
            alignment = aligned.set_index("method")["value"]
            for axes, norm in zip(row, norms, strict=True):
                group = robust[(robust["arch"] == arch) & (robust["norm"] == norm)]
                eps = group["eps"].min()
                _scatter(axes, group[group["eps"] == eps], alignment)
                axes.set(xlabel="alignment (mean cosine with SBG)", ylabel="AutoAttack accuracy (%)")
                axes.set_title(f"{dataset} / {arch}, {NORM_NAMES[norm]} radius {radius(eps)}")
        return figure


def _scatter(axes: Axes, rows: pd.DataFrame, alignment: pd.Series) -> None:
    """Points with their error; labels to the right, pushed apart where they would overlap."""
    points = [
        (float(alignment[row.method]), 100 * float(row.value), 100 * float(row.error), str(row.method))
        for row in rows.itertuples()
        if pd.notna(row.value) and pd.notna(alignment[row.method])
    ]
    for x, y, error, method in points:
        axes.errorbar(x, y, yerr=error, elinewidth=1, color=colour(method))
        axes.plot(x, y, color=colour(method), marker=marker(method), markersize=7, markeredgecolor="white")
    axes.margins(x=0.12)
    axes.set_ylim(-4, 104)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.22 * (right - left))  # room for the labels
    for (x, y, _, method), height in zip(points, _spread([point[:2] for point in points], 5.5), strict=True):
        axes.annotate(
            method_name(method),
            (x, y),
            xytext=(x + 0.035 * (right - left), height),
            va="center",
            fontsize=8,
            color=colour(method),
            arrowprops={"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.6, "shrinkB": 4},
        )


def _spread(points: list[tuple[float, float]], gap: float) -> list[float]:
    """Heights near the points' own, each at least `gap` above the next lower one."""
    heights = [0.0] * len(points)
    order = sorted(range(len(points)), key=lambda index: points[index][1])
    lowest = -np.inf
    for index in order:
        heights[index] = lowest = max(points[index][1], lowest + gap)
    excess = max(0.0, lowest - 102)
    return [height - excess for height in heights]


def toy_figure(toy: ToyMap) -> Figure:
    """Decision regions of vanilla and NN side by side, with the test points."""
    with house_style():
        figure = Figure(figsize=(7.2, 6.4), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        extent = (toy.grid_x[0], toy.grid_x[-1], toy.grid_y[0], toy.grid_y[-1])
        for axes, title, regions in zip(panels, ("Vanilla", "NN alignment"), (toy.vanilla, toy.nn), strict=True):
            areas = ListedColormap(CLASS_AREAS)
            axes.imshow(regions, origin="lower", extent=extent, cmap=areas, vmin=0, vmax=1, interpolation="nearest")
            for label, shade in enumerate(CLASS_COLOURS):
                x, y = toy.points[toy.labels == label].T
                axes.plot(x, y, ".", color=shade, markersize=4, label=f"class {label}")
            axes.grid(False)
            axes.set(title=title, xlabel="$x_1$")
        panels[0].set_ylabel("$x_2$")
        panels[0].legend(loc="upper left", markerscale=2)
        return figure
