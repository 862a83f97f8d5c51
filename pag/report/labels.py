"""Names beside the points of a scatter plot, placed so that they cover neither each other nor a point, nor a line."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

FONT_SIZE = 8.0  # points
CHARACTER = 0.62 * FONT_SIZE  # width of a character, a little generous
REACH = 7.0  # half the side of the square that a marker covers, in points
STROKE = 1.5  # the same of a piece of a line

# Where a label may stand around its point, best place first: direction in x and y, at growing distances.
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (1.0, 2.2, 3.6)

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
    """
    covered = [_centred(x, y, 2 * REACH, 2 * REACH) for x, y in markers]
    drawn = [_centred(x, y, 2 * STROKE, 2 * STROKE) for x, y in strokes]
    boxes: list[Box] = []
    leaders: list[Box] = []
    for (x, y), (width, height) in zip(at, sizes, strict=True):
        candidates = [
            _centred(x + dx * (reach + width / 2), y + dy * (reach + height / 2), width, height)
            for reach in (REACH * distance for distance in DISTANCES)
            for dx, dy in DIRECTIONS
        ]
        written = [*boxes, *leaders]
        costs = [_cost(box, (x, y), area, covered, written, drawn) for box in candidates]
        best = candidates[costs.index(min(costs))]
        boxes.append(best)
        leaders += _leader((x, y), best, STROKE)
    return boxes


def _cost(
    box: Box, point: Point, area: Box, markers: Sequence[Box], written: Sequence[Box], drawn: Sequence[Box]
) -> tuple[int, ...]:
    """What counts first comes first."""
    others = [marker for marker in markers if not marker.overlaps(_centred(*point, 0, 0))]
    leader = _leader(point, box, 0.0)
    through = [sum(piece.covers(shapes) for piece in leader) for shapes in (written, others)]
    return not box.inside(area), box.covers([*markers, *written]), *through, box.covers(drawn)


def _leader(point: Point, box: Box, half: float) -> list[Box]:
    """Pieces of the line from a point to its label, 2 · `half` wide."""
    return [_centred(*place, 2 * half, 2 * half) for place in _along([point, box.centre])]


def _along(line: Sequence[Point]) -> Iterator[Point]:
    """Points of a line, close enough that no label fits between two of them."""
    for (x0, y0), (x1, y1) in pairwise(line):
        pieces = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / (2 * STROKE)))
        for piece in range(pieces + 1):
            yield x0 + (x1 - x0) * piece / pieces, y0 + (y1 - y0) * piece / pieces


def _centred(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
