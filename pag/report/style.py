"""The look that all figures share, and how they are written: the same input gives the same bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pag.foundation.atomic import atomic_file

CONTRAST = 4.5  # of text against the page, WCAG 2's level AA
DPI = 100  # of grids, whose tiles are drawn pixel by pixel
PLOT_DPI = 150

# Okabe and Ito's palette, which colour-blind readers can tell apart; a combination takes the colour of its robust part.
COLOURS = {
    "vanilla": "#595959",
    "oi": "#E69F00",
    "cm": "#56B4E9",
    "nn": "#009E73",
    "sbg": "#D55E00",
    "at-l2": "#0072B2",
    "at-linf": "#CC79A7",
    "trades-linf": "#000000",
    "gradnorm": "#B8A000",  # Okabe and Ito's yellow, darker: it is drawn on white
    "noise": "#8C564B",
}
OTHERS = "#6A3D9A"  # networks of others, whatever their names

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
}


def colour(method: str) -> str:
    return COLOURS.get(method.split("+", maxsplit=1)[0], OTHERS)


def ink(method: str, page: str = "white") -> str:
    """The method's colour for text: darkened on a light page, or lightened on a dark one, until it can be read."""
    background, shade = np.array(to_rgb(page)), np.array(to_rgb(colour(method)))
    away = np.round(1 - background.mean())  # from the page: to black or white
    while contrast(shade, background) < CONTRAST:
        shade = 0.95 * shade + 0.05 * away
    return to_hex(tuple(shade))


def contrast(shade: ArrayLike, page: ArrayLike = (1, 1, 1)) -> float:
    """Of two sRGB colours, from 1 to 21 (WCAG 2: relative luminances, each with .05 of stray light)."""
    low, high = sorted((_luminance(shade), _luminance(page)))
    return (high + 0.05) / (low + 0.05)


def _luminance(shade: ArrayLike) -> float:
    values = np.asarray(shade, float)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def marker(method: str) -> str:
    """Circle: vanilla; inverted triangle: the controls; diamond: alignment; square: robust training; triangle: both;
    plus: networks of others."""
    if "+" in method:
        return "^"
    if method not in COLOURS:
        return "P"
    if method in ("gradnorm", "noise"):
        return "v"
    if method == "vanilla":
        return "o"
    return "s" if method.startswith(("at-", "trades-")) else "D"


def bar_ends(value: float, error: float, most: float) -> tuple[float, float]:
    """Of an error bar: no accuracy is below 0 or above `most`. An error that is NaN has no bar."""
    error = 0.0 if np.isnan(error) else error
    return max(0.0, value - error), min(most, value + error)


def error_bars(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    ends: Sequence[tuple[float, float]],
    method: str,
    across: bool = False,
) -> None:
    """Bars between `ends`, of x if `across`, of y otherwise; in front of the markers, which hide short ones."""
    errors = np.abs(np.subtract(ends, np.reshape(x if across else y, (-1, 1)))).T if len(ends) else None
    look: dict[str, Any] = {"fmt": "none", "ecolor": ink(method), "elinewidth": 1, "capsize": 2, "zorder": 4}
    axes.errorbar(x, y, **look | {"xerr" if across else "yerr": errors})


@contextmanager
def house_style(scale: float = 1.0) -> Iterator[None]:
    """Draw with STYLE over matplotlib's defaults, whatever the user's own settings are; `scale`: of all words."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {size: scale * STYLE[size] for size in ("font.size", "axes.titlesize")})
        yield


def pixel_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in pixels from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches() * figure.dpi
    bottom = total_height - top - height
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def pixel_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def save_vector(figure: Figure, path: Path) -> None:
    """Write an SVG whose bytes depend on the drawing alone; text stays text."""
    fixed: dict[Any, Any] = {"svg.hashsalt": "figure", "svg.fonttype": "none"}
    with atomic_file(path) as partial, matplotlib.rc_context(fixed):
        figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without date and version; never through pyplot, so that no window system is needed."""
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
