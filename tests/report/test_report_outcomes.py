"""Comparisons image by image and over training seeds, from the files of the evaluation to a claim's outcome."""

import numpy as np
import pytest
from one_claim import judge_one

from pag.foundation.artifacts import ArtifactError, load_json, save_arrays
from pag.report.outcomes import read_outcomes
from pag.report.results import read_results

N = 200
NEVER = np.inf


def radii(correct: np.ndarray, eps: tuple[float, float]) -> np.ndarray:
    """The smallest radius that broke each image, of two; correct: (N, 2) bool at them."""
    return np.where(correct[:, 1], NEVER, np.where(correct[:, 0], eps[1], eps[0]))


def broken(at_larger: slice) -> dict[str, np.ndarray]:
    """Right at the smaller radii, and at the larger ones for some of the images."""
    correct = np.ones((N, 2), bool)
    correct[:, 1] = False
    correct[at_larger, 1] = True
    return {"L2": radii(correct, (0.5, 1.0)), "Linf": radii(correct, (0.1, 0.2))}


def third_claim(experiment, variants=None):
    params, confs = experiment.load()
    confs = {name: conf.model_copy(update={"variants": variants or {}}) for name, conf in confs.items()}
    scores = read_results(params, confs, experiment.folder).scores
    (finding,) = judge_one(3, scores)
    return finding


CLEAN = np.ones(360, bool)


@pytest.fixture
def compared(metrics):
    """SBG is right at the larger radii where AT-L2 is (100 images) and on 16 more; AT-L2 has the smaller L∞ radius."""
    metrics.evaluation["threat_models"] = {"L2": [0.5, 1.0], "Linf": [0.2]}
    metrics.write_outcomes("at-l2", broken(slice(0, 100)), CLEAN)
    metrics.write_outcomes("sbg", broken(slice(0, 116)), CLEAN)
    return metrics


def test_the_same_images_decide_what_two_separate_errors_leave_open(compared):
    finding = third_claim(compared)
    assert finding.outcome == "holds"
    assert "+8.0 points, 95 % interval +4.0 to +11.9, paired; must be above 0, p < 0.001" in finding.checks[0].text
    for path in (compared.folder / "arrays/digits/outcomes/cnn").iterdir():
        path.unlink()
    finding = third_claim(compared)
    assert finding.outcome == "undecided"
    assert "not paired" in finding.checks[0].text


def test_other_images_are_not_paired(compared):
    compared.write_outcomes("sbg", broken(slice(0, 116)), CLEAN, rows=np.arange(100, 100 + N))
    assert third_claim(compared).outcome == "undecided"


def test_a_disagreement_both_ways_is_undecided_and_one_that_way_refutes(compared):
    compared.write_outcomes("sbg", broken(slice(10, 112)), CLEAN)  # 12 images more, 10 fewer
    assert third_claim(compared).outcome == "undecided"
    compared.write_outcomes("sbg", broken(slice(0, 84)), CLEAN)
    assert third_claim(compared).outcome == "does not hold"


def test_training_seeds_of_both_methods_are_in_the_interval(compared):
    """Of three seeds each, SBG's second one is much worse: the main runs decide, the methods do not."""
    variants = {f"{m}-{s}": {"method": m, "training_seed": s} for m in ("sbg", "at-l2") for s in (1, 2)}
    compared.lists |= {"variants": list(variants), "variant_datasets": ["digits"], "variant_archs": ["cnn"]}
    right = {"sbg-1": 90, "sbg-2": 116, "at-l2-1": 100, "at-l2-2": 101}
    for name, count in right.items():
        template = load_json(compared.metrics_path(name.rsplit("-", 1)[0]), sealed=True)
        compared.write_metrics(name, template | {"run": name, "seed": variants[name]["training_seed"]})
        compared.write_outcomes(name, broken(slice(0, count)), CLEAN)
    finding = third_claim(compared, variants)
    text = finding.checks[0].text
    assert "SBG 53.7 % (3 seeds, deviation 7.5, n = 200), AT-L2 50.2 % (3 seeds, deviation 0.3, n = 200)" in text
    assert "+3.5 points" in text
    assert finding.outcome == "undecided"
    # with other values than the main run's it is no seed of it
    variants = {name: content | {"lambda": 0.1} if "sbg" in name else content for name, content in variants.items()}
    for name in ("sbg-1", "sbg-2"):
        compared.change(name, alignment_weight=0.1)
    assert "SBG 58.0 ± 3.5 % (n = 200), AT-L2 50.0 ± 3.5 % (n = 200)" in third_claim(compared, variants).checks[0].text


def test_outcomes_of_another_evaluation_than_the_metrics_are_refused(compared):
    compared.change_robust("sbg", "L2", "1.0", 0.5)
    with pytest.raises(ArtifactError, match=r"digits/cnn/sbg: robust accuracy 0.5000, but 0.5800 by its outcomes"):
        third_claim(compared)


def test_outcomes_that_do_not_fit_together_are_refused_in_one_line(tmp_path):
    assert read_outcomes(tmp_path / "none.npz") is None
    content = {"rows": np.arange(3), "labels": np.arange(3), "clean_correct": np.ones(9, bool)}
    save_arrays(tmp_path / "short.npz", dict(**content, radius_L2=np.ones(2)))
    with pytest.raises(ArtifactError, match=r"short\.npz: \(2,\) values for rows of \(3,\)"):
        read_outcomes(tmp_path / "short.npz")
    save_arrays(tmp_path / "half.npz", dict(**content, curve_eps_L2=np.ones(2)))
    with pytest.raises(ArtifactError, match=r"half\.npz lacks the array 'curve_radius_L2'"):
        read_outcomes(tmp_path / "half.npz")


def test_a_rounded_radius_counts_as_the_one_it_stands_for(tmp_path):
    content = {"rows": np.arange(2), "labels": np.arange(2), "clean_correct": np.ones(2, bool)}
    save_arrays(tmp_path / "a.npz", dict(**content, radius_Linf=np.array([8 / 255, 10 / 255])))
    outcomes = read_outcomes(tmp_path / "a.npz")
    for eps in (0.0314, 8 / 255):  # 0.0314 is above 8/255 by 0.0012 of it
        assert outcomes.robust("Linf", eps).correct.tolist() == [False, True]
    assert outcomes.robust("L2", 0.5) is None
