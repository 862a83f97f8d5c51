"""Scatter figures: what is behind a marker, error bars of both accuracies, lines and leaders that can be told apart."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path as Line

from pag.report.labels import REACH
from pag.report.scatter import CLEAN, FACE, scatter_figure
from pag.report.style import bar_ends, ink
from pag.report.tables import TIDY

NIGHT = Path(__file__).parents[2] / "results/studies/cifar10-night/tables/all.csv"


def runs_of_one_method(weights: list[tuple[str, float]], column: str, **more: object) -> pd.DataFrame:
    """Scores of runs that differ in the value of `column`: robust and clean accuracy, the best 10 in 100 apart."""
    points = pd.DataFrame([{"name": f"{run}{weight}", "run": run, column: weight} for run, weight in weights])
    about = {"weight": np.nan, "penalty": np.nan, "variant": None, "method": "sbg"} | {column: points[column]} | more
    points = points.assign(dataset="digits", arch="cnn", replica=False, error=0.01, **about)
    steps = np.arange(len(points)) / 10
    robust = points.assign(measure="robust", attack="AutoAttack", norm="L2", eps=0.5, value=0.1 + steps)
    clean = points.assign(measure="clean", attack="none", norm=None, eps=np.nan, value=0.995 - steps)
    return pd.concat([robust, clean], ignore_index=True)


def words_of(figure) -> str:
    """Below the panels."""
    return " ".join(figure.get_supxlabel().split())


@pytest.fixture(scope="module")
def night() -> Figure:
    """The runs of the committed study, many of them close together."""
    scores = pd.read_csv(NIGHT).rename(columns={name: column for column, name in TIDY.items()})
    name = scores["variant"].fillna(scores["method"])
    return scatter_figure("night", scores.assign(name=name, replica=name.str.endswith("seed-1")), CLEAN)


def leaders(axes: Axes) -> list[np.ndarray]:
    """From the middle of a name to its point, in points; of the names that have one."""
    scale = 72 / axes.figure.dpi
    at = {text: scale * axes.transData.transform(text.xy) for text in axes.texts if text.arrow_patch}
    return [np.array([point + text.get_position(), point]) for text, point in at.items()]


def test_leaders_cross_neither_each_other_nor_the_point_of_another(night):
    for axes in night.axes:
        drawn = leaders(axes)
        assert drawn
        assert not any(Line(one).intersects_path(Line(other), filled=False) for one, other in combinations(drawn, 2))
        marked = [line for line in axes.lines if line.get_marker() not in (None, "None")]
        points = np.concatenate([axes.transData.transform(line.get_xydata()) for line in marked]) * 72 / night.dpi
        for start, end in drawn:
            along = start + np.linspace(0, 1, 100)[:, None] * (end - start)
            others = points[np.hypot(*(points - end).T) > 2 * REACH]
            assert np.hypot(*(along[:, None] - others).T).min() > REACH / 2


def test_further_seeds_are_hollow_and_the_others_are_not(night):
    faces = {
        line.get_markerfacecolor()[3]
        for axes in night.axes
        for line in axes.lines
        if len(line.get_xdata())
        and line.get_marker() not in (None, "None")
        and not isinstance(line.get_markerfacecolor(), str)
    }
    assert faces == {0.0, FACE}


def test_an_error_that_is_not_known_has_no_bar():
    assert bar_ends(50, np.nan, 100) == (50, 50)
    assert bar_ends(1, 3, 100) == (0, 4)


def test_a_night_of_runs_says_what_is_large_small_and_hollow(night):
    words = words_of(night)
    assert "Large: the main runs; small: variants." in words
    assert "Hollow, without bars: further training seeds." in words


def test_a_line_over_the_weight_is_labelled_at_its_ends_and_at_the_main_run():
    scores = runs_of_one_method([("sweep", 0.5), ("main", 2.0), ("sweep", 4.0), ("sweep", 8.0)], "weight")
    figure = scatter_figure("digits", scores, CLEAN)
    assert {text.get_text() for text in figure.axes[0].texts} == {"λ = 0.5", "SBG λ = 2", "λ = 8"}
    assert "A line joins the runs of one method over its weight" in words_of(figure)


def test_a_line_over_the_penalty_says_that_it_is_one():
    scores = runs_of_one_method([("main", 3 / 255), ("other", 8 / 255)], "penalty", method="gradnorm")
    figure = scatter_figure("digits", scores, CLEAN)
    assert {text.get_text() for text in figure.axes[0].texts} == {"Gradient norm 3/255", "penalty 8/255"}
    unknown = scores["measure"].eq("clean") & scores["run"].eq("other")
    scores.loc[unknown, "value"] = np.nan
    words = words_of(scatter_figure("digits", scores, CLEAN))
    assert "Not here, as their clean accuracy was not measured: Gradient norm 8/255." in words
    assert "A line" not in words  # of one point is none


def test_no_accuracy_of_the_scatter_is_above_100_and_both_have_errors():
    scores = runs_of_one_method([("main", 2.0), ("sweep", 4.0)], "weight")
    axes = scatter_figure("digits", scores, CLEAN).axes[0]
    assert axes.get_xlim()[1] == 100
    across = [bar for bar in (lines.get_segments() for lines in axes.collections) if bar[0][0][0] != bar[0][1][0]]
    (ends,) = ([tuple(point[0] for point in bar) for bar in bars] for bars in across)
    assert ends == [pytest.approx((98.5, 100)), pytest.approx((88.5, 90.5))]  # the first would end at 100.5
    ends = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert any(np.ptp(segment[:, 1]) > 1.9 for segment in ends)


def test_a_marker_lets_those_behind_it_be_seen():
    """Two runs at one place: each has an edge that no other hides, and the small one is in front."""
    scores = runs_of_one_method([("main", 2.0), ("sweep", 4.0)], "weight")
    axes = scatter_figure("digits", scores.assign(value=0.5), CLEAN).axes[0]
    drawn = [line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())]
    main, small = sorted(drawn, key=lambda line: -line.get_markersize())
    assert small.get_zorder() > main.get_zorder()
    for line in (main, small):
        assert line.get_markerfacecolor()[3] < 0.6
        assert line.get_markeredgecolor() == ink("sbg")
