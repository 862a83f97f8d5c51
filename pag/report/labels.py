"""Names beside the points of a scatter plot, placed so that they cover neither each other nor a point, nor a line."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

FONT_SIZE = 8.0  # points
CHARACTER = 0.62 * FONT_SIZE  # width of a character, a little generous
REACH = 7.0  # half the side of the square that a marker covers, in points
STROKE = 1.5  # the same of a piece of a line

# Where a label may stand around its point, best place first: direction in x and y, at growing distances.
STRAIGHT, DIAGONAL = ((1, 0), (-1, 0), (0, 1), (0, -1)), ((1, 1), (-1, 1), (1, -1), (-1, -1))
DIRECTIONS = (*STRAIGHT, *DIAGONAL, *((dx / 2, dy) for dx, dy in DIAGONAL))
DISTANCES = (1.0, 2.2, 3.6, 5.0)
ROUNDS = 4  # in which each label may move once more, now that the others are there

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle in points from the axes' lower left corner."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> Point:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: "Box") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def covers(self, others: "Sequence[Box]") -> int:
        """How many of `others`."""
        return sum(self.overlaps(other) for other in others)

    def inside(self, other: "Box") -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def label_points(
    axes: Axes,
    points: Sequence[Point],
    names: Sequence[str],
    colours: Sequence[str],
    markers: Sequence[Point],
    lines: Sequence[Sequence[Point]],
) -> None:
    """Write each name near its point (in data coordinates), on none of `markers`, all points of the plot, and off its
    `lines`, each a sequence of corners; a thin line leads from a name that stands apart to its point.

    Call it when limits and layout of `axes` are final.
    """
    scale = 72 / axes.figure.dpi
    corner = axes.transAxes.transform((0, 0))

    def placed(points: Sequence[Point]) -> list[Point]:
        return [tuple((axes.transData.transform(point) - corner) * scale) for point in points]

    at = placed(points)
    width, height = (axes.transAxes.transform((1, 1)) - corner) * scale
    sizes = [(len(name) * CHARACTER, 1.2 * FONT_SIZE) for name in names]
    strokes = [point for line in lines for point in _along(placed(line))]
    boxes = place_labels(at, sizes, Box(0, 0, width, height), placed(markers), strokes)
    for point, name, (x, y), box, colour in zip(points, names, at, boxes, colours, strict=True):
        offset = (box.centre[0] - x, box.centre[1] - y)
        near = box.overlaps(_centred(x, y, 2.1 * REACH, 2.1 * REACH))
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": REACH}
        axes.annotate(
            name,
            point,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            color=colour,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # over lines
            arrowprops=None if near else leader,
            zorder=5,
        )


def place_labels(
    at: Sequence[Point],
    sizes: Sequence[Point],
    area: Box,
    markers: Sequence[Point],
    strokes: Sequence[Point] = (),
) -> list[Box]:
    """A box for each label, the first of the best candidates inside `area`: those that cover the fewest markers, labels
    and leaders, whose own leader crosses the fewest of these, and that cover the fewest of `strokes`, points of lines.

    Who comes first takes the place of another, so several orders are tried.
    """
    covered = [_centred(x, y, 2 * REACH, 2 * REACH) for x, y in markers]
    drawn = [_centred(x, y, 2 * STROKE, 2 * STROKE) for x, y in strokes]
    candidates = [_candidates(*of_label, area, covered, drawn) for of_label in zip(at, sizes, strict=True)]
    given = range(len(at))
    by_place = [sorted(given, key=lambda label: at[label][axis]) for axis in (0, 1)]
    orders = [given, *by_place, *(order[::-1] for order in by_place)]
    found = [_placed(candidates, order) for order in orders]
    return list(min(found, key=lambda placed: placed[0])[1])


def _placed(candidates: "Sequence[Sequence[Candidate]]", order: Sequence[int]) -> tuple[tuple[int, ...], list[Box]]:
    """Cost and boxes, after each label in turn took the best place that the others leave, until none moves."""
    chosen: dict[int, Candidate] = {}
    for _ in range(ROUNDS):
        before = dict(chosen)
        for label in order:
            others = [chosen[other] for other in chosen if other != label]
            chosen[label] = min(candidates[label], key=lambda candidate: candidate.cost(others))
        if chosen == before:
            break
    costs = [own.cost([other for other in chosen.values() if other is not own]) for own in chosen.values()]
    total = tuple(sum(parts) for parts in zip(*costs, strict=True))
    return total, [chosen[label].box for label in range(len(candidates))]


@dataclass(frozen=True)
class Candidate:
    """A place for a label."""

    box: Box
    leader: tuple[Box, ...]  # pieces of the line to its point
    outside: bool
    on: int  # markers that it covers
    through: int  # markers of other points that its leader crosses
    over: int  # pieces of lines that it covers

    @cached_property
    def hull(self) -> Box:
        """Around the label and its leader."""
        shapes = (self.box, *self.leader)
        left, bottom = min(shape.left for shape in shapes), min(shape.bottom for shape in shapes)
        return Box(left, bottom, max(shape.right for shape in shapes), max(shape.top for shape in shapes))

    def cost(self, others: "Sequence[Candidate]") -> tuple[int, ...]:
        """What counts first comes first; `others`: the places of the other labels."""
        near = [other for other in others if self.hull.overlaps(other.hull)]
        written = [shape for other in near for shape in (other.box, *other.leader)]
        crossed = sum(piece.covers(written) for piece in self.leader)
        return self.outside, self.on + self.box.covers(written), crossed, self.through, self.over


def _candidates(point: Point, size: Point, area: Box, markers: Sequence[Box], drawn: Sequence[Box]) -> list[Candidate]:
    (x, y), (width, height) = point, size
    others = [marker for marker in markers if not marker.overlaps(_centred(x, y, 0, 0))]
    found = []
    for reach in (REACH * distance for distance in DISTANCES):
        for dx, dy in DIRECTIONS:
            box = _centred(x + dx * (reach + width / 2), y + dy * (reach + height / 2), width, height)
            leader = tuple(_centred(*place, 2 * STROKE, 2 * STROKE) for place in _along([point, box.centre]))
            through = sum(piece.covers(others) for piece in leader)
            outside = not box.inside(area)
            found.append(Candidate(box, leader, outside, box.covers(markers), through, box.covers(drawn)))
    return found


def _along(line: Sequence[Point]) -> Iterator[Point]:
    """Points of a line, close enough that no label fits between two of them."""
    for (x0, y0), (x1, y1) in pairwise(line):
        pieces = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / (2 * STROKE)))
        for piece in range(pieces + 1):
            yield x0 + (x1 - x0) * piece / pieces, y0 + (y1 - y0) * piece / pieces


def _centred(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
