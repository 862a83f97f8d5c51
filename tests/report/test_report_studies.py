"""Variants and the paper's tables in the report: which runs share a row, what is measured, what is missing."""

import pandas as pd
import pytest
from one_claim import judge_one

from pag.foundation.artifacts import ArtifactError, load_arrays, load_json, save_arrays, save_json
from pag.foundation.config.section import ConfigError
from pag.report import results
from pag.report.content import content_of
from pag.report.figures import illustrations
from pag.report.judgement import judge
from pag.report.page import markdown_page, write_report
from pag.report.paper_tables import paper_tables
from pag.report.results import read_results
from pag.report.studies import study_tables, sweep_of

VARIANTS = {
    "lambda-0": ({"method": "sbg", "lambda": 0.0}, {"alignment_weight": 0.0, "alignment": 0.05}, 0.40),
    "lambda-1": ({"method": "sbg", "lambda": 1.0}, {"alignment_weight": 1.0, "alignment": 0.5}, 0.60),
    "lambda-4": ({"method": "sbg", "lambda": 4.0}, {"alignment_weight": 4.0, "alignment": 0.8}, 0.85),
    "k-all-seed-0": (
        {"method": "sbg", "training_seed": 0, "classes_per_image": "all"},
        {"alignment_weight": 2.0, "classes_per_image": "all", "seed": 0},
        0.70,
    ),
    "k-all-seed-1": (
        {"method": "sbg", "training_seed": 1, "classes_per_image": "all"},
        {"alignment_weight": 2.0, "classes_per_image": "all", "seed": 1},
        0.80,
    ),
    "logit": ({"method": "nn", "gradient_of": "logit"}, {"alignment_weight": 0.5}, 0.65),
    "logit-seed-1": (
        {"method": "sbg", "training_seed": 1, "gradient_of": "logit"},
        {"alignment_weight": 2.0, "seed": 1, "gradient_of": "logit"},
        0.10,
    ),
}


@pytest.fixture(autouse=True)
def any_values(monkeypatch):
    """Metrics of any λ, seed and number of classes, whatever the parameters say."""
    monkeypatch.setattr(results, "_require_asked_for", lambda *of_a_run: None)


@pytest.fixture
def varied(experiment):
    """The experiment of the other tests and its variants."""
    for name, (_, changes, accuracy) in VARIANTS.items():
        robust = {"0.5": accuracy, "1.0": accuracy / 2}, {"0.1": accuracy, "0.2": accuracy / 2}
        measured = {"robust_accuracy": dict(zip(("L2", "Linf"), robust, strict=True)), "alignment": 0.6}
        content = load_json(experiment.metrics_path("vanilla"), sealed=True)
        aligned = {"classes_per_image": 1, "run": name}
        experiment.write_metrics(f"{name}", content | aligned | measured | changes)
        source = experiment.folder / "arrays/digits/large_eps/cnn/sbg.npz"
        copy = experiment.folder / f"arrays/digits/large_eps/cnn/{name}.npz"
        copy.parent.mkdir(exist_ok=True)
        save_arrays(copy, load_arrays(source))
    experiment.change("sbg", classes_per_image=1)
    experiment.lists |= {"variants": list(VARIANTS), "variant_datasets": ["digits"], "variant_archs": ["cnn"]}
    return experiment


def load(experiment):
    params, confs = experiment.load()
    described = {"variants": {name: content for name, (content, _, _) in VARIANTS.items()}}
    return params, {name: conf.model_copy(update=described) for name, conf in confs.items()}


def read(experiment):
    return read_results(*load(experiment), experiment.folder)


def sections(experiment) -> str:
    found = read(experiment)
    scores = found.scores[found.scores["dataset"] == "digits"]
    tables = study_tables([*found.runs, *found.variants], scores)
    return "\n".join(f"#### {table.title}\n{table.markdown()}" for table in tables)


def row(text: str, *starts: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("| " + " | ".join(starts) + " |")]
    return line


