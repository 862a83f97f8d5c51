"""The paper's tables cell by cell: what was measured here beside what is printed there, missing cells as missing."""

from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from pag.report import paper
from pag.report.formats import MISSING, Table, compared, method_name, threat
from pag.report.rules import NotTested, seconds_per_step

Threats = tuple[tuple[str, float], ...]  # (norm, radius)

L2, CIFAR, STL = ("L2", 0.5), ("Linf", 8 / 255), ("Linf", 4 / 255)
FIGURE_5, APPENDIX_H = "Figure 5 (`figure5`)", "Appendix H (`runtime`)"
WHERE = "Dataset / architecture"
CAPTION = "Percent: measured ± standard error / paper / difference in points. The paper used all images."
SEVEN = ("vanilla", "oi", "cm", "nn", "sbg", "at-linf", "at-l2")
FIVE = ("vanilla", "cm", "sbg", "at-linf", "at-l2")


@dataclass(frozen=True)
class Block:
    """Rows of a table: some methods on one dataset and architecture."""

    dataset: str  # its name in the paper
    arch: str
    methods: tuple[str, ...]
    threats: Threats


@dataclass(frozen=True)
class PaperTable:
    title: str
    presets: str  # what runs it
    blocks: tuple[Block, ...]
    foolbox: bool = False  # columns are attacks of Foolbox instead of AutoAttack at the radii


TABLES = (
    PaperTable("Table 1", "table1", tuple(Block("cifar10", arch, SEVEN, (L2, CIFAR)) for arch in ("rn18", "vit"))),
    PaperTable(
        "Table 2",
        "table2",
        (Block("stl10", "rn18", FIVE, (L2, STL)), Block("cifar100", "rn18", FIVE, (L2, CIFAR))),
    ),
    PaperTable(
        "Table 3",
        "table3",
        (Block("cifar10", "rn18", ("vanilla", "sbg", "at-linf", "at-l2"), (("L2", 1.0), ("Linf", 16 / 255))),),
    ),
    PaperTable(
        "Table 4",
        "table4-rn18, table4-wrn",
        (
            Block("cifar10", "rn18", ("at-l2", "at-l2+sbg"), (L2, CIFAR)),
            Block("cifar10", "wrn-34-10", ("trades-linf", "trades-linf+sbg"), (L2, CIFAR)),
        ),
    ),
    PaperTable(
        "Table 5",
        "table5-vgg, table5-mixer",
        tuple(Block("cifar10", arch, ("vanilla", "sbg"), (L2,)) for arch in ("vgg16", "vgg13", "vgg11", "mixer")),
    ),
    PaperTable("Table 6", "table6", (Block("cifar10", "rn18", ("at-l2", "sbg"), ()),), foolbox=True),
    PaperTable("Table 7", "table7", (Block("tinyimagenet", "rn18", ("vanilla", "cm", "sbg"), (L2, CIFAR)),)),
)


def paper_tables(scores: pd.DataFrame) -> tuple[list[Table], list[str]]:
    """Every table of the paper that has a measured cell, and the titles of those that have none.

    A dataset that stands for one of the paper's (a JPEG copy) is compared with it and marked.
    """
    main = scores[scores["run"] == "main"]
    drawn = {f"{table.title} (`{table.presets}`)": _tables(table, main) for table in TABLES}
    drawn |= {FIGURE_5: _figure5(scores), APPENDIX_H: _runtime(main)}
    absent = [title for title, tables in drawn.items() if not tables]
    return [table for tables in drawn.values() for table in tables], absent


def _tables(table: PaperTable, scores: pd.DataFrame) -> list[Table]:
    """One for the blocks of the same radii, with all its cells if one of them was measured."""
    drawn: list[Table] = []
    for threats, group in groupby(table.blocks, key=lambda block: block.threats):
        alike = list(group)
        if not any(_measured(block, scores) for block in alike):
            continue
        blocks = [(block, dataset) for block in alike for dataset in _datasets(block, scores)]
        if table.foolbox:
            header = [WHERE, "Attack", *map(method_name, table.blocks[0].methods), "n attacked", "training images"]
            rows = [row for block, dataset in blocks for row in _foolbox_rows(block, dataset, scores)]
        else:
            names = [threat(*model) for model in threats]
            header = [WHERE, "Method", "Clean", *names, "n clean", "n attacked", "training images"]
            rows = [_row(block, dataset, name, scores) for block, dataset in blocks for name in block.methods]
        name = f"paper-{table.title.lower().replace(' ', '-')}" + (f"-{len(drawn) + 1}" if drawn else "")
        title = "" if drawn else f"{table.title} (`{table.presets}`)"
        drawn.append(Table(name, title, "" if drawn else CAPTION, header, rows))
    return drawn


def _row(block: Block, dataset: str, method: str, scores: pd.DataFrame) -> list[str]:
    own = _own(scores, dataset, block.arch, method)
    clean, attacked = own[own["measure"] == "clean"], own[own["measure"] == "robust"]
    cells = [_cell(clean, paper.paper_clean(dataset, block.arch, method))]
    for model in block.threats:
        cells.append(_cell(_at(attacked, *model), paper.paper_robust(dataset, block.arch, method, *model)))
    return [_where(block, dataset, own), method_name(method), *cells, _size(clean, "n"), *_sizes(attacked)]


