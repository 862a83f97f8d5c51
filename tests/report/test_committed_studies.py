"""The numbers of the committed studies are what today's code reads, and what their image-by-image outcomes say."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pag.foundation.artifacts import load_json
from pag.report.metrics import read_metrics
from pag.report.outcomes import read_outcomes, survived

STUDIES = Path(__file__).parents[2] / "results/studies"
FILES = sorted(STUDIES.glob("*/metrics/*.json"))


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parts[-3]}/{path.stem}" for path in FILES])
def test_metrics_and_outcomes_of_a_study_agree(path: Path, tmp_path: Path) -> None:
    about = load_json(path, sealed=True)
    dataset, arch, run = names = about["dataset"], about["arch"], about["run"]
    there = tmp_path / "results"  # the places that the report reads them from
    record = there / "records" / dataset / arch / f"{run}.json"
    outcomes_file = there / "arrays" / dataset / "outcomes" / arch / f"{run}.npz"
    for file, source in ((record, path), (outcomes_file, path.parents[1] / "outcomes" / f"{path.stem}.npz")):
        file.parent.mkdir(parents=True)
        shutil.copy(source, file)
    metrics, outcomes = read_metrics(there, *names), read_outcomes(outcomes_file)
    assert outcomes is not None
    for norm, radii in metrics.robust_accuracy.items():
        for eps, accuracy in radii.items():
            assert np.mean(survived(outcomes.radius[norm], eps)) == pytest.approx(accuracy)


README = {  # row of its first table → run of cifar10-night
    "vanilla": "vanilla",
    "AT-L2 (ε = 0.5)": "at-l2",
    "AT-L∞ (ε = 8/255)": "at-linf",
    "OI, λ = 0.15": "oi",
    "CM, λ = 0.15": "cm",
    "NN, λ = 0.15": "nn",
    "SBG, λ = 2": "sbg",
    "SBG, λ = 0.5": "lambda-0-5",
    "AT-L2 + SBG, λ = 0.2": "at-l2+sbg",
    "gradient-norm penalty 3/255, not in the paper": "gradnorm",
    "gradient-norm penalty 4/255, not in the paper": "gradnorm-4-255",
    "gradient-norm penalty 6/255, not in the paper": "gradnorm-6-255",
    "Gaussian noise σ = 0.12, not in the paper": "noise",
}


def test_the_readme_has_the_numbers_of_its_study() -> None:
    lines = (STUDIES.parents[1] / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| % | clean |")) + 2
    rows = [
        [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        for line in lines[start : start + len(README)]
    ]
    assert {row[0] for row in rows} == set(README)
    for name, *cells in rows:
        found = load_json(STUDIES / "cifar10-night/metrics" / f"{README[name]}.json", sealed=True)
        accuracies = [
            found["clean_accuracy"],
            *(v for norm in ("L2", "Linf") for v in found["robust_accuracy"][norm].values()),
        ]
        measured = [cell.split(" ")[0] for cell in cells]  # what stands in brackets is the paper's
        cosine = "" if found["alignment"] is None else f"{found['alignment']:.3f}"
        assert measured == [*(f"{100 * accuracy:.1f}" for accuracy in accuracies), cosine], name


def test_there_are_studies_to_look_at() -> None:
    assert len(FILES) >= 19
