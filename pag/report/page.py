"""The report: report.md and index.html with their tables (CSV, LaTeX) and figures (PNG, SVG)."""

from collections.abc import Sequence
from pathlib import Path

from pag.foundation.atomic import atomic_directory
from pag.foundation.config.conf import Conf
from pag.foundation.config.params import Params
from pag.report import tables
from pag.report.content import TITLE, Content, Group, content_of
from pag.report.figures import Illustration, illustrations
from pag.report.formats import Table
from pag.report.judgement import Finding
from pag.report.paper import load_paper
from pag.report.results import read_results
from pag.report.style import save, save_vector
from pag.report.web.page import web_page


def write_report(params: Params, confs: dict[str, Conf], results_folder: Path, out: Path) -> None:
    """Write the folder `out`: report.md, index.html, tables/*.csv and *.tex, figures/*.png and *.svg.

    Args:
        params: the experiment; its lists say which results are reported, whatever else lies in the folder.
        confs: the conf of each dataset of `params`.
        results_folder: holds records/, arrays/ and, where the trainings took place here, timings/ and curves/.

    Raises ArtifactError, and leaves an earlier report as it was, when a listed result is missing or damaged.
    """
    results = read_results(params, confs, results_folder)
    content = content_of(params, confs, results)
    with atomic_directory(out) as folder:
        (folder / "figures").mkdir()
        shown = []
        for illustration in illustrations(params, results, results_folder):
            save(illustration.figure, folder / "figures" / f"{illustration.name}.png")
            if illustration.kind != "pictures":
                save_vector(illustration.figure, folder / "figures" / f"{illustration.name}.svg")
            shown.append(illustration)
        (folder / "tables").mkdir()
        _write_tables(content, folder / "tables")
        (folder / "report.md").write_text(markdown_page(content, shown), encoding="utf-8")
        html = web_page(content, shown, folder / "figures", results_folder / "curves")
        (folder / "index.html").write_text(html, encoding="utf-8")


def _write_tables(content: Content, folder: Path) -> None:
    (folder / "all.csv").write_text(tables.csv(tables.tidy_table(content.results.scores)), encoding="utf-8")
    for group in content.groups:
        if group.main:
            wide = tables.wide_table(group.main, group.main_scores)
            (folder / f"{group.name}.csv").write_text(tables.csv(wide), encoding="utf-8")
    toy = [content.toy] if content.toy else []
    of_groups = [(table, group.title) for group in content.groups for table in group.tables]
    for table, about in (*of_groups, *((table, "") for table in (*toy, *content.paper))):
        (folder / f"{table.name}.tex").write_text(table.latex(about), encoding="utf-8")


def markdown_page(content: Content, shown: Sequence[Illustration]) -> str:
    facts = [f"- {what}: {which}" for what, which in content.facts]
    about = [*facts, "- Every number as CSV: [tables/all.csv](tables/all.csv), the tables below as LaTeX beside it"]
    sections = [
        f"# {TITLE}",
        "[index.html](index.html) is the same with interactive charts: download it and open it in a browser.",
    ]
    sections.append("\n".join(about))
    for dataset in content.params.datasets:
        sections += [f"## {dataset}", content.settings(dataset)]
        for group in content.groups:
            if group.dataset == dataset:
                sections += _group(group)
        sections.append(_figures(dataset, shown))
    if content.toy is not None:
        sections += ["## Toy data", *_table(content.toy, "###"), _figures("toy", shown)]
    sections += [_claims(content), "## The paper's tables"]
    sections += [part for table in content.paper for part in _table(table, "###")]
    if content.absent:
        run = "To run one: `dvc exp run $(python -m stages.preset <name>)`."
        sections.append(f"Not run here, with the presets that do: {', '.join(content.absent)}. {run}")
    sections += [_warnings(content), _sanity(content)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _group(group: Group) -> list[str]:
    about = load_paper()["about"]
    parts = [f"### {group.title}"]
    parts += [f"Note: {about[group.dataset]}."] if group.main and group.dataset in about else []
    for table in group.tables:
        parts += _table(table, "####")
        if table.name == group.name:
            parts.append(f"As CSV: [tables/{table.name}.csv](tables/{table.name}.csv)")
    return parts


def _table(table: Table, heading: str) -> list[str]:
    return [f"{heading} {table.title}" if table.title else "", table.caption, table.markdown()]


def _claims(content: Content) -> str:
    remarks = [line for remark in content.remarks for line in (remark, "")]
    lines = ["## Claims", "", *remarks, "|  | Claim | Outcome |", "| :-- | :-- | :-- |"]
    for claim in content.claims:
        outcomes = [f"**{finding.outcome}** on {finding.group}" for finding in content.of(claim)]
        lines.append(f"| {claim.number} | {claim.statement} | {'; '.join(outcomes) or '**not tested here**'} |")
    for words in content.certainty:
        lines += ["", words]
    for claim in content.claims:
        lines += ["", f"### Claim {claim.number}: {claim.statement}", "", f"Rule: {claim.rule}"]
        for finding in content.of(claim):
            lines += ["", *_finding(finding)]
    return "\n".join(lines)


def _finding(finding: Finding) -> list[str]:
    missing = f" (missing: {finding.missing})" if finding.missing else ""
    checks = [f"- {check.verdict} — {check.text}" for check in finding.checks]
    return [f"**{finding.outcome}** on {finding.group}{missing}", *([""] if checks else []), *checks]


def _figures(dataset: str, shown: Sequence[Illustration]) -> str:
    own = [illustration for illustration in shown if illustration.dataset == dataset]
    return "\n\n".join(f"![{figure.alt}](figures/{figure.name}.png)\n\n*{figure.caption}*" for figure in own)


def _warnings(content: Content) -> str:
    """What was flagged, and apart from that our notes on how the attacks were run."""
    flags = [f"- {flag}" for flag in content.flags]
    intro = "What the attacks themselves flagged as a reason to distrust a number, and what was not learnt:"
    lines = ["## Warnings of the attacks", "", *([intro, "", *flags] if flags else ["The attacks flagged nothing."])]
    if content.notes:
        lines += ["", "How the attacks differ from the standard version here:", ""]
        lines += [f"- {note}" for note in content.notes]
    return "\n".join(lines)


def _sanity(content: Content) -> str:
    """Empty where no run was asked for the checks."""
    lines = [f"- {run}: **{'passed' if passed else 'failed'}** — {text}" for run, passed, text in content.sanity]
    intro = "Signs that an evaluation overstates robustness, each looked for with attacks of its own:"
    return "\n".join(["## Sanity checks", "", intro, "", *lines]) if lines else ""