def _foolbox_rows(block: Block, dataset: str, scores: pd.DataFrame) -> list[list[str]]:
    attacks = paper.paper_attacks(dataset, block.arch, block.methods[0])
    rows = []
    for attack in attacks:
        own = scores[(scores["dataset"] == dataset) & (scores["arch"] == block.arch) & (scores["attack"] == attack)]
        cells = [
            _cell(own[own["method"] == method], paper.paper_foolbox(dataset, block.arch, method, attack))
            for method in block.methods
        ]
        rows.append([_where(block, dataset, own), attack, *cells, *_sizes(own)])
    return rows


def _figure5(scores: pd.DataFrame) -> list[Table]:
    """The λ sweep on CIFAR-10: the paper states five accuracies, and of their λ only what Table 8 implies."""
    published = paper.load_paper()["figure5"]
    block = Block("cifar10", published["arch"], (), (L2, CIFAR))
    swept = scores[(scores["run"] == "sweep") & (scores["measure"] == "robust") & (scores["arch"] == block.arch)]
    swept = swept[swept["method"] == "sbg"]
    swept = swept[swept["dataset"].isin(_datasets(block, swept))]
    if swept.empty:
        return []
    rows = []
    for key, own in swept.groupby(["dataset", "weight"]):
        dataset, weight = str(key[0]), float(str(key[1]))
        same_as = {0.0: "vanilla", paper.TABLE8_SBG: "sbg"}.get(weight, "")
        cells = [
            _cell(_at(own, *model), paper.paper_robust(dataset, block.arch, same_as, *model)) for model in block.threats
        ]
        rows.append([_where(block, dataset, own), f"{weight:g}", *cells, *_sizes(own)])
    pairs = zip(published["L2"]["0.5"], published["Linf"]["8/255"], strict=True)
    listed = ", ".join(f"{l2:g} / {linf:g}" for l2, linf in pairs)
    header = [WHERE, "λ of SBG", *[threat(*model) for model in block.threats], "n attacked", "training images"]
    about = f"The paper: L2 / L∞ {listed} at five rising λ, which it does not state; the last is that of its Table 8."
    return [Table("paper-figure-5", FIGURE_5, f"{CAPTION} {about}", header, rows)]


def _runtime(scores: pd.DataFrame) -> list[Table]:
    """How much longer a step of adversarial training takes than one of alignment, at the runs' own batch size."""
    published = paper.load_paper()["runtime"]
    steps = scores[(scores["measure"] == "seconds_per_step") & (scores["arch"] == published["arch"])]
    steps = steps[steps["dataset"].map(paper.paper_dataset) == published["dataset"]].dropna(subset=["value"])
    rows = []
    for dataset, own in steps.groupby("dataset"):
        try:
            ours, adversarial = seconds_per_step(own, "sbg", "at-l2")
        except NotTested:
            continue
        measured = {"at-pgd-7": f"{adversarial / ours:.2f}", "at-pgd-20": MISSING}
        for name, ratio in published["pag_faster_than"].items():
            rows.append([f"{dataset} / {published['arch']}", name.upper(), f"{measured[name]} / {ratio:.2f}"])
    if not rows:
        return []
    about = (
        "Time of a training step relative to one of SBG alignment: in these runs / paper. The paper measured at batch "
        "size 1, as `python -m benchmarks.training_step --batch-size 1` does, PGD-20 too; these runs had their own."
    )
    return [Table("paper-appendix-h", APPENDIX_H, about, [WHERE, "Against", "measured / paper"], rows)]


def _measured(block: Block, scores: pd.DataFrame) -> bool:
    of_block = scores["dataset"].map(paper.paper_dataset) == block.dataset
    own = scores[of_block & (scores["arch"] == block.arch) & scores["method"].isin(block.methods)]
    return bool(own["value"].notna().any())


def _datasets(block: Block, scores: pd.DataFrame) -> list[str]:
    """The datasets here that stand for the block's; the paper's own, all missing, where there are none."""
    names = [name for name in dict.fromkeys(scores["dataset"]) if paper.paper_dataset(name) == block.dataset]
    return names or [block.dataset]


def _at(rows: pd.DataFrame, norm: str, eps: float) -> pd.DataFrame:
    of_norm = rows[rows["norm"] == norm]
    return of_norm[of_norm["eps"].map(lambda known: paper.same_radius(known, eps)).astype(bool)]


def _own(scores: pd.DataFrame, dataset: str, arch: str, method: str) -> pd.DataFrame:
    return scores[(scores["dataset"] == dataset) & (scores["arch"] == arch) & (scores["method"] == method)]


def _where(block: Block, dataset: str, own: pd.DataFrame) -> str:
    """'cifar10-jpeg / rn18 (JPEG copy)'"""
    notes = [paper.variant_mark(dataset), *own["note"].dropna().unique()]
    marks = "; ".join(dict.fromkeys(note for note in notes if note))
    return f"{dataset} / {block.arch}" + (f" ({marks})" if marks else "")


def _cell(rows: pd.DataFrame, published: float | None) -> str:
    value, error = (rows.iloc[0]["value"], rows.iloc[0]["error"]) if len(rows) else (None, None)
    return compared(value, error, published)


def _sizes(rows: pd.DataFrame) -> tuple[str, str]:
    return _size(rows, "n"), _size(rows, "train_images")


def _size(rows: pd.DataFrame, column: str) -> str:
    known = rows[column].dropna()
    return MISSING if known.empty else f"{known.iloc[0]:.0f}"
