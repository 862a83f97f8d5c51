"""How large words are in figures of tiles: their size follows the width of the figure, so that they can be read where
it is as wide as a page."""

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from pag.report.style import DPI

PAGE = 468.0  # points of a page's width: 6.5 inches of paper, some 900 pixels of a screen
LEGIBLE = 6.0  # points of the smallest words there
SMALLEST = 8.0  # points of them in the figure itself, however narrow
EM = SMALLEST * DPI / 72  # the same in pixels
TITLE, HEADING = 1.5, 1.25  # sizes of the figure's and of a panel's title; all lengths below are in ems too
BOLD = 1.15  # how much wider bold words are
LINE, CHARACTER = 1.45, 0.6  # height of a line of words, and width of a character, at most


@dataclass(frozen=True)
class Layout:
    """Pixels."""

    em: float  # the size of labels
    side: float  # left of a panel, for the names of its rows
    names: float  # above a panel, for the names of its columns
    upright: bool  # whether these stand upright, as they are wider than a column

    @property
    def scale(self) -> float:
        """Of all words, as against the smallest."""
        return self.em / EM

    @property
    def margin(self) -> float:
        return 1.4 * self.em

    @property
    def heading(self) -> float:
        """Above a panel: its title, and the names of its columns."""
        return self.names + 2.2 * self.em


def layout(tiles: float, pitch: float, across: int, rows: Iterable[str], columns: Iterable[str]) -> Layout:
    """For `across` panels beside each other; each has tiles of `tiles` pixels together, and `pitch` pixels a column."""
    side = max((ems(row) for row in rows), default=0.0) + 1.2
    em = legible(across * tiles, across * (side + 1.4))
    return Layout(em, side * em, *above(em, pitch, columns))


def above(em: float, pitch: float, columns: Iterable[str]) -> tuple[float, bool]:
    """Pixels of the names of columns, and whether they stand upright."""
    widest = max(ems(column) for column in columns)
    upright = em * (widest + 0.3) > pitch
    return em * (widest + 1.1 if upright else 1.6), upright


def legible(tiles: float, words: float) -> float:
    """Pixels of an em in a figure that is `tiles` pixels and `words` ems wide."""
    share = LEGIBLE / PAGE
    return max(EM, share * tiles / (1 - share * words))


def ems(text: str) -> float:
    """Width of the widest of its lines; not as a formula, whatever the name of a class is."""
    font = FontProperties(family="DejaVu Sans", size=1)
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n"))


@dataclass(frozen=True)
class Head:
    """The title above all panels, and what is what, in lines that fit."""

    title: str
    about: str
    width: float  # pixels of the figure
    em: float

    @property
    def lines(self) -> list[tuple[str, float]]:
        """With their sizes in ems."""
        room = self.width - 2 * self.em
        return [
            (line, size)
            for text, size, wide in ((self.title, TITLE, BOLD), (self.about, 1.0, 1.0))
            for line in wrap(text, max(1, int(room / (CHARACTER * wide * size * self.em))))
        ]

    @property
    def height(self) -> float:
        return self.em * (1.7 + LINE * sum(size for _, size in self.lines))

    def write(self, figure: Figure) -> None:
        height, top = figure.get_size_inches()[1] * DPI, self.em
        for line, size in self.lines:
            weight = "bold" if size == TITLE else "normal"
            points = size * self.em * 72 / DPI
            figure.text(self.em / self.width, 1 - top / height, line, fontsize=points, fontweight=weight, va="top")
            top += LINE * size * self.em
