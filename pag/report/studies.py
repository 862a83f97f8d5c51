"""What the variants of a conf show: sweeps over λ, spreads over training seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pag.foundation.config.runs import Study
from pag.report.formats import MISSING, NORM_NAMES, Table, measured, method_name, name_of, radius, threat
from pag.report.results import Evaluated
from pag.report.style import PLOT_DPI, bar_ends, colour, error_bars, house_style, marker

CAPTIONS: dict[Study, tuple[str, str]] = {
    "sweep": ("λ sweep", "One run per λ, main runs included."),
    "seeds": ("Training seeds", "Rows of several seeds, main runs included: mean ± standard deviation over them."),
    "other": ("Other variants", "Further variants of the conf."),
}
LINE_STYLES = ("-", "--", ":", "-.")  # radii, the smallest first


@dataclass(frozen=True)
class Setting:
    """What tells the rows of a study's table apart; runs that differ in the seed alone share a row."""

    method: str
    weight: float | None
    penalty: float | None
    classes_per_image: int | str | None
    of_logits: bool
    name: str | None  # of a variant that is neither a sweep's nor a study's

    @classmethod
    def of(cls, run: Evaluated) -> "Setting":
        metrics, name = run.metrics, run.variant if run.study == "other" else None
        of_logits = metrics.gradient_of == "logit"
        return cls(run.method, metrics.alignment_weight, run.penalty, metrics.classes_per_image, of_logits, name)


def study_tables(runs: Sequence[Evaluated], scores: pd.DataFrame) -> list[Table]:
    """A table of each study among the variants of one dataset and architecture; main runs complete seeds and λ.

    `runs` and `scores` are all those of the dataset and architecture.
    """
    drawn = []
    for study, (title, about) in CAPTIONS.items():
        chosen = [run for run in runs if run.study == study]
        if not chosen:
            continue
        if study == "seeds":
            chosen = [*_main_seeds(runs, chosen), *chosen]
        if study == "sweep":
            chosen = [*_main_weights(runs, chosen), *chosen]
        caption = (
            f"{about} Percent: measured ± standard error of the images behind it, unless said otherwise. λ: weight of "
            "the alignment; k: classes of each image that are aligned."
        )
        drawn.append(Table(f"{runs[0].dataset}-{runs[0].arch}-{study}", title, caption, *_cells(chosen, scores)))
    return drawn


def _main_seeds(runs: Sequence[Evaluated], variants: Sequence[Evaluated]) -> list[Evaluated]:
    """The main runs that are one more seed of a setting among the variants."""
    known = {(Setting.of(run), run.metrics.seed) for run in variants}
    settings = {setting for setting, _ in known}
    main = [run for run in runs if run.study == "main" and Setting.of(run) in settings]
    return [run for run in main if (Setting.of(run), run.metrics.seed) not in known]


def _main_weights(runs: Sequence[Evaluated], variants: Sequence[Evaluated]) -> list[Evaluated]:
    """The main runs that are one more λ of a method among the variants."""
    known, methods = {Setting.of(run) for run in variants}, {run.method for run in variants}
    return [run for run in runs if run.study == "main" and run.method in methods and Setting.of(run) not in known]


