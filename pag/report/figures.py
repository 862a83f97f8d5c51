"""Figures drawn from the scores, and the list of all figures of the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pag.foundation.config.params import Params
from pag.report import arrays
from pag.report.arrays import ToyMap
from pag.report.formats import NORM_NAMES, REALIZATION_NAMES, method_name, radius
from pag.report.grids import (
    Panel,
    classifier_gradients_figure,
    diffusion_figure,
    large_eps_figure,
    noise_level_figure,
    realization_figure,
)
from pag.report.labels import label_points
from pag.report.results import QUICK, Results
from pag.report.studies import sweep_of, weight_figure
from pag.report.style import PLOT_DPI, colour, house_style, marker

CLASS_COLOURS = ("#0072B2", "#D55E00")
SMALLEST_SPAN = 0.05  # of the alignment axis
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
        if dataset in params.noise_level_figures:
            yield _noise_levels(dataset, home)
        diffusion = arrays.read_diffusion(home / "diffusion.npz")
        caption = f"Training loss of the diffusion model, and {diffusion.kind}; columns are classes."
        yield Illustration(f"{dataset}-diffusion", dataset, caption, diffusion_figure(dataset, diffusion))
        scores = results.scores[results.scores["dataset"] == dataset]
        main = scores[scores["run"] == "main"]
        if len(main):
            for arch in params.archs:
                methods = {method_name(method): method for method in params.methods()}
                yield _large_eps(dataset, arch, methods, home, f"{dataset}-{arch}-large-eps")
                yield _classifier_gradients(dataset, arch, methods, home)
        if main.loc[main["measure"] == "alignment", "value"].notna().any():  # it is not measured on validation images
            yield Illustration(
                f"{dataset}-alignment",
                dataset,
                "Robust accuracy at the smallest radius of each norm against the mean cosine between the input "
                "gradients of the classifier and SBG on held-out images; bars are one standard error.",
                alignment_figure(dataset, main),
            )
        for arch in dict.fromkeys(scores["arch"]):
            yield from _sweeps(dataset, arch, results, home)
    if results.toy is not None:
        toy = arrays.read_toy(folder / "arrays" / "toy.npz")
        caption = "Predicted class of the toy networks over the plane, with the test points (the paper's Figure 4)."
        yield Illustration("toy", "toy", caption, toy_figure(toy))


def _realizations(dataset: str, realizations: list[str], home: Path) -> Illustration:
    grids = {name: arrays.read_gradients(home / "realizations" / f"{name}.npz") for name in realizations}
    panels = [Panel(f"{method_name(name)}: {REALIZATION_NAMES[name]}", grid) for name, grid in grids.items()]
    caption = (
        "Gradients towards each class, each tile scaled by itself (grey images: blue darker, red brighter; colour "
        "images: around grey). The frame marks the input's own class."
    )
    return Illustration(f"{dataset}-realizations", dataset, caption, realization_figure(dataset, panels))


def _noise_levels(dataset: str, home: Path) -> Illustration:
    grids, rows = arrays.read_noise_levels(home / "noise_levels.npz")
    panels = [Panel(f"Image {number}", grid, rows) for number, grid in enumerate(grids, 1)]
    caption = (
        "Score-based gradients of one diffusion model over its noise levels, from hardly any noise (top) to hardly any "
        "image (bottom); the first column is the noisy image (the paper's Figure 8)."
    )
    return Illustration(f"{dataset}-noise-levels", dataset, caption, noise_level_figure(dataset, panels))


def _classifier_gradients(dataset: str, arch: str, methods: dict[str, str], home: Path) -> Illustration:
    """methods: title of a panel → the name of the method."""
    panels = [
        Panel(title, arrays.read_gradients(home / "large_eps" / arch / f"{method}.npz"))
        for title, method in methods.items()
    ]
    caption = (
        f"Input gradients of log p(y|x) of the classifiers ({arch}) at test images, drawn like the gradients above; "
        "the paper's Figure 7 has those of adversarial training as a reference."
    )
    name = f"{dataset}-{arch}-gradients"
    return Illustration(name, dataset, caption, classifier_gradients_figure(dataset, arch, panels))


def _sweeps(dataset: str, arch: str, results: Results, home: Path) -> Iterator[Illustration]:
    """Numbers and pictures over λ, for each method that was swept."""
    runs = [run for run in results.variants if (run.dataset, run.arch, run.study) == (dataset, arch, "sweep")]
    scores = results.scores[(results.scores["dataset"] == dataset) & (results.scores["arch"] == arch)]
    for method in dict.fromkeys(run.method for run in runs):
        name = f"{dataset}-{arch}-{method}-lambda"
        caption = (
            f"Robust accuracy and gradient alignment of {method_name(method)} over λ ({arch}; the paper's Figure 5)."
        )
        yield Illustration(name, dataset, caption, weight_figure(dataset, arch, method, sweep_of(scores)))
        own = sorted((run for run in runs if run.method == method), key=lambda run: run.metrics.alignment_weight or 0)
        files = {f"λ {run.metrics.alignment_weight:g}": f"{run.variant}" for run in own}
        yield _large_eps(dataset, arch, files, home, f"{name}-large-eps")


def _large_eps(dataset: str, arch: str, files: dict[str, str], home: Path, name: str) -> Illustration:
    """files: title of a panel → the file of its arrays, without its suffix."""
    grids = {title: arrays.read_large_eps(home / "large_eps" / arch / f"{file}.npz") for title, file in files.items()}
    eps = next(iter(grids.values())).eps
    panels = [Panel(title, grid) for title, grid in grids.items()]
    caption = (
        f"Test images under targeted PGD of L2 radius {eps:g} towards each class, one panel per run ({arch}). "
        "The frame marks the input's own class."
    )
    return Illustration(name, dataset, caption, large_eps_figure(dataset, arch, eps, panels))


def alignment_figure(dataset: str, scores: pd.DataFrame) -> Figure:
    """One panel per architecture (row) and norm (column): robust accuracy over alignment, a labelled point a method."""
    archs = list(dict.fromkeys(scores["arch"]))
    robust = scores[scores["attack"].isin(["AutoAttack", QUICK])]
    attacks = " and ".join(robust["attack"].unique())
    norms = list(dict.fromkeys(robust["norm"]))
    with house_style():
        figure = Figure(figsize=(4.8 * len(norms), 4.0 * len(archs)), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(len(archs), len(norms), squeeze=False)
        drawn = []
        for row, arch in zip(panels, archs, strict=True):
            aligned = scores[(scores["arch"] == arch) & (scores["measure"] == "alignment")]
            alignment = aligned.set_index("method")["value"]
            for axes, norm in zip(row, norms, strict=True):
                group = robust[(robust["arch"] == arch) & (robust["norm"] == norm)]
                eps = group["eps"].min()
                drawn.append((axes, _scatter(axes, group[group["eps"] == eps], alignment)))
                axes.set(xlabel="alignment (mean cosine with SBG)", ylabel=f"{attacks} accuracy (%)")
                axes.set_title(f"{dataset} / {arch}, {NORM_NAMES[norm]} radius {radius(eps)}")
        figure.draw_without_rendering()  # settles the layout, which the places of the labels depend on
        for axes, points in drawn:
            names, colours = [method_name(m) for _, _, m in points], [colour(m) for _, _, m in points]
            label_points(axes, [(x, y) for x, y, _ in points], names, colours)
        return figure


def _scatter(axes: Axes, rows: pd.DataFrame, alignment: pd.Series) -> list[tuple[float, float, str]]:
    """Draw a point with its error bar per method; returns (alignment, accuracy in percent, method)."""
    points = []
    for row in rows.to_dict("records"):
        method, y = str(row["method"]), 100 * float(row["value"])
        x = float(alignment[method])
        if np.isnan(x) or np.isnan(y):
            continue
        axes.errorbar(x, y, yerr=100 * float(row["error"]), elinewidth=1, color=colour(method))
        axes.plot(x, y, color=colour(method), marker=marker(method), markersize=7.5, markeredgecolor="white")
        points.append((x, y, method))
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    widen = max(0.0, SMALLEST_SPAN - (high - low)) / 2  # equal alignments must not look like an order
    axes.set_xlim(low - widen, high + widen)
    axes.set_ylim(-4, 108)
    axes.set_yticks(range(0, 101, 20))
    return points


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
