"""What the pages say, before it is Markdown or HTML: facts, tables, findings, warnings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from pag.foundation.config.conf import Conf
from pag.foundation.config.external import EXTERNAL
from pag.foundation.config.params import Params
from pag.report import tables
from pag.report.formats import METHOD_NAMES, METHOD_WORDS, REALIZATION_NAMES, Table, arch_name, method_name
from pag.report.judgement import Finding, judge
from pag.report.metrics import Metrics
from pag.report.paper import load_paper
from pag.report.paper_tables import paper_tables
from pag.report.results import Evaluated, Results
from pag.report.rules import CERTAINTY, CHANCE, CLAIMS, Claim
from pag.report.studies import study_tables

MAIN = ("main", "external")  # all but variants
TITLE = "Do perceptually aligned gradients imply robustness? Measured results"


@dataclass(frozen=True)
class Group:
    """The runs of one dataset and architecture."""

    dataset: str
    arch: str
    runs: tuple[Evaluated, ...]  # methods and variants, and the networks of others on the data set
    scores: pd.DataFrame  # theirs
    note: str  # what must stand beside all of it, e.g. "JPEG copy"; empty: nothing
    tables: tuple[Table, ...]

    @property
    def short(self) -> str:
        return f"{self.dataset} / {self.arch}"

    @property
    def title(self) -> str:
        return self.short + (f" ({self.note})" if self.note else "")

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.arch}"

    @property
    def main(self) -> list[Evaluated]:
        """Those of the group's first table."""
        return [run for run in self.runs if run.study in MAIN]

    @property
    def main_scores(self) -> pd.DataFrame:
        return self.scores[self.scores["run"].isin(MAIN)]


@dataclass(frozen=True)
class Content:
    params: Params
    confs: dict[str, Conf]
    results: Results
    facts: tuple[tuple[str, str], ...]  # what, which
    groups: tuple[Group, ...]
    toy: Table | None
    findings: tuple[Finding, ...]
    paper: tuple[Table, ...]
    absent: tuple[str, ...]  # tables of the paper that were not run
    flags: tuple[str, ...]  # what AutoAttack, or a named attack of Foolbox, flagged as a reason to distrust a number
    notes: tuple[str, ...]  # how the attacks differ from the standard version
    sanity: tuple[tuple[str, bool, str], ...]  # run, passed, what was looked for and found

    def of(self, claim: Claim) -> list[Finding]:
        return [finding for finding in self.findings if finding.claim is claim]

    def settings(self, dataset: str) -> str:
        """What the runs of a data set have in common; what a variant changes stands beside it."""
        conf, runs = self.confs[dataset], (*self.results.runs, *self.results.variants, *self.results.externals)
        images = next((_images(run.metrics) for run in runs if run.dataset == dataset), "")
        classes, classifier = conf.alignment.classes_per_image, conf.classifier
        epochs = f"{classifier.epochs} epoch{'' if classifier.epochs == 1 else 's'}"
        return (
            f"{images}Unless a variant says otherwise: {epochs} of batches of "
            f"{classifier.batch_size}; aligned towards {classes} class{'' if classes == 1 else 'es'} of each image, "
            f"with gradients stored in {conf.distill.bits} bits a value."
        )

    @property
    def remarks(self) -> list[str]:
        """What must stand beside the claims' outcomes, once for all of them."""
        groups: dict[str, list[str]] = {}
        for finding in self.findings:
            if finding.note and finding.group not in groups.setdefault(finding.note, []):
                groups[finding.note].append(finding.group)
        return [f"Everything on {', '.join(names)}: {note}." for note, names in groups.items()]

    @property
    def certainty(self) -> list[str]:
        """How claims are judged."""
        scores = self.results.scores
        recorded = scores.loc[(scores["measure"] == "clean") & (scores["dataset"] != "toy"), "chance"].notna()
        return [CERTAINTY, *([CHANCE] if recorded.all() else [])]  # metrics of earlier versions lack it

    @property
    def claims(self) -> list[Claim]:
        return CLAIMS


def content_of(params: Params, confs: dict[str, Conf], results: Results) -> Content:
    scores = results.scores
    toy = scores[scores["dataset"] == "toy"]
    runs = (*results.runs, *results.variants, *results.externals)
    ours = {(run.dataset, run.arch) for run in (*results.runs, *results.variants)}
    # networks of others stand beside ours, and by themselves where nothing of ours ran
    alone = {(run.dataset, EXTERNAL) for run in results.externals} - {(dataset, EXTERNAL) for dataset, _ in ours}
    keys = [key for key in product(params.datasets, (*params.archs, EXTERNAL)) if key in ours | alone]
    of_paper, absent = paper_tables(scores)
    return Content(
        params,
        confs,
        results,
        tuple(_facts(params, runs)),
        tuple(_group(dataset, arch, runs, scores) for dataset, arch in keys),
        None if results.toy is None else tables.toy_table(toy),
        tuple(judge(scores)),
        tuple(of_paper),
        tuple(absent),
        tuple(f"{label(run)}: {flag}" for run in runs for flag in (*_flags(run.metrics), *_unlearnt(run, runs))),
        tuple(dict.fromkeys(f"{run.dataset}: {note}" for run in runs for note in run.metrics.notes)),
        tuple(
            (label(r), check.passed, f"{check.name}: {check.detail}") for r in runs for check in r.metrics.sanity or ()
        ),
    )