def test_runs_that_differ_in_the_seed_share_a_row_with_mean_and_deviation(varied):
    line = row(sections(varied), "SBG", "2", "all", "0, 1")
    assert "| 75.0 ± 7.1 | 37.5 ± 3.5 | 75.0 ± 7.1 | 37.5 ± 3.5 | 0.600 ± 0.000 | 360 | 200 |" in line


def test_the_main_run_of_a_setting_is_one_of_its_seeds(varied):
    varied.change("sbg", classes_per_image="all", seed=2)  # 80 % at L2 0.5, beside 70 and 80
    assert "| 76.7 ± 5.8 |" in row(sections(varied), "SBG", "2", "all", "2, 0, 1")
    varied.change("sbg", seed=1)  # then it is the run that the variant repeats
    assert "| 75.0 ± 7.1 |" in row(sections(varied), "SBG", "2", "all", "0, 1")


def test_each_study_has_its_table_and_rows(varied):
    text = sections(varied)
    titles = [line for line in text.splitlines() if line.startswith("####")]
    assert titles == ["#### λ sweep", "#### Training seeds", "#### Other variants"]
    assert [row(text, "SBG", weight, "1", "0").split("|")[6].strip() for weight in ("0", "1", "4")] == [
        "40.0 ± 3.4", "60.0 ± 3.4", "85.0 ± 2.5",
    ]  # fmt: skip
    assert row(text, "NN (logit)", "0.5", "1", "0")


def test_a_radius_that_a_variant_lacks_is_missing(varied):
    varied.change_robust("lambda-4", "L2", "1.0", None)
    assert "| 85.0 ± 2.5 | missing |" in row(sections(varied), "SBG", "4", "1", "0")


def test_claim_5_uses_the_sweep_and_no_other_variant(varied):
    def finding():
        return judge_one(5, read(varied).scores)[0]

    assert finding().outcome == "undecided"  # 85 % at λ 4, 80 % at λ 2: with 200 images it may be 2 points less
    for name in ("lambda-4", "sbg"):
        varied.change(name, n_examples=2000)
    assert finding().outcome == "holds"
    assert "0.050 at λ 0, 0.500 at λ 1, 0.720 at λ 2, 0.800 at λ 4" in finding().checks[-1].text
    varied.change_robust("lambda-4", "L2", "0.5", 0.3)
    varied.change_robust("lambda-4", "L2", "1.0", 0.2)
    assert finding().outcome == "does not hold"


def test_variants_leave_the_other_claims_alone(varied):
    after = [(f.claim.number, f.group, f.outcome) for f in judge(read(varied).scores) if f.claim.number != 5]
    varied.lists["variants"] = []
    before = [(f.claim.number, f.group, f.outcome) for f in judge(read(varied).scores) if f.claim.number != 5]
    assert after == before


def test_figures_over_lambda(varied):
    params, _ = load(varied)
    drawn = {item.name: item.figure for item in illustrations(params, read(varied), varied.folder)}
    l2, _, alignment = drawn["digits-cnn-sbg-lambda"].axes
    assert [tick.get_text() for tick in l2.get_xticklabels()] == ["0", "1", "2", "4"]  # 2 is the main run
    first = next(line for line in l2.lines if line.get_label() == "radius 0.5")
    assert first.get_xydata().ravel().tolist() == pytest.approx([0, 40, 1, 60, 2, 80, 4, 85])
    assert alignment.lines[0].get_ydata().tolist() == pytest.approx([0.05, 0.5, 0.72, 0.8])
    places = [l2.transData.transform((weight, 0))[0] for weight in (1, 2, 4)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], rel=0.01)  # doublings are equally wide
    titles = [a.get_title(loc="left") for a in drawn["digits-cnn-sbg-lambda-large-eps"].axes]
    assert titles == ["λ 0", "λ 1", "λ 4"]


