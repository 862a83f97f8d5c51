"""The report: report.md with its tables (CSV) and figures (PNG)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pag.foundation.artifacts import atomic_directory
from pag.foundation.config.conf import Conf
from pag.foundation.config.params import Params
from pag.report import tables
from pag.report.figures import Illustration, illustrations
from pag.report.formats import METHOD_NAMES, REALIZATION_NAMES, method_name
from pag.report.judgement import Finding, judge
from pag.report.paper import load_paper
from pag.report.paper_tables import paper_sections
from pag.report.results import Results, Run, read_results
from pag.report.rules import CERTAINTY, CHANCE, CLAIMS, Claim
from pag.report.studies import study_sections
from pag.report.style import save


def write_report(params: Params, confs: dict[str, Conf], results_folder: Path, out: Path) -> None:
    """Write the folder `out`: report.md, tables/*.csv, figures/*.png.

    Args:
        params: the experiment; its lists say which results are reported, whatever else lies in the folder.
        confs: the conf of each dataset of `params`.
        results_folder: holds metrics/ and arrays/.

    Raises ArtifactError, and leaves an earlier report as it was, when a listed result is missing or damaged.
    """
    results = read_results(params, confs, results_folder)
    with atomic_directory(out) as folder:
        (folder / "figures").mkdir()
        shown = []
        for illustration in illustrations(params, results, results_folder):
            save(illustration.figure, folder / "figures" / f"{illustration.name}.png")
            shown.append(illustration)
        (folder / "tables").mkdir()
        _write_tables(results, folder / "tables")
        (folder / "report.md").write_text(_page(params, confs, results, shown), encoding="utf-8")


def _write_tables(results: Results, folder: Path) -> None:
    (folder / "all.csv").write_text(tables.csv(tables.tidy_table(results.scores)), encoding="utf-8")
    for (dataset, arch), runs in _groups(results).items():
        wide = tables.wide_table(runs, _scores(results, dataset, arch))
        (folder / f"{dataset}-{arch}.csv").write_text(tables.csv(wide), encoding="utf-8")


def _page(params: Params, confs: dict[str, Conf], results: Results, shown: Sequence[Illustration]) -> str:
    sections = [_introduction(params, results)]
    for dataset in params.datasets:
        sections += [f"## {dataset}", _settings(confs[dataset])]
        for arch in params.archs:
            sections += _architecture(dataset, arch, results)
        sections.append(_figures(dataset, shown))
    if results.toy is not None:
        sections += ["## Toy data", _toy(results), _figures("toy", shown)]
    sections += [_claims(judge(results.scores), results.scores)]
    sections += ["## The paper's tables", *paper_sections(results.scores)]
    runs = (*results.runs, *results.variants)
    sections += [_warnings(runs), _sanity(runs)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(params: Params, results: Results) -> str:
    runs = (*results.runs, *results.variants)
    seeds = ", ".join(dict.fromkeys(str(run.metrics.seed) for run in runs))
    machines = "; ".join(dict.fromkeys(run.metrics.hardware for run in runs))
    used = {part for run in runs for part in run.method.split("+")}
    aligned = [f"{METHOD_NAMES[name]}, {words}" for name, words in REALIZATION_NAMES.items() if name in used]
    return "\n".join(
        [
            "# Do perceptually aligned gradients imply robustness? Measured results",
            "",
            f"The paper: {load_paper()['about']['source']}",
            "",
            f"- Datasets: {', '.join(params.datasets) or 'none'}; architectures: {', '.join(params.archs)}; "
            f"training seed: {seeds or 'none'}",
            f"- Methods: {', '.join(method_name(method) for method in params.methods()) or 'none'}",
            *([f"- Aligned with: {'; '.join(aligned)}"] if aligned else []),
            *([f"- Variants: {', '.join(params.variants)}"] if params.variants else []),
            *([f"- Machine: {machines}"] if machines else []),
            "- Robust accuracy is AutoAttack's (standard version). Standard errors are binomial (Agresti and Coull), "
            "over the n images behind a number, without the spread over training seeds.",
            "- Every number as CSV: [tables/all.csv](tables/all.csv)",
        ]
    )


def _settings(conf: Conf) -> str:
    """What the runs of a data set have in common; what a variant changes stands beside it."""
    classes, classifier = conf.alignment.classes_per_image, conf.classifier
    return (
        f"Unless a variant says otherwise: {classifier.epochs} epochs of batches of {classifier.batch_size}; {classes} "
        f"target class{'' if classes == 1 else 'es'} per image; stored directions of {conf.distill.bits} bits a value."
    )


def _claims(findings: Sequence[Finding], scores: pd.DataFrame) -> str:
    def outcomes(claim: Claim) -> str:
        own = [f"{finding.group}: **{finding.outcome}**" for finding in findings if finding.claim is claim]
        return "; ".join(own) or "**not tested here**"

    overview = tables.markdown(["", "Claim", "Outcome"], [[str(c.number), c.statement, outcomes(c)] for c in CLAIMS])
    lines = ["## Claims", "", overview.replace("| :-- | --: | --: |", "| :-- | :-- | :-- |")]
    lines += ["", CERTAINTY]
    recorded = scores.loc[(scores["measure"] == "clean") & (scores["dataset"] != "toy"), "chance"].notna()
    lines += ["", CHANCE] if recorded.all() else []  # metrics of earlier versions lack it
    for claim in CLAIMS:
        lines += ["", f"### Claim {claim.number}: {claim.statement}", "", f"Rule: {claim.rule}"]
        for finding in findings:
            if finding.claim is claim:
                lines += ["", *_finding(finding)]
    return "\n".join(lines)


def _finding(finding: Finding) -> list[str]:
    missing = f" (missing: {finding.missing})" if finding.missing else ""
    checks = [f"- {check.verdict} — {check.text}" for check in finding.checks]
    return [f"**{finding.group}: {finding.outcome}**{missing}", *([""] if checks else []), *checks]


def _architecture(dataset: str, arch: str, results: Results) -> list[str]:
    """The tables of the main runs and of the variants; empty where there are neither."""
    runs = _groups(results).get((dataset, arch), [])
    variants = [run for run in results.variants if (run.dataset, run.arch) == (dataset, arch)]
    if not runs and not variants:
        return []
    notes = list(dict.fromkeys(run.metrics.note for run in (*runs, *variants) if run.metrics.note))
    parts = [f"### {dataset} / {arch}" + (f" ({'; '.join(notes)})" if notes else "")]
    scores = results.scores[(results.scores["dataset"] == dataset) & (results.scores["arch"] == arch)]
    if runs:
        parts += _main_runs(dataset, arch, runs, _scores(results, dataset, arch))
    parts += study_sections([*runs, *variants], scores)
    timed = [run for run in (*runs, *variants) if run.metrics.train_seconds is not None]
    return [*parts, *(["#### Training cost", tables.cost_table(timed)] if timed else [])]


def _main_runs(dataset: str, arch: str, runs: Sequence[Run], scores: pd.DataFrame) -> list[str]:
    about = load_paper()["about"]
    parts = [f"Note: {about[dataset]}."] if dataset in about else []
    parts += [tables.accuracy_caption(dataset, arch, scores), tables.accuracy_table(runs, scores)]
    parts.append(f"As CSV: [tables/{dataset}-{arch}.csv](tables/{dataset}-{arch}.csv)")
    foolbox = tables.foolbox_table(runs, scores)
    if foolbox:
        parts += [
            f"Foolbox attacks: accuracy in percent; {about['foolbox']}, the radius here is in the attack's own "
            "distance. “none”: the smallest perturbation found counts, whatever its size.",
            foolbox,
        ]
    return parts


def _toy(results: Results) -> str:
    toy = results.scores[results.scores["dataset"] == "toy"]
    caption = "Percent: mean ± standard deviation over the seeds / paper / difference in points."
    return f"{caption}\n\n{tables.toy_table(toy)}"


def _figures(dataset: str, shown: Sequence[Illustration]) -> str:
    own = [illustration for illustration in shown if illustration.dataset == dataset]
    return "\n\n".join(f"![{figure.name}](figures/{figure.name}.png)\n\n*{figure.caption}*" for figure in own)


def _warnings(runs: Sequence[Run]) -> str:
    """AutoAttack's flags, and apart from them our notes on how it was run."""
    flags = [f"- {_name(run)}: {flag}" for run in runs for flag in run.metrics.warnings]
    notes = [f"- {run.dataset}: {note}" for run in runs for note in run.metrics.notes]
    intro = "What AutoAttack itself flagged as a reason to distrust one of its numbers:"
    lines = ["## AutoAttack warnings", "", *([intro, "", *flags] if flags else ["AutoAttack flagged nothing."])]
    if notes:
        lines += ["", "How the attacks differ from the standard version here:", "", *dict.fromkeys(notes)]
    return "\n".join(lines)


def _sanity(runs: Sequence[Run]) -> str:
    """Empty where no run was asked for the checks."""
    lines = [
        f"- {_name(run)}: **{'passed' if check.passed else 'failed'}** — {check.name}: {check.detail}"
        for run in runs
        for check in run.metrics.sanity or ()
    ]
    intro = "Signs of an evaluation that flatters, looked for in attacks of their own:"
    return "\n".join(["## Sanity checks", "", intro, "", *lines]) if lines else ""


def _name(run: Run) -> str:
    return f"{run.dataset} / {run.arch} / {run.variant or method_name(run.method)}"


def _groups(results: Results) -> dict[tuple[str, str], list[Run]]:
    """The runs of each dataset and architecture, in the order of params.yaml."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        groups.setdefault((run.dataset, run.arch), []).append(run)
    return groups


def _scores(results: Results, dataset: str, arch: str) -> pd.DataFrame:
    """Those of the main runs."""
    scores = results.scores[results.scores["run"] == "main"]
    return scores[(scores["dataset"] == dataset) & (scores["arch"] == arch)]