def _cells(runs: Sequence[Evaluated], scores: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    settings: dict[Setting, list[Evaluated]] = {}
    for run in sorted(runs, key=lambda run: run.metrics.alignment_weight or 0.0):
        settings.setdefault(Setting.of(run), []).append(run)
    robust = scores[scores["measure"] == "robust"]
    models = [(str(n), float(e)) for n, e in robust[["norm", "eps"]].drop_duplicates().itertuples(index=False)]
    rows = []
    for setting, members in settings.items():
        own = scores[scores["name"].isin([run.name for run in members])]
        attacked = own[own["measure"] == "robust"]
        cells = [_spread(own[own["measure"] == "clean"])]
        cells += [_spread(attacked[(attacked["norm"] == norm) & (attacked["eps"] == eps)]) for norm, eps in models]
        seeds = ", ".join(str(run.metrics.seed) for run in members)
        sizes = [str(members[0].metrics.n_clean), str(members[0].metrics.n_examples)]
        name = name_of(setting.method, setting.penalty)
        name += f" ({setting.name})" if setting.name else " of logits" if setting.of_logits else ""
        weight = "" if setting.weight is None else f"{setting.weight:g}"
        count = "" if setting.classes_per_image is None else str(setting.classes_per_image)
        alignment = _cosine(own[own["measure"] == "alignment"])
        rows.append([name, weight, count, seeds, *cells, alignment, *sizes])
    names = [threat(*model) for model in models]
    header = ["Method", "λ", "k", "seeds", "Clean", *names, "Alignment", "n clean", "n attacked"]
    return header, rows


def _spread(rows: pd.DataFrame) -> str:
    """One value with its standard error, or the mean of several with their standard deviation."""
    values = rows["value"].dropna()
    if len(values) == 1:
        return measured(float(values.iloc[0]), float(rows.loc[values.index[0], "error"]))
    return measured(float(values.mean()), float(values.std())) if len(values) else MISSING


def _cosine(rows: pd.DataFrame) -> str:
    values = rows["value"].dropna()
    if values.empty:
        return MISSING
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def sweep_of(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of a λ sweep on one dataset and architecture, one run per method and λ; main runs complete it."""
    swept = scores[scores["run"] == "sweep"]
    main = scores[(scores["run"] == "main") & scores["method"].isin(swept["method"])]
    rows = pd.concat([swept, main])
    return rows.drop_duplicates(["method", "weight", "measure", "attack", "norm", "eps"]).sort_values("weight")


def weight_figure(dataset: str, arch: str, method: str, scores: pd.DataFrame) -> Figure:
    """Robust accuracy, a panel per norm, and alignment over λ, to scale: linear up to the smallest λ, then its log."""
    rows = scores[scores["method"] == method].dropna(subset=["weight"])
    weights = sorted(rows["weight"].unique())
    attacked = rows[rows["measure"] == "robust"]
    norms = list(dict.fromkeys(attacked["norm"]))
    with house_style():
        figure = Figure(figsize=(3.8 * (len(norms) + 1), 3.8), dpi=PLOT_DPI, layout="constrained")
        panels = figure.subplots(1, len(norms) + 1)
        for axes, norm in zip(panels, norms, strict=False):
            for style, (eps, line) in zip(LINE_STYLES, attacked[attacked["norm"] == norm].groupby("eps"), strict=False):
                _line(axes, line, method, 100, f"radius {radius(float(str(eps)))}", style)
            axes.set(title=f"{dataset} / {arch}: {method_name(method)}, {NORM_NAMES[norm]}", ylim=(-4, 104))
            axes.set_ylabel(f"{' and '.join(attacked['attack'].unique())} accuracy (%)")
            axes.legend(loc="best", handlelength=3.5)
        _line(panels[-1], rows[rows["measure"] == "alignment"], method, 1, None, "-")
        panels[-1].set(title="Alignment", ylabel="mean cosine with SBG")
        low, high = panels[-1].get_ylim()
        panels[-1].set_ylim(min(0.0, low), high + 0.1 * abs(high))  # from 0: a small rise does not fill the panel
        smallest = min((weight for weight in weights if weight > 0), default=1.0)
        for axes in panels:
            axes.set_xscale("symlog", linthresh=smallest, linscale=0.3)
            axes.set_xlim(weights[0] - smallest / 3, 1.3 * weights[-1] + smallest / 3)
            axes.set_xticks(weights, [f"{weight:g}" for weight in weights])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("λ")
        return figure


def _line(axes: Axes, rows: pd.DataFrame, method: str, scale: float, label: str | None, style: str) -> None:
    known = rows.dropna(subset=["value"])
    x, y = list(known["weight"]), list(scale * known["value"])
    axes.plot(x, y, label=label, color=colour(method), linestyle=style, marker=marker(method), markersize=5)
    if known["error"].notna().any():  # that of an alignment is not known
        ends = [bar_ends(*bar, scale) for bar in zip(y, scale * known["error"], strict=True)]
        error_bars(axes, x, y, ends, method)