def test_every_run_is_in_the_scatter_plots_and_a_line_joins_the_sweep(varied):
    params, _ = load(varied)
    drawn = {item.name: item.figure for item in illustrations(params, read(varied), varied.folder)}
    expected = {"digits-clean": [97.5], "digits-alignment": [0.05, 0.5, 0.72, 0.8]}
    for name, x in expected.items():
        axes = drawn[name].axes[0]
        points = [point for line in axes.lines if line.get_linestyle() == "None" for point in line.get_xydata()]
        bars = [line for line in axes.lines if line.get_marker() in ("_", "|")]
        assert len(points) - sum(len(bar.get_xydata()) for bar in bars) == 8 + len(VARIANTS)
        (joined,) = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 1]
        assert joined.get_ydata().tolist() == pytest.approx([40, 60, 80, 85])
        assert set(x) <= {round(value, 6) for value in joined.get_xdata()}


def test_a_sweep_takes_a_main_run_only_where_it_lacks_the_weight(varied):
    varied.change("sbg", alignment_weight=4.0)
    swept = sweep_of(read(varied).scores.query("dataset == 'digits'"))
    clean = swept[(swept["measure"] == "clean")]
    assert clean["weight"].tolist() == [0.0, 1.0, 4.0]
    assert set(clean["run"]) == {"sweep"}


def test_the_page_has_the_studies_and_the_same_bytes_again(varied):
    params, confs = load(varied)
    drawn = list(illustrations(params, read(varied), varied.folder))
    page, again = (markdown_page(content_of(params, confs, read(varied)), drawn) for _ in range(2))
    assert page == again
    assert "- Variants: lambda-0, lambda-1" in page
    assert "#### Other variants" in page
    assert "figures/digits-cnn-sbg-lambda.png" in page
    assert "Not run here, with the presets that do: Table 1 (`table1`)" in page


def test_variants_alone_make_a_report(varied):
    varied.lists |= {"baselines": [], "realizations": [], "robust": []}
    write_report(*load(varied), varied.folder, varied.folder / "report")
    page = (varied.folder / "report/report.md").read_text()
    assert "### digits / cnn" in page
    assert "#### λ sweep" in page


def test_nothing_but_the_toy_makes_a_report(varied):
    varied.lists |= {"datasets": [], "variants": []}
    write_report(*load(varied), varied.folder, varied.folder / "report")
    page = (varied.folder / "report/report.md").read_text()
    assert "## Toy data" in page
    assert "| 1 | Every realisation makes the model far more robust" in page
    assert page.count("**not tested here**") >= 8


def test_a_missing_result_and_an_unknown_variant_are_named(varied):
    varied.metrics_path("logit").unlink()
    with pytest.raises(ArtifactError, match=r"logit\.json is missing"):
        read(varied)
    varied.lists["variants"] = ["lamda-0"]
    with pytest.raises(ConfigError, match=r"unknown run 'lamda-0': .* of conf/digits.yaml, did you mean 'lambda-0'"):
        read(varied)


def paper_page(experiment, dataset: str, arch: str) -> dict[str, str]:
    """Title → the paper's table beside results under the name of another dataset; "absent": titles of the others."""
    experiment.lists |= {"datasets": [dataset], "archs": [arch], "variants": []}
    experiment.evaluation["threat_models"] = {"L2": [0.5, 1.0], "Linf": [8 / 255]}
    experiment.write_all(dataset, arch)
    for path in experiment.metrics_path("sbg", dataset, arch).parent.glob("*.json"):
        content = load_json(path, sealed=True)
        robust = content["robust_accuracy"]["Linf"]
        robust[str(8 / 255)] = robust.pop("0.1")
        save_json(path, content, sealed=True)
    tables, absent = paper_tables(read(experiment).scores)
    return {table.title: table.markdown() for table in tables} | {"absent": ", ".join(absent)}


def test_a_table_of_the_paper_has_all_its_cells(metrics):
    page = paper_page(metrics, "cifar10-jpeg", "rn18")
    table = page["Table 1 (`table1`)"]
    assert len([line for line in table.splitlines() if line.startswith("| cifar10")]) == 14
    sbg = row(table, "cifar10-jpeg / rn18 (JPEG copy)", "SBG")
    assert "| 97.5 ± 0.9 / 78.56 / +18.9 | 80.0 ± 2.8 / 55.39 / +24.6 | 95.0 ± 1.6 / 23.97 / +71.0 |" in sbg
    assert sbg.endswith("| 360 | 200 | 1293 |")
    vit = row(table, "cifar10-jpeg / vit (JPEG copy)", "SBG")
    assert "| missing / 81.28 / – | missing / 57.80 / – | missing / 22.85 / – |" in vit
    assert vit.endswith("| missing | missing | missing |")


