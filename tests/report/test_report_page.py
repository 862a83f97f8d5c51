"""The written report: its files, its order, its bytes."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from pag.classifiers import ACTIVATIONS, ARCHITECTURES
from pag.foundation.artifacts import ArtifactError, load_json, save_json
from pag.foundation.config.section import Baseline, without_activation
from pag.report.content import content_of
from pag.report.figures import illustrations
from pag.report.formats import ACTIVATION_NAMES, ARCH_WORDS, METHOD_WORDS, Table, arch_name
from pag.report.page import markdown_page, write_report
from pag.report.results import read_results
from pag.report.rules import CLAIMS
from pag.report.web.provenance import provenance

FIGURES = [
    "digits-alignment",
    "digits-clean",
    "digits-cnn-gradients",
    "digits-cnn-large-eps",
    "digits-cnn-targets",
    "digits-diffusion",
    "digits-realizations",
    "toy",
]
CHARTS = ["digits-alignment", "digits-clean", "toy"]
TABLES = ["digits-cnn", "digits-cnn-cost", "digits-cnn-foolbox", "toy"]


def write(experiment, name: str = "report") -> Path:
    out = experiment.folder / name
    write_report(*experiment.load(), experiment.folder, out)
    return out


def markdown(experiment) -> str:
    """report.md without its figures, which take longest."""
    params, confs = experiment.load()
    return markdown_page(content_of(params, confs, read_results(params, confs, experiment.folder)), [])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_report_is_complete_and_the_same_every_time(experiment):
    experiment.change("cm", warnings=["Square Attack improves by 0.4 %"])
    out = write(experiment)
    tables = [f"tables/{name}" for name in ("all.csv", "digits-cnn.csv", *(f"{name}.tex" for name in TABLES))]
    figures = [f"figures/{name}.png" for name in FIGURES] + [f"figures/{name}.svg" for name in CHARTS]
    assert sorted(files(out)) == sorted(["report.md", "index.html", *tables, *figures])
    assert files(out) == files(write(experiment, "again"))

    page = (out / "report.md").read_text()
    assert page.index("## digits") < page.index("## Toy data") < page.index("## Claims")
    images = "Grey images of 8×8 pixels in 10 classes: 1,293 to train on, 360 for clean and 200 for robust accuracy."
    assert f"## digits\n\n{images} Unless" in page
    assert page.count("### Claim ") == len(CLAIMS)
    assert "**not tested here** on digits/cnn" in page
    assert "- digits / cnn / CM: Square Attack improves by 0.4 %" in page
    for name in FIGURES:
        assert f"(figures/{name}.png)" in page
        pixels = np.asarray(Image.open(out / "figures" / f"{name}.png").convert("L"))
        assert pixels.std() > 5  # not an empty sheet
        assert b"Software" not in (out / "figures" / f"{name}.png").read_bytes()


def test_a_table_in_latex_is_booktabs_and_escaped() -> None:
    rows = [["AT-L∞", "50.0 ± 3.5", "50 %"], ["A & B", "1", ""]]
    table = Table("a", "Accuracy", "95 % intervals of λ.", ["Method", "L∞ 8/255", "n_clean"], rows)
    lines = table.latex("my_set / cnn (quick attack)").splitlines()
    escaped = Table("a", "", r"1 & 2 # $3 {4} 5~6 ^7 \8 `9`", ["Method"], [["AT"]]).latex()
    assert r"1 \& 2 \# \$3 \{4\} 5\textasciitilde{}6 \textasciicircum{}7 \textbackslash{}8 9" in escaped
    assert r"\caption{my\_set / cnn (quick attack). Accuracy. 95 \% intervals of $\lambda$.}" in lines
    assert not any("caption" in line for line in Table("a", "", "", ["Method"], [["AT"]]).latex().splitlines())
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\begin{tabular}{lrr}" in lines
    assert r"Method & $L_\infty$ 8/255 & n\_clean \\" in lines
    assert r"AT-$L_\infty$ & 50.0 $\pm$ 3.5 & 50 \% \\" in lines
    assert r"A \& B & 1 &  \\" in lines


def test_without_an_alignment_there_is_no_figure_of_it(experiment):
    for content in (experiment.folder / "records" / "digits").rglob("*.json"):
        save_json(content, load_json(content, sealed=True) | {"alignment": None}, sealed=True)
    params, confs = experiment.load()
    results = read_results(params, confs, experiment.folder)
    drawn = [item.name for item in illustrations(params, results, experiment.folder)]
    assert sorted([*drawn, "digits-alignment"]) == FIGURES


def test_jpeg_copy_is_compared_with_cifar10_and_marked(experiment):
    experiment.write_all("cifar10-jpeg", "rn18")
    for method in ("vanilla", "sbg"):
        content = experiment.metrics_path(method, "cifar10-jpeg", "rn18")
        save_json(content, load_json(content, sealed=True) | {"data_note": "JPEG copy"}, sealed=True)
    lists = {"baselines": ["vanilla"], "realizations": ["sbg"], "robust": []}
    experiment.lists |= {"datasets": ["cifar10-jpeg"], "archs": ["rn18"], **lists}
    page = markdown(experiment)
    assert "### cifar10-jpeg / rn18 (JPEG copy)" in page
    claims = page.split("## Claims")[1].split("### Claim 1")[0]  # marked like the numbers, but once
    assert (
        "\n\nEverything on cifar10-jpeg/rn18, cifar10-jpeg: JPEG copy.\n\n" in claims
        and "** on cifar10-jpeg/rn18 |" in claims
    )
    assert claims.count("JPEG copy") == 1
    assert "measured on a JPEG copy of the paper's images" in page
    assert "80.0 ± 2.8 / 55.39 / +24.6" in page
    assert "The attacks flagged nothing." in page
    assert "AT-L2 " not in page.split("## cifar10-jpeg")[1]  # its metrics lie there, but it is not listed


@pytest.mark.parametrize(
    "missing",
    ["realizations/nn.npz", "large_eps/cnn/at-l2+sbg.npz", "diffusion.npz"],
)
def test_missing_arrays_are_named_and_an_earlier_report_stays(experiment, missing):
    out = experiment.folder / "report"
    out.mkdir()
    (out / "report.md").write_text("earlier")
    (experiment.folder / "arrays" / "digits" / missing).unlink()
    with pytest.raises(ArtifactError, match="is missing: run `dvc repro`"):
        write(experiment)
    assert files(out) == {"report.md": b"earlier"}
    assert not list(experiment.folder.glob(".*partial*"))


def test_our_notes_and_the_sanity_checks_stand_apart_from_what_autoattack_flagged(experiment):
    note = "9 classes: 8 target classes per image instead of 9"
    flag = "L2 0.5: Square Attack improves by 0.4 %"
    page = markdown(experiment)
    assert "## Sanity checks" not in page
    experiment.change("cm", notes=[note])
    experiment.change("nn", notes=[note], warnings=[flag])
    checks = [("L2: a large radius breaks everything", True, "0.0% at 4"), ("L2: rising", False, "1% at 1, 2% at 2")]
    experiment.change("sbg", sanity=[dict(zip(("name", "passed", "detail"), check, strict=True)) for check in checks])
    page = markdown(experiment)
    warnings = page.split("## Warnings of the attacks")[1].split("## Sanity checks")[0]
    flags, notes = warnings.split("How the attacks differ")
    assert [line for line in flags.splitlines() if line.startswith("- ")] == [f"- digits / cnn / NN: {flag}"]
    assert [line for line in notes.splitlines() if line.startswith("- ")] == [f"- digits: {note}"]
    assert page.split("## Sanity checks")[1].strip().splitlines()[-2:] == [
        "- digits / cnn / SBG: **passed** — L2: a large radius breaks everything: 0.0% at 4",
        "- digits / cnn / SBG: **failed** — L2: rising: 1% at 1, 2% at 2",
    ]


def test_the_cost_of_each_training_and_of_all(experiment):
    experiment.change("at-l2", train_seconds=9000.0)
    page = markdown(experiment)
    cost = page.split("#### Training cost")[1]
    assert "| AT-L2 | 2.5 h | 50.00 | 2 CPU cores |" in cost
    assert "| SBG | 30.0 s | 22.00 | 2 CPU cores |" in cost
    assert "| 8 runs | 2.6 h |  |  |" in cost  # 9,000 s and seven times 30 s


def test_why_a_time_of_a_training_is_missing(experiment):
    assert "Missing of" not in markdown(experiment)
    experiment.change("at-l2", seconds_per_step=None)
    for method in ("cm", "nn"):
        experiment.change(method, train_seconds=None, seconds_per_step=None)
    cost = markdown(experiment).split("#### Training cost")[1].split("\n## ")[0]
    assert "Missing of AT-L2: its training changed the machine" in cost
    assert "Missing of CM, NN: trained elsewhere, or its file of timings was not kept." in cost
    assert "| AT-L2 | 30.0 s | missing |" in cost and "| 6 runs |" in cost
    params, confs = experiment.load()
    runs, *_ = provenance(content_of(params, confs, read_results(params, confs, experiment.folder)))
    assert "Missing of digits / cnn / CM, digits / cnn / NN: trained elsewhere" in runs.caption


def test_names_are_explained_where_they_first_stand(experiment):
    page = markdown(experiment)
    assert "- Architectures: cnn (4 convolutions and a linear layer)\n" in page
    assert "AT-L2 (adversarial training within an L2 radius), " in page
    assert "λ: weight of the alignment. Alignment: mean cosine" in page.split("#### Accuracy")[1].split("| Method")[0]
    assert arch_name("rn8-silu") == "rn8-silu (pre-activation ResNet of 8 layers; its activation is SiLU)"
    assert arch_name("timm-resnet18") == "timm-resnet18"


def test_every_architecture_and_method_is_explained():
    assert {without_activation(arch) for arch in ARCHITECTURES} == set(ARCH_WORDS)
    assert set(ACTIVATION_NAMES) == set(ACTIVATIONS)
    assert set(METHOD_WORDS) == set(get_args(Baseline))


def test_what_foolbox_flagged_stands_with_its_name_and_what_both_flag_once(experiment):
    assert "The attacks flagged nothing." in markdown(experiment)  # metrics of earlier versions have no such warnings
    both = "the input gradient is zero on every image: only Square attacks this model"
    blur = load_json(experiment.metrics_path("cm"), sealed=True)["foolbox"]["GaussianBlurAttack"]
    experiment.change(
        "cm", warnings=[both], foolbox={"GaussianBlurAttack": blur | {"warnings": [both, "too few draws"]}}
    )
    flags = markdown(experiment).split("## Warnings of the attacks")[1].split("\n## ")[0]
    assert [line for line in flags.splitlines() if line.startswith("- ")] == [
        f"- digits / cnn / CM: {both}",
        "- digits / cnn / CM: Foolbox's GaussianBlurAttack: too few draws",
    ]


def test_a_weight_that_leaves_no_classifier_is_said(experiment):
    """Its robust accuracy would read as one of many, and chance level is far below."""
    experiment.change("vanilla", clean_accuracy=0.98)
    experiment.change("oi", clean_accuracy=0.48)
    experiment.change("sbg", clean_accuracy=0.5)
    flags = markdown(experiment).split("## Warnings of the attacks")[1].split("\n## ")[0]
    assert [line for line in flags.splitlines() if "too large" in line] == [
        "- digits / cnn / OI: clean accuracy is 48.0%, and 98.0% without alignment: is λ = 0.1 too large for it?"
    ]
