"""Accuracy over the radius of the attack, a curve per method."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pag.report.formats import NORM_NAMES, method_name, unit_of
from pag.report.outcomes import NORMS, survived
from pag.report.results import Evaluated
from pag.report.style import PLOT_DPI, colour, house_style, marker


def with_curves(runs: Sequence[Evaluated]) -> list[Evaluated]:
    return [run for run in runs if run.outcomes is not None and run.outcomes.curve]


def curves_figure(dataset: str, arch: str, runs: Sequence[Evaluated]) -> Figure:
    """One panel per norm; each curve begins with the clean accuracy of the attacked images at radius 0.

    `runs`: those of `with_curves`.
    """
    curves = [(run.method, run.outcomes.curve) for run in runs if run.outcomes is not None]
    norms = [norm for norm in NORMS if any(norm in curve for _, curve in curves)]
    with house_style():
        figure = Figure(figsize=(4.0 * len(norms) + 1.4, 3.8), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(1, len(norms), squeeze=False)[0]
        for axes, norm in zip(panels, norms, strict=True):
            scale = unit_of(np.concatenate([curve[norm][0] for _, curve in curves if norm in curve]))
            for method, curve in curves:
                if norm not in curve:
                    continue
                radii, broken_at = curve[norm]
                eps = np.concatenate([[0.0], radii])
                accuracies = [100 * survived(broken_at, value).mean() for value in eps]
                look = {"color": colour(method), "marker": marker(method), "label": method_name(method)}
                style = "--" if "+" in method else "-"  # its colour is that of its robust part
                axes.plot(scale * eps, accuracies, linestyle=style, linewidth=1.4, markersize=5, mec="white", **look)
            unit = "" if scale == 1 else f" (1/{scale})"
            axes.set(xlabel=f"{NORM_NAMES[norm]} radius ε{unit}", ylabel="accuracy under a quick attack (%)")
            axes.set(ylim=(-3, 103), title=f"{dataset} / {arch}, {NORM_NAMES[norm]}")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=scale != 1, steps=[1, 2, 4, 5, 10]))
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", fontsize=8)
        return figure
