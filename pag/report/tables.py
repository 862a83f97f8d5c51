"""Tables of the report: tidy and wide CSV for programs, Markdown for readers."""

import math
from collections.abc import Sequence

import pandas as pd

from pag.report.formats import (
    MISSING,
    NORM_NAMES,
    Table,
    compared,
    duration,
    method_name,
    name_of,
    percent,
    radius,
    threat,
)
from pag.report.paper import load_paper, variant_mark
from pag.report.results import Evaluated

TIDY = {
    "dataset": "dataset",
    "arch": "arch",
    "method": "method",
    "run": "run",
    "variant": "variant",
    "weight": "lambda",
    "penalty": "penalty",
    "measure": "measure",
    "attack": "attack",
    "norm": "norm",
    "eps": "eps",
    "n": "n",
    "chance": "chance",
    "train_images": "train_images",
    "value": "accuracy",
    "error": "standard_error",
    "paper": "paper",
    "difference": "difference",
    "median_distance": "median_distance",
    "note": "note",
}


def tidy_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Every accuracy of the experiment, one per row; fractions in [0, 1], empty where missing."""
    accuracies = scores[scores["measure"].isin(["clean", "clean_attacked", "robust", "foolbox"])]
    return accuracies[list(TIDY)].rename(columns=TIDY)


def wide_table(runs: Sequence[Evaluated], scores: pd.DataFrame) -> pd.DataFrame:
    """One row per method of one dataset and architecture; accuracies as fractions in [0, 1]."""
    rows = []
    for run in runs:
        own = scores[scores["method"] == run.method]
        row: dict[str, object] = {"method": run.method, "lambda": run.metrics.alignment_weight}
        row |= {"classes_per_image": run.metrics.classes_per_image, "seed": run.metrics.seed}
        row |= {"clean_accuracy": run.metrics.clean_accuracy, "n_clean": run.metrics.n_clean}
        for score in own[own["measure"] == "robust"].to_dict("records"):
            row[f"robust_accuracy_{score['norm']}_{radius(float(score['eps']))}"] = score["value"]
        row |= {"attacked_clean_accuracy": run.metrics.attacked_clean_accuracy}
        row |= {"n_attacked": run.metrics.n_examples, "alignment": run.metrics.alignment}
        row |= {"note": run.metrics.note}
        row |= {"train_seconds": run.metrics.train_seconds, "seconds_per_step": run.metrics.seconds_per_step}
        rows.append(row)
    return pd.DataFrame(rows)


def csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def accuracy_table(dataset: str, arch: str, runs: Sequence[Evaluated], scores: pd.DataFrame) -> Table:
    """Clean and AutoAttack accuracies of one dataset and architecture in percent, beside the paper's."""
    accuracies = scores[scores["measure"].isin(["clean", "clean_attacked", "robust"])]
    models = accuracies[accuracies["measure"] == "robust"][["norm", "eps"]].drop_duplicates()
    names = [threat(str(norm), float(eps)) for norm, eps in models.itertuples(index=False)]
    rows = []
    for run in runs:
        own = accuracies[accuracies["method"] == run.method]
        cells = [_cell(score) for score in own.itertuples()]
        weight = "" if run.metrics.alignment_weight is None else f"{run.metrics.alignment_weight:g}"
        alignment = MISSING if run.metrics.alignment is None else f"{run.metrics.alignment:.3f}"
        sizes = str(run.metrics.n_clean), str(run.metrics.n_examples)
        rows.append([name_of(run.method, run.penalty), weight, cells[0], sizes[0], *cells[1:], sizes[1], alignment])
    header = ["Method", "λ", "Clean", "n clean", "Clean, attacked", *names, "n attacked", "Alignment"]
    return Table(f"{dataset}-{arch}", "Accuracy", _accuracy_caption(dataset, arch, scores), header, rows)


def _accuracy_caption(dataset: str, arch: str, scores: pd.DataFrame) -> str:
    """What the cells of `accuracy_table` mean."""
    accuracies = scores[scores["measure"].isin(["clean", "robust"])]
    attacked = (
        "L2 and L∞: accuracy under attack within that radius. “Clean, attacked” is the clean accuracy of exactly the "
        "images under attack. λ: weight of the alignment. Alignment: mean cosine between the input gradients and SBG "
        "on held-out images."
    )
    if not accuracies["paper"].notna().any():
        return f"Percent: measured ± standard error. {attacked} The paper has no numbers for {dataset} / {arch}."
    mark = variant_mark(dataset)
    what = f"; measured on a {mark} of the paper's images" if mark else ""
    return (
        "Percent: measured ± standard error, and where the paper has a number / paper / difference in points"
        f"{what}. {attacked} The paper attacked the full test set."
    )


