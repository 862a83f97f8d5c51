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


def test_there_are_studies_to_look_at() -> None:
    assert len(FILES) >= 19
