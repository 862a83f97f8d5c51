"""Names beside the points of a scatter plot, placed so that they cover neither each other nor a point."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

FONT_SIZE = 8.0  # points
CHARACTER = 0.62 * FONT_SIZE  # width of a character, a little generous
REACH = 7.0  # half the side of the square that a marker covers, in points

# Where a label may stand around its point, best place first: direction in x and y, at growing distances.
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (1.0, 2.2, 3.6)


@dataclass(frozen=True)
class Box:
    """A rectangle in points from the axes' lower left corner."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def inside(self, other: "Box") -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    markers: Sequence[tuple[float, float]],
) -> None:
    """Write each name near its point (in data coordinates) and on none of `markers`, all points of the plot.

    Call it when limits and layout of `axes` are final.
    """
    scale = 72 / axes.figure.dpi
    corner = axes.transAxes.transform((0, 0))

    def placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [tuple((axes.transData.transform(point) - corner) * scale) for point in points]

    at = placed(points)
    width, height = (axes.transAxes.transform((1, 1)) - corner) * scale
    sizes = [(len(name) * CHARACTER, 1.2 * FONT_SIZE) for name in names]
    boxes = place_labels(at, sizes, Box(0, 0, width, height), placed(markers))
    for point, name, (x, y), box, colour in zip(points, names, at, boxes, colours, strict=True):
        offset = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
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
            zorder=5,
        )


def place_labels(
    at: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    area: Box,
    markers: Sequence[tuple[float, float]],
) -> list[Box]:
    """A box for each label: the first candidate inside `area` that is free, else the first candidate."""
    taken = [_centred(x, y, 2 * REACH, 2 * REACH) for x, y in markers]
    boxes = []
    for (x, y), (width, height) in zip(at, sizes, strict=True):
        candidates = [
            _centred(x + dx * (reach + width / 2), y + dy * (reach + height / 2), width, height)
            for reach in (REACH * distance for distance in DISTANCES)
            for dx, dy in DIRECTIONS
        ]
        free = (box for box in candidates if box.inside(area) and not any(box.overlaps(other) for other in taken))
        boxes.append(next(free, candidates[0]))
        taken.append(boxes[-1])
    return boxes


def _centred(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
