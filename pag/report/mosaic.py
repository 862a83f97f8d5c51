"""Grids of small pictures as ONE array, so that a figure of hundreds of tiles draws in a moment."""

from dataclasses import dataclass

import matplotlib
import numpy as np

TILE = 64  # pixels a side at least; small images are enlarged by a whole factor, so that every pixel stays square
GAP = 6  # pixels between tiles
FRAME = (0.835, 0.369, 0.0)  # around the tile of an image's own class
OUTLINE = 0.8  # grey of the line around every other tile, which tells a light tile from the page


@dataclass(frozen=True)
class Mosaic:
    """Tiles on white, and where their centres are."""

    pixels: np.ndarray  # (height, width, 3) in [0, 1]
    row_centres: list[float]
    column_centres: list[float]


def mosaic(
    tiles: list[list[np.ndarray]], frames: list[int | None], wide_gap_after: tuple[int, ...] = (), size: int = TILE
) -> Mosaic:
    """Lay out rows of RGB tiles (H, W, 3).

    Args:
        tiles: rows of equally many tiles of one size.
        frames: for each row the column whose tile gets a frame, or None.
        wide_gap_after: columns that are followed by a wider gap.
        size: pixels a side of a tile at least.
    """
    height, width = tiles[0][0].shape[:2]
    factor = max(1, -(-size // max(height, width)))
    height, width = height * factor, width * factor
    lefts = [GAP + column * (width + GAP) for column in range(len(tiles[0]))]
    for column in wide_gap_after:
        lefts = [left + 2 * GAP if index > column else left for index, left in enumerate(lefts)]
    tops = [GAP + row * (height + GAP) for row in range(len(tiles))]
    pixels = np.ones((tops[-1] + height + GAP, lefts[-1] + width + GAP, 3))
    for row, (top, framed) in enumerate(zip(tops, frames, strict=True)):
        for column, left in enumerate(lefts):
            margin, line = (GAP // 2 + 1, FRAME) if column == framed else (1, OUTLINE)
            pixels[top - margin : top + height + margin, left - margin : left + width + margin] = line
            tile = tiles[row][column].repeat(factor, axis=0).repeat(factor, axis=1)
            pixels[top : top + height, left : left + width] = tile
    row_centres = [top + height / 2 - 0.5 for top in tops]
    return Mosaic(pixels, row_centres, [left + width / 2 - 0.5 for left in lefts])


def image_tile(image: np.ndarray) -> np.ndarray:
    """(C, H, W) in [0, 1] → RGB (H, W, 3); grey images stay grey."""
    channels = image if image.shape[0] == 3 else image[:1].repeat(3, axis=0)
    return channels.transpose(1, 2, 0).clip(0, 1).astype(np.float64)


def gradient_tile(gradient: np.ndarray) -> np.ndarray:
    """(C, H, W) of any scale → RGB (H, W, 3): zero in the middle, the 99th percentile of |g| at the ends.

    Grey gradients get a diverging map (blue down, red up); of colour gradients each channel is shown around grey.
    """
    scale = np.quantile(np.abs(gradient), 0.99)
    unit = np.full(gradient.shape, 0.5) if scale == 0 else (0.5 + 0.5 * gradient / scale).clip(0, 1)
    if gradient.shape[0] == 3:
        return unit.transpose(1, 2, 0)
    return matplotlib.colormaps["RdBu_r"](unit[0])[..., :3]
