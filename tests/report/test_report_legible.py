"""Words in figures of tiles: large enough on a page, whatever the width of the figure, and none on another."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pag.report import arrays
from pag.report.grids import Panel, diffusion_figure, realization_figure, targets_figure

PAGE = 6.5  # inches of text across a page


@pytest.mark.parametrize("names", [[str(k) for k in range(10)], ["airplane", "automobile", *"cdefghi", "truck"]])
def test_words_of_pictures_can_be_read_at_the_width_of_a_page(names):
    """At least 6 points of each, whether the picture is wide or narrow, and none on another."""
    for count in (2, 10):
        shape = (count, count, 3, 32, 32)
        own = names[:count]
        grid = arrays.ClassGrid(np.zeros((count, *shape[2:])), np.arange(count), np.zeros(shape), tuple(own))
        panels = [Panel(title, grid) for title in ("Vanilla", "SBG: score-based gradients")]
        samples = arrays.Diffusion(
            np.arange(0, 4000, 40), np.geomspace(1, 0.03, 100), replace(grid, images=None), "samples"
        )
        for figure in (
            realization_figure("photos", panels),
            targets_figure("photos", "rn8-silu", 8.0, panels),
            diffusion_figure("photos", samples),
        ):
            figure.draw_without_rendering()
            words = words_in(figure)
            shrunk = min(1.0, PAGE / figure.get_size_inches()[0])
            assert min(text.get_fontsize() for text in words) * shrunk >= 5.999
            extents = [text.get_window_extent() for text in words]
            assert all(extent.x0 >= 0 and extent.x1 <= figure.bbox.width for extent in extents)
            for one, other in combinations(range(len(words)), 2):
                assert not overlap(extents[one], extents[other]), (words[one], words[other])


def words_in(figure: Figure) -> list[Text]:
    """All that is drawn: not the numbers of an axis that lie beyond its ends."""
    beyond = []
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond += [label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in beyond]


def overlap(one: Bbox, other: Bbox) -> bool:
    """By more than a pixel."""
    common = Bbox.intersection(one, other)
    return common is not None and min(common.width, common.height) > 1