def test_other_tables_follow_their_radii_and_rows(metrics):
    page = paper_page(metrics, "cifar10", "rn18")
    twice = row(page["Table 3 (`table3`)"], "cifar10 / rn18", "SBG")
    assert "| 20.0 ± 2.8 / 30.43 / -10.4 | missing / 1.92 / – |" in twice
    assert "| 92.0 ± 2.0 / 61.73 / +30.3 |" in row(
        page["Table 4 (`table4-rn18, table4-wrn`)"], "cifar10 / rn18", "AT-L2+SBG"
    )
    blur = row(page["Table 6 (`table6`)"], "cifar10 / rn18", "GaussianBlurAttack")
    assert "| 50.0 ± 3.5 / 28.03 / +22.0 | 50.0 ± 3.5 / 51.54 / -1.5 | 200 | 1293 |" in blur
    assert "| cifar10 / rn18 | AT-PGD-7 | 2.27 / 2.13 |" in page["Appendix H (`runtime`)"]
    assert "| cifar10 / rn18 | AT-PGD-20 | missing / 6.14 |" in page["Appendix H (`runtime`)"]
    absent = "Table 2 (`table2`), Table 5 (`table5-vgg, table5-mixer`), Table 7 (`table7`), Figure 5 (`figure5`)"
    assert page["absent"] == absent


def test_blocks_of_different_radii_have_tables_of_their_own_and_none_is_all_missing(metrics):
    table = paper_page(metrics, "cifar100", "rn18")["Table 2 (`table2`)"]
    assert [line for line in table.splitlines() if line.startswith("| Dataset")] == [
        "| Dataset / architecture | Method | Clean | L2 0.5 | L∞ 8/255 | n clean | n attacked | training images |",
    ]
    assert "stl10" not in table  # of other radii, and not run
    assert "| 97.5 ± 0.9 / 55.94 / +41.6 |" in row(table, "cifar100 / rn18", "SBG")
    both = read(metrics).scores
    second = both[both["dataset"] == "cifar100"].assign(dataset="stl10")
    first, other = (t for t in paper_tables(pd.concat([second, both]))[0] if t.name.startswith("paper-table-2"))
    assert [first.header[4], other.header[4]] == ["L∞ 4/255", "L∞ 8/255"]
    assert [first.title, other.title] == ["Table 2 (`table2`)", ""]
    assert "| missing / 43.53 / – |" in row(first.markdown(), "stl10 / rn18", "SBG")


def test_figure_5_has_the_papers_numbers_where_its_lambda_is_known(varied):
    results = read(varied)
    scores = results.scores[results.scores["run"] == "sweep"].copy()
    scores["dataset"], scores["arch"] = "cifar10-jpeg", "rn18"
    scores.loc[scores["weight"] == 4.0, "weight"] = 2.0  # the λ of Table 8
    others = scores.assign(method="cm", value=0.11)  # a sweep of another method over the same λ
    scores = pd.concat([others, scores])
    (text,) = [f"{t.caption}\n{t.markdown()}" for t in paper_tables(scores)[0] if t.title.startswith("Figure 5")]
    assert "L2 / L∞ 0 / 0, 22.53 / 0.43, 48.34 / 11.21, 50.87 / 15.97, 55.39 / 23.97" in text
    assert "40.0 ± 3.4 / 0.00 / +40.0" in row(text, "cifar10-jpeg / rn18 (JPEG copy)", "0")
    assert "85.0 ± 2.5 / 55.39 / +29.6" in row(text, "cifar10-jpeg / rn18 (JPEG copy)", "2")
    assert "| 60.0 ± 3.4 | missing |" in row(text, "cifar10-jpeg / rn18 (JPEG copy)", "1")