def _images(found: Metrics) -> str:
    """A sentence on the images that a run was trained and measured on, and a space; nothing of earlier metrics."""
    if found.image_shape is None:
        return ""
    channels, height, width = found.image_shape
    trained = "" if found.train_images is None else f"{found.train_images:,} to train on, "
    return (
        f"{'Grey' if channels == 1 else 'Colour'} images of {height}×{width} pixels in {found.num_classes} classes: "
        f"{trained}{found.n_clean:,} for clean and {found.n_examples:,} for robust accuracy. "
    )


def label(run: Evaluated) -> str:
    return f"{run.dataset} / {run.arch} / {run.variant or method_name(run.method)}"


def _unlearnt(run: Evaluated, runs: Sequence[Evaluated]) -> list[str]:
    """What a λ that is too large leaves of a classifier: no attack says it, and robust accuracy hides it."""
    beside = [each for each in runs if (each.dataset, each.arch, each.method) == (run.dataset, run.arch, "vanilla")]
    plain = max((each.metrics.clean_accuracy for each in beside), default=0.0)
    clean, weight = run.metrics.clean_accuracy, run.metrics.alignment_weight
    if weight is None or clean >= plain / 2:
        return []
    return [f"clean accuracy is {clean:.1%}, and {plain:.1%} without alignment: is λ = {weight:g} too large for it?"]


def _flags(found: Metrics) -> list[str]:
    """AutoAttack's, and Foolbox's without what both say of the network."""
    own = [
        f"Foolbox's {name}: {flag}"
        for name, attack in found.foolbox.items()
        for flag in attack.warnings
        if flag not in found.warnings
    ]
    return found.warnings + own


def _facts(params: Params, runs: Sequence[Evaluated]) -> list[tuple[str, str]]:
    used = {part for run in runs for part in run.method.split("+")}
    aligned = [f"{METHOD_NAMES[name]}, {words}" for name, words in REALIZATION_NAMES.items() if name in used]
    seeds = [run.metrics.seed for run in runs]
    standard = all(run.metrics.attack is None for run in runs)
    attack = "AutoAttack (standard version)" if standard else "the attack that each table names"
    facts = [
        ("The paper", load_paper()["about"]["source"]),
        ("Datasets", ", ".join(params.datasets)),
        ("Architectures", ", ".join(arch_name(arch) for arch in params.archs)),
        ("Training seed", ", ".join(dict.fromkeys(str(seed) for seed in seeds if seed is not None))),
        ("Methods", ", ".join(_method(method) for method in params.methods())),
        ("Aligned with", aligned and f"the gradients that name the method: {'; '.join(aligned)}"),
        ("Variants", ", ".join(params.variants)),
        ("Networks of others", ", ".join(params.externals)),
        ("Evaluated on", "; ".join(dict.fromkeys(run.metrics.hardware for run in runs))),
        (
            "Robust accuracy",
            f"accuracy under {attack}. Standard errors are binomial (Agresti and Coull), over the n "
            "images behind a number, without the spread over training seeds",
        ),
    ]
    return [fact for fact in facts if fact[1]]


def _method(method: str) -> str:
    """With what it is, where its name does not say which gradients it aligns with."""
    words = METHOD_WORDS.get(method)
    return method_name(method) + (f" ({words})" if words else "")


def _group(dataset: str, arch: str, runs: Sequence[Evaluated], scores: pd.DataFrame) -> Group:
    own = tuple(run for run in runs if run.dataset == dataset and run.arch in (arch, EXTERNAL))
    of_group = scores[(scores["dataset"] == dataset) & scores["arch"].isin([arch, EXTERNAL])]
    notes = dict.fromkeys(run.metrics.note for run in own if run.metrics.note)
    group = Group(dataset, arch, own, of_group, "; ".join(notes), ())
    return replace(group, tables=tuple(table for table in _tables(group) if table))


def _tables(group: Group) -> Iterator[Table | None]:
    names = group.dataset, group.arch
    if group.main:
        yield tables.accuracy_table(*names, group.main, group.main_scores)
        yield tables.foolbox_table(*names, group.main, group.main_scores)
    yield from study_tables(group.runs, group.scores)
    if any(run.metrics.train_seconds is not None for run in group.runs):
        yield tables.cost_table(*names, group.runs)
