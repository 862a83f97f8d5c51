"""Reading metrics: every number arrives, the paper's stands beside it, bad files are refused in one line."""

import math
from pathlib import Path

import pandas as pd
import pytest

from pag.foundation.artifacts import ArtifactError, load_json, save_json
from pag.report import paper
from pag.report.judgement import judge
from pag.report.results import binomial_error, read_results
from pag.report.tables import accuracy_table, foolbox_table, tidy_table, wide_table


def read(experiment):
    return read_results(*experiment.load(), experiment.folder)


def cell(scores: pd.DataFrame, method: str, measure: str, norm: str | None = None, eps: float = math.nan) -> pd.Series:
    rows = scores[(scores["method"] == method) & (scores["measure"] == measure) & (scores["dataset"] != "toy")]
    if norm is not None:
        rows = rows[(rows["norm"] == norm) & (rows["eps"] == eps)]
    assert len(rows) == 1
    return rows.iloc[0]


def cifar10(experiment, dataset: str = "cifar10"):
    """The same results under the name of a dataset that the paper has, with the radii of its tables."""
    experiment.lists |= {"datasets": [dataset], "archs": ["rn18"]}
    experiment.evaluation["threat_models"] = {"L2": [0.5, 1.0], "Linf": [0.0314, 0.1]}
    experiment.evaluation["foolbox"] = {"GaussianBlurAttack": 2.0}
    experiment.write_all(dataset, "rn18")
    return experiment


def test_every_measured_number_has_its_size_and_standard_error(metrics):
    scores = read(metrics).scores
    clean, robust = cell(scores, "sbg", "clean"), cell(scores, "sbg", "robust", "L2", 0.5)
    assert (clean["value"], clean["n"]) == (0.975, 360)
    assert (robust["value"], robust["n"]) == (0.80, 200)
    assert robust["error"] == pytest.approx(0.0283098065)  # sqrt(0.8 · 0.2 / 200)
    assert cell(scores, "at-l2", "robust", "Linf", 0.2)["value"] == 0.02
    assert cell(scores, "sbg", "alignment")["value"] == 0.72
    assert cell(scores, "at-l2+sbg", "clean")["trained_eps"] == 0.5


def test_a_radius_without_a_measurement_is_missing(metrics):
    metrics.evaluation["threat_models"]["L2"] = [0.5, 1.0, 2.0]
    metrics.change_robust("sbg", "L2", "0.5", None)
    results = read(metrics)
    assert math.isnan(cell(results.scores, "sbg", "robust", "L2", 2.0)["value"])
    scores = results.scores[results.scores["dataset"] == "digits"]
    lines = accuracy_table("digits", "cnn", results.runs, scores).markdown().splitlines()
    assert "| L2 0.5 | L2 1 | L2 2 |" in lines[0]
    line = next(line for line in lines if "| SBG |" in line)
    assert "| 97.5 ± 0.9 | 360 | 98.0 ± 1.2 | missing | 20.0 ± 2.8 | missing |" in line


def test_the_papers_number_and_the_difference_stand_beside_ours(metrics):
    scores = read(cifar10(metrics)).scores
    robust = cell(scores, "sbg", "robust", "L2", 0.5)
    assert robust["paper"] == pytest.approx(0.5539)
    assert robust["difference"] == pytest.approx(0.80 - 0.5539)
    assert cell(scores, "sbg", "robust", "L2", 1.0)["paper"] == pytest.approx(0.3043)
    assert cell(scores, "at-l2", "robust", "Linf", 0.0314)["paper"] == pytest.approx(0.1963)
    assert math.isnan(cell(scores, "at-l2", "robust", "Linf", 0.1)["paper"])
    assert cell(scores, "sbg", "foolbox")["paper"] == pytest.approx(0.5154)


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        (("cifar10", "vit", "sbg", "Linf", 8 / 255), 22.85),
        (("cifar10", "wrn-34-10", "trades-linf+sbg", "L2", 0.5), 62.66),
        (("cifar10", "mixer", "sbg", "L2", 0.5), 35.97),
        (("cifar10", "rn18", "at-l2+sbg", "Linf", 8 / 255), 23.52),
        (("cifar10", "rn18", "at-linf", "Linf", 16 / 255), 8.02),
        (("cifar100", "rn18", "cm", "Linf", 8 / 255), 2.78),
        (("stl10", "rn18", "sbg", "Linf", 4 / 255), 43.53),
        (("stl10", "rn18", "sbg", "Linf", 8 / 255), None),
        (("tinyimagenet", "rn18", "sbg", "L2", 0.5), 25.21),
        (("cifar10-jpeg", "rn18", "vanilla", "L2", 0.5), 0.0),
        (("digits", "cnn", "sbg", "L2", 0.5), None),
    ],
)
def test_numbers_of_the_papers_tables(name, percent):
    assert paper.paper_robust(*name) == (None if percent is None else pytest.approx(percent / 100))


