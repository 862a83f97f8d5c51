"""Figures drawn from the scores, and the list of all figures of the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pag.foundation.config.external import EXTERNAL
from pag.foundation.config.params import Params
from pag.report import arrays
from pag.report.arrays import ToyMap
from pag.report.curves import curves_figure, with_curves
from pag.report.formats import REALIZATION_NAMES, method_name
from pag.report.grids import (
    Panel,
    classifier_gradients_figure,
    diffusion_figure,
    large_eps_figure,
    noise_level_figure,
    realization_figure,
    targets_figure,
)
from pag.report.results import Results
from pag.report.scatter import ALIGNMENT, CLEAN, scatter_figure
from pag.report.studies import sweep_of, weight_figure
from pag.report.style import PLOT_DPI, house_style

CLASS_COLOURS = ("#0072B2", "#D55E00")
CLASS_AREAS = ("#CFE3F1", "#F9DFCC")


@dataclass(frozen=True)
class Illustration:
    """A figure with its file name and what the page says of it."""

    name: str
    dataset: str
    caption: str
    figure: Figure
    kind: Literal["pictures", "map", "chart"]  # of images; of the plane; of numbers, which the web page draws itself
    alt: str  # a sentence for those who do not see it


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
        what = diffusion.kind
        if what == "one-step denoising":
            what += ": test images with noise, and what the model makes of them in one step"
        caption = f"Training loss of the diffusion model, and {what}; columns are classes."
        alt = f"Training loss of the diffusion model of {dataset}, and its {diffusion.kind}, a column per class."
        drawn = diffusion_figure(dataset, diffusion)
        yield Illustration(f"{dataset}-diffusion", dataset, caption, drawn, "pictures", alt)
        external = results.scores["run"] == "external"
        scores = results.scores[(results.scores["dataset"] == dataset) & ~external]
        main = scores[scores["run"] == "main"]
        if len(main):
            for arch in params.archs:
                methods = {method_name(method): method for method in params.methods()}
                yield from _targets(dataset, arch, params.methods(), home)
                yield _large_eps(dataset, arch, methods, home, f"{dataset}-{arch}-large-eps")
                yield _classifier_gradients(dataset, arch, methods, home)
        if others := {run.name: run.name for run in results.externals if run.dataset == dataset}:
            yield _large_eps(dataset, EXTERNAL, others, home, f"{dataset}-{EXTERNAL}-large-eps")
            yield _classifier_gradients(dataset, EXTERNAL, others, home)
        yield from _scatters(dataset, scores)
        for arch in dict.fromkeys(scores["arch"]):
            yield from _curves(dataset, arch, results)
            yield from _sweeps(dataset, arch, results, home)
    if results.toy is not None:
        toy = arrays.read_toy(folder / "arrays" / "toy.npz")
        caption = "Predicted class of the toy networks of one seed, with the test points (the paper's Figure 4)."
        alt = "Two maps of the plane: the border that vanilla draws between the classes, and the one that NN draws."
        yield Illustration("toy", "toy", caption, toy_figure(toy), "map", alt)


def _realizations(dataset: str, realizations: list[str], home: Path) -> Illustration:
    grids = {name: arrays.read_gradients(home / "realizations" / f"{name}.npz") for name in realizations}
    panels = [Panel(f"{method_name(name)}: {REALIZATION_NAMES[name]}", grid) for name, grid in grids.items()]
    caption = (
        "Gradients of training images towards each class, each tile scaled by itself; what the colours mean stands "
        "above them. The frame marks the input's own class."
    )
    alt = f"Gradients of {dataset} images: a block per realisation, a row per image, a column per target class."
    drawn = realization_figure(dataset, panels)
    return Illustration(f"{dataset}-realizations", dataset, caption, drawn, "pictures", alt)


def _noise_levels(dataset: str, home: Path) -> Illustration:
    grids, rows = arrays.read_noise_levels(home / "noise_levels.npz")
    panels = [Panel(f"Image {number}", grid, rows) for number, grid in enumerate(grids, 1)]
    caption = (
        "Score-based gradients of one diffusion model over its noise levels, from hardly any noise (top) to hardly any "
        "image (bottom); the first column is the noisy image (the paper's Figure 8)."
    )
    alt = f"Score-based gradients of {dataset} images: a row per noise level, a column per target class."
    drawn = noise_level_figure(dataset, panels)
    return Illustration(f"{dataset}-noise-levels", dataset, caption, drawn, "pictures", alt)


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
    alt = f"Input gradients of the {dataset} classifiers: a block per method, a row per image, a column per class."
    return Illustration(name, dataset, caption, classifier_gradients_figure(dataset, arch, panels), "pictures", alt)


def _scatters(dataset: str, scores: pd.DataFrame) -> Iterator[Illustration]:
    if scores.empty:
        return
    points = "Robust accuracy at the smallest radius of each norm against {}, a point per run."
    drawn = scatter_figure(dataset, scores, CLEAN)
    alt = f"Scatter plots of the {dataset} runs: robust accuracy over {{}}, a panel per norm."
    clean = points.format("clean accuracy")
    yield Illustration(f"{dataset}-clean", dataset, clean, drawn, "chart", alt.format("clean accuracy"))
    if scores.loc[scores["measure"] == "alignment", "value"].notna().any():  # not measured on validation images
        what = "the mean cosine between the input gradients of the classifier and SBG on held-out images"
        drawn = scatter_figure(dataset, scores, ALIGNMENT)
        about = alt.format("gradient alignment")
        yield Illustration(f"{dataset}-alignment", dataset, points.format(what), drawn, "chart", about)


def _curves(dataset: str, arch: str, results: Results) -> Iterator[Illustration]:
    runs = with_curves([run for run in results.runs if (run.dataset, run.arch) == (dataset, arch)])
    if runs:
        caption = (
            f"Accuracy over the radius of a quick attack ({arch}, {runs[0].metrics.n_examples} images), as a "
            "rule at or above AutoAttack's accuracy; it is for the shape of the curves."
        )
        alt = f"Accuracy of the {dataset} runs over the radius of the attack, a panel per norm, a curve per method."
        drawn = curves_figure(dataset, arch, runs)
        yield Illustration(f"{dataset}-{arch}-curves", dataset, caption, drawn, "chart", alt)


def _targets(dataset: str, arch: str, methods: Sequence[str], home: Path) -> Iterator[Illustration]:
    """Vanilla, adversarial training and SBG side by side, where all ran."""
    trained = next((method for method in ("at-l2", "at-linf") if method in methods), None)
    if trained is None or not {"vanilla", "sbg"} <= set(methods):
        return
    grids = {m: arrays.read_large_eps(home / "large_eps" / arch / f"{m}.npz") for m in ("vanilla", trained, "sbg")}
    eps = grids["vanilla"].eps
    caption = (
        f"Test images, and what a targeted attack of L2 radius {eps:g} towards the class after their own makes of "
        f"them, per classifier ({arch})."
    )
    drawn = targets_figure(dataset, arch, eps, [Panel(method_name(m), grid) for m, grid in grids.items()])
    alt = f"Test images of {dataset}, each beside what a targeted attack makes of it with three classifiers."
    yield Illustration(f"{dataset}-{arch}-targets", dataset, caption, drawn, "pictures", alt)


def _sweeps(dataset: str, arch: str, results: Results, home: Path) -> Iterator[Illustration]:
    """Numbers and pictures over λ, for each method that was swept."""
    runs = [run for run in results.variants if (run.dataset, run.arch, run.study) == (dataset, arch, "sweep")]
    scores = results.scores[(results.scores["dataset"] == dataset) & (results.scores["arch"] == arch)]
    for method in dict.fromkeys(run.method for run in runs):
        name = f"{dataset}-{arch}-{method}-lambda"
        caption = (
            f"Robust accuracy and gradient alignment of {method_name(method)} over λ ({arch}; the paper's Figure 5)."
        )
        alt = f"Robust accuracy and alignment of {method_name(method)} on {dataset} over λ, a panel per norm."
        drawn = weight_figure(dataset, arch, method, sweep_of(scores))
        yield Illustration(name, dataset, caption, drawn, "chart", alt)
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
    alt = f"{dataset} images after targeted attacks: a block per run, a row per image, a column per target class."
    return Illustration(name, dataset, caption, large_eps_figure(dataset, arch, eps, panels), "pictures", alt)


def toy_figure(toy: ToyMap) -> Figure:
    """Decision regions of vanilla and NN side by side, with the test points."""
    with house_style():
        figure = Figure(figsize=(7.2, 6.8), dpi=PLOT_DPI, layout=ConstrainedLayoutEngine(h_pad=0.12))
        figure.suptitle("Toy data: predicted classes (areas) and test points", x=0.012, ha="left", fontweight="bold")
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