def foolbox_table(dataset: str, arch: str, runs: Sequence[Evaluated], scores: pd.DataFrame) -> Table | None:
    """Accuracy under the attacks of the paper's Table 6, a column per method; None where none was configured."""
    results = scores[scores["measure"] == "foolbox"]
    if results.empty:
        return None
    rows = []
    for attack in dict.fromkeys(results["attack"]):
        own = results[results["attack"] == attack]
        known = own.dropna(subset=["value"])
        limit = MISSING if known.empty else _limit(known.iloc[0])
        cells = [_foolbox_cell(run, score) for run, score in zip(runs, own.itertuples(), strict=True)]
        rows.append([str(attack), limit, *cells])
    header = [f"{method_name(run.method)} (n = {run.metrics.n_examples})" for run in runs]
    caption = (
        f"Accuracy in percent; {load_paper()['about']['foolbox']}, the radius here is in the attack's own distance. "
        "“none”: the smallest perturbation found counts, whatever its size."
    )
    return Table(f"{dataset}-{arch}-foolbox", "Foolbox attacks", caption, ["Attack", "radius", *header], rows)


def toy_table(scores: pd.DataFrame) -> Table:
    """Clean and robust accuracy of the toy experiment: mean ± deviation over seeds / paper / difference."""
    rows = []
    for method in dict.fromkeys(scores["method"]):
        own = scores[scores["method"] == method]
        cells = [_cell(score) for score in own.itertuples()]
        rows.append([method_name(str(method)), *cells, str(int(own["n"].iloc[0]))])
    caption = (
        "Percent: mean ± standard deviation over the seeds / paper / difference in points. Worst point: accuracy at "
        "the worst point of a grid over each test point's disc, which PGD may miss; the paper has no number of it."
    )
    return Table("toy", "Accuracy", caption, ["Method", "Clean", "PGD", "Worst point", "seeds"], rows)


def cost_table(dataset: str, arch: str, runs: Sequence[Evaluated]) -> Table:
    """Training time of each run of one dataset and architecture, and of all together."""
    rows = []
    timed = [run for run in runs if run.metrics.train_seconds is not None]
    for run in timed:
        step = run.metrics.seconds_per_step
        per_step = MISSING if step is None else f"{1000 * step:.2f}"
        machine = run.metrics.train_hardware or run.metrics.hardware
        rows.append([run.variant or method_name(run.method), duration(run.metrics.train_seconds), per_step, machine])
    if len(timed) > 1:
        whole = sum(run.metrics.train_seconds or 0.0 for run in timed)
        rows.append([f"{len(timed)} runs", duration(whole), "", ""])
    names = [(run.variant or method_name(run.method), run.metrics.untimed) for run in runs]
    caption = " ".join(["Wall time of the training steps, without validation and saving.", *untimed(names)])
    header = ["Run", "training", "per step (ms)", "machine"]
    return Table(f"{dataset}-{arch}-cost", "Training cost", caption, header, rows)


def untimed(runs: Sequence[tuple[str, str | None]]) -> list[str]:
    """Sentences on why times of the training are missing, of runs by their names with the reason of each."""
    reasons = dict.fromkeys(reason for _, reason in runs if reason)
    return [f"Missing of {', '.join(name for name, why in runs if why == reason)}: {reason}." for reason in reasons]


def _cell(score: object) -> str:
    return compared(score.value, score.error, score.paper)  # type: ignore[attr-defined]


def _foolbox_cell(run: Evaluated, score: object) -> str:
    """The accuracy cell, the clean accuracy of the same images, the median size of perturbations that succeeded."""
    distance, result = score.median_distance, run.metrics.foolbox.get(score.attack)  # type: ignore[attr-defined]
    clean = None if result is None else result.clean_accuracy
    about = [] if clean is None else [f"clean {percent(clean)}"]
    about += [] if math.isnan(distance) else [f"median {distance:.3g}"]
    return _cell(score) + (f" ({', '.join(about)})" if about else "")


def _limit(score: pd.Series) -> str:
    norm = NORM_NAMES.get(str(score["norm"]), str(score["norm"]))
    return f"{norm}, none" if math.isnan(score["eps"]) else f"{norm} {radius(float(score['eps']))}"