def test_markdown_cell_has_measured_paper_and_difference(metrics):
    results = read(cifar10(metrics))
    scores = results.scores[results.scores["dataset"] == "cifar10"]
    line = next(
        line
        for line in accuracy_table("cifar10", "rn18", results.runs, scores).markdown().splitlines()
        if "| SBG |" in line
    )
    expected = (
        "| SBG | 2 | 97.5 ± 0.9 / 78.56 / +18.9 | 360 | 98.0 ± 1.2 "
        "| 80.0 ± 2.8 / 55.39 / +24.6 | 20.0 ± 2.8 / 30.43 / -10.4 |"
    )
    assert line == f"{expected} missing / 23.97 / – | 95.0 ± 1.6 | 200 | 0.720 |"
    foolbox = foolbox_table("cifar10", "rn18", results.runs, scores).markdown()
    assert "GaussianBlurAttack | L2 2 |" in foolbox
    assert "50.0 ± 3.5 / 51.54 / -1.5 (clean 97.5, median 1.25)" in foolbox


def test_tidy_and_wide_csv_hold_the_same_numbers(metrics):
    results = read(metrics)
    tidy = tidy_table(results.scores)
    assert list(tidy.columns[:3]) == ["dataset", "arch", "method"]
    assert len(tidy[tidy["dataset"] == "digits"]) == 8 * (2 + 4 + 2)  # methods × (clean, radii, Foolbox attacks)
    wide = wide_table(results.runs, results.scores[results.scores["dataset"] == "digits"]).set_index("method")
    assert wide.loc["nn", "robust_accuracy_Linf_0.2"] == 0.07
    assert wide.loc["nn", "n_attacked"] == 200
    assert wide.loc["nn", "attacked_clean_accuracy"] == 0.995
    assert wide.loc["oi", "alignment"] == 0.31


def test_leftovers_of_dropped_methods_are_not_read(metrics):
    metrics.lists["realizations"] = ["sbg"]
    metrics.lists["robust"] = []
    assert [run.method for run in read(metrics).runs] == ["vanilla", "at-l2", "at-linf", "sbg"]


def test_without_the_toy_experiment_its_scores_are_absent(metrics):
    metrics.lists |= {"point_sets": []}
    results = read(metrics)
    assert results.toy is None
    assert "toy" not in set(results.scores["dataset"])


def test_a_missing_file_of_a_listed_method_is_named(metrics):
    metrics.metrics_path("nn").unlink()
    with pytest.raises(ArtifactError, match=r"nn\.json is missing: run `dvc repro`") as caught:
        read(metrics)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clean_accuracy": 97.5}, r"clean_accuracy: Input should be less than or equal to 1 \(got 97.5\)"),
        ({"n_examples": 0}, r"n_examples: Input should be greater than or equal to 1"),
        ({"robust_accuracy": {"L2": {"large": 0.5}}}, r"robust_accuracy\.L2\.large"),
    ],
)
def test_a_metrics_file_that_makes_no_sense_is_refused_in_one_line(metrics, changed, message):
    metrics.change("sbg", **changed)
    with pytest.raises(ArtifactError, match=message) as caught:
        read(metrics)
    assert "\n" not in str(caught.value)
    assert str(metrics.metrics_path("sbg")) in str(caught.value)


def test_a_broken_or_incomplete_metrics_file_is_refused(metrics):
    path: Path = metrics.metrics_path("sbg")
    content = load_json(path, sealed=True)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"sbg\.json is damaged, it is no JSON"):
        read(metrics)
    del content["n_clean"]
    save_json(path, content, sealed=True)
    with pytest.raises(ArtifactError, match=r"n_clean: Field required"):
        read(metrics)


def test_an_edited_metrics_file_is_refused(metrics):
    path = metrics.metrics_path("sbg")
    path.write_text(path.read_text().replace("0.975", "0.985"))
    with pytest.raises(ArtifactError, match=r"sbg\.json is damaged or was edited"):
        read(metrics)


@pytest.mark.parametrize(
    ("key", "value"), [("dataset", "mnist5k"), ("arch", "rn18"), ("run", "nn"), ("weights_sha256", "v" * 64)]
)
@pytest.mark.parametrize("kind", ["metrics", "timings"])
def test_files_of_another_run_are_refused(metrics, kind, key, value):
    """The hash of the weights ties the timings to the metrics."""
    timings = load_json(metrics.metrics_path("sbg"), sealed=True) | {"train_seconds": 1.0}
    path = metrics.folder / "timings/digits/cnn/sbg.json"
    save_json(path, timings, sealed=True)
    read(metrics)
    if kind == "metrics":
        metrics.change("sbg", **{key: value})
    else:
        save_json(path, timings | {key: value}, sealed=True)
    with pytest.raises(ArtifactError, match=rf"sbg\.json has {key} = ") as caught:
        read(metrics)
    assert "\n" not in str(caught.value)


def test_runs_on_different_images_are_not_put_side_by_side(metrics):
    metrics.change("nn", dataset_hash="e" * 64)
    with pytest.raises(ArtifactError, match="digits: the metrics of cnn/vanilla, cnn/nn are of different versions"):
        read(metrics)


@pytest.mark.parametrize(
    ("eps", "value", "message"),
    [
        ("1.0", 0.81, r"robust_accuracy\.L2: 0\.810 at radius 1 is above 0\.800 at 0\.5"),
        ("0.5", 0.91, r"robust_accuracy\.L2: 0\.910 at radius 0\.5 is above 0\.900 at 0"),
    ],
)
def test_what_no_evaluation_gives_is_refused(metrics, eps, value, message):
    metrics.change("sbg", attacked_clean_accuracy=0.9, robust_accuracy={"L2": {"0.5": 0.8, "1.0": 0.2}})
    read(metrics)
    metrics.change_robust("sbg", "L2", eps, value)
    with pytest.raises(ArtifactError, match=message):
        read(metrics)


def test_a_single_image_of_two_hundred_is_within_the_error_at_zero() -> None:
    """The plain binomial error is 0 at 0 %, so that 1 of 200 would beat 0 of 200."""
    none, one = binomial_error(0.0, 200), binomial_error(1 / 200, 200)
    assert none == pytest.approx((2 / 204 * 202 / 204 / 204) ** 0.5)
    assert (none**2 + one**2) ** 0.5 > 1 / 200


QUICK_NOTE = "quick attack: APGD-CE and APGD-T alone, 20 steps, 9 target classes"


def test_a_quick_attack_is_marked_and_has_no_paper_beside_it(metrics):
    metrics.change("sbg", attack=QUICK_NOTE)
    scores = read_results(*metrics.load(), metrics.folder).scores
    robust = scores[(scores["method"] == "sbg") & (scores["measure"] == "robust") & (scores["dataset"] == "digits")]
    assert set(robust["attack"]) == {"quick attack"}
    assert set(robust["note"]) == {QUICK_NOTE}
    assert robust["paper"].isna().all()


def test_a_quick_attack_satisfies_no_claim(metrics):
    metrics.change("sbg", attack=QUICK_NOTE)
    outcomes = {finding.outcome for finding in judge(read_results(*metrics.load(), metrics.folder).scores)}
    assert outcomes == {"not tested here", "holds"}  # the toy claim alone holds
    held = [f for f in judge(read_results(*metrics.load(), metrics.folder).scores) if f.outcome == "holds"]
    assert [finding.group for finding in held] == ["toy"]


@pytest.mark.parametrize(
    ("run", "key", "value"),
    [
        ("sbg", "alignment_weight", 1.0),
        ("vanilla", "alignment_weight", 2.0),
        ("sbg", "classes_per_image", "all"),
        ("nn", "gradient_of", "logit"),
        ("at-l2", "penalty", 0.1),
        ("vanilla", "seed", 7),
    ],
)
def test_a_classifier_of_other_values_than_the_parameters_say_is_refused(experiment, run, key, value):
    experiment.change(run, **{key: value})
    message = f"metrics digits/cnn/{run} are of a classifier with {key} = {value}, the parameters say"
    with pytest.raises(ArtifactError, match=message):
        read(experiment)
