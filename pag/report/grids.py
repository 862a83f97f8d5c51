"""Figures made of tiles: realisations, targeted attacks of large radius, diffusion samples."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from pag.report.arrays import ClassGrid, Diffusion
from pag.report.legible import BOLD, HEADING, SMALLEST, Head, Layout, above, ems, layout, legible
from pag.report.mosaic import Mosaic, gradient_tile, image_tile, mosaic
from pag.report.style import DPI, house_style, pixel_axes, pixel_figure

MAX_CLASSES = 10  # columns of a grid; a dataset of more classes shows its first ones
MAX_ROWS = 10
NAME_LENGTH = 11  # characters of a class name that fit over a tile
PANEL_WIDTH = 1000  # pixels; wider panels stand below each other, others in pairs
LARGE_TILE = 96  # pixels, of the picture that compares methods

TARGETS = "Columns: target classes. Orange frame: the image's own class."
ROWS = {split: f"Rows: {split} images, by their class. {TARGETS}" for split in ("training", "test")}

Tile = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Panel:
    title: str
    grid: ClassGrid
    rows: list[str] | None = None  # their names; the class names of the inputs without them


def realization_figure(dataset: str, panels: list[Panel]) -> Figure:
    """Gradients towards every class, one panel per realisation (the paper's Figure 7)."""
    title = f"{dataset}: gradients towards each class, per realisation"
    return _panels_figure(title, f"{ROWS['training']} {_shades(panels)}", panels, gradient_tile)


def classifier_gradients_figure(dataset: str, arch: str, panels: list[Panel]) -> Figure:
    """Input gradients of the classifiers, one panel per method (the reference row of the paper's Figure 7)."""
    title = f"{dataset} / {arch}: input gradients of log p(y|x) towards each class"
    return _panels_figure(title, f"{ROWS['test']} {_shades(panels)}", panels, gradient_tile)


def large_eps_figure(dataset: str, arch: str, eps: float, panels: list[Panel]) -> Figure:
    """Test images under a targeted attack towards every class, one panel per method (Figures 1, 2, 5, 6, 9-12)."""
    title = f"{dataset} / {arch}: targeted PGD towards each class, L2 radius {eps:g}"
    return _panels_figure(title, ROWS["test"], panels, image_tile)


def targets_figure(dataset: str, arch: str, eps: float, panels: list[Panel]) -> Figure:
    """Test images beside what each method's classifier makes of them, towards the class after the image's own.

    Two images a row, each with a column per panel; the class is not chosen by what it looks like.
    """
    grid, names = panels[0].grid, _all_names(panels[0].grid)
    assert grid.images is not None and grid.labels is not None
    across = min(2, len(grid.images))
    targets = [(label + 1) % len(names) for label in grid.labels[: across * MAX_ROWS]]
    rows = [
        [image_tile(grid.images[i]), *(image_tile(panel.grid.pictures[i, target]) for panel in panels)]
        for i, target in enumerate(targets)
    ]
    pairs = [(names[label], names[target]) for label, target in zip(grid.labels, targets, strict=False)]
    labels = [line if len(line := f"{a} → {b}") <= NAME_LENGTH else f"{a} →\n{b}" for a, b in pairs]
    high = len(rows) // across
    blocks = [mosaic(rows[i::across][:high], [None] * high, (0,), LARGE_TILE) for i in range(across)]
    height, width = blocks[0].pixels.shape[:2]
    columns = ["input", *(panel.title for panel in panels)]
    plan = layout(width, _pitch(blocks[0]), across, labels, columns)
    cell = plan.side + width + plan.margin
    about = "Left: class → target of the attack. Each test image, and what the attack on each classifier makes of it."
    with house_style(plan.scale):
        head = Head(f"{dataset} / {arch}: targeted PGD, L2 radius {eps:g}", about, across * cell, plan.em)
        top = head.height + plan.names + plan.em
        figure = pixel_figure(across * cell, top + height + plan.margin)
        head.write(figure)
        for index, block in enumerate(blocks):
            axes = pixel_axes(figure, plan.side + index * cell, top, width, height)
            _draw(axes, block, columns, labels[index::across][:high], plan)
        return figure


def noise_level_figure(dataset: str, panels: list[Panel]) -> Figure:
    """SBG towards every class over the noise levels, one panel per image (the paper's Figure 8)."""
    levels = "Rows: noise levels (ᾱ: the share of the image, t: the step of the model)"
    about = f"{levels}; the first column is the noisy image. {TARGETS} {_shades(panels)}"
    return _panels_figure(f"{dataset}: score-based gradients over noise levels", about, panels, gradient_tile)


def diffusion_figure(dataset: str, diffusion: Diffusion) -> Figure:
    """Training loss, and samples (or one-step denoising) of the trained network."""
    picture = _mosaic(diffusion.samples, image_tile)
    height, width = picture.pixels.shape[:2]
    title = f"{diffusion.kind.capitalize()}, a column per class"
    alternating = [("noisy", "denoised")[row % 2] for row in range(len(picture.row_centres))]
    rows = alternating if diffusion.kind == "one-step denoising" else []
    columns = _shown_names(diffusion.samples)
    plot_width, plot_height, left, between, right = 480, max(height, 220), 6.0, 8.0, 1.4  # pixels, and ems
    words, heading = left + between + right, HEADING * BOLD * ems(title)
    em = max(legible(plot_width + width, words), legible(plot_width, words + heading))
    plan = Layout(em, between * em, *above(em, _pitch(picture), columns))
    total = plot_width + max(width, em * heading) + em * words  # a title may be wider than a few classes
    with house_style(plan.scale):
        head = Head(f"{dataset}: diffusion model", "", total, em)
        top = head.height + plan.heading
        figure = pixel_figure(total, top + plot_height + 5.4 * em)
        head.write(figure)
        higher = plan.names - em / 2
        axes = pixel_axes(figure, left * em, top - higher, plot_width, plot_height + higher)
        _loss(axes, diffusion)
        axes.set_title("Training loss", pad=em / 2 * 72 / DPI)
        axes = pixel_axes(figure, (left + between) * em + plot_width, top, width, height)
        _draw(axes, picture, columns, rows, plan)
        axes.set_title(title, pad=plan.names * 72 / DPI)
        return figure


def _loss(axes: Axes, diffusion: Diffusion) -> None:
    axes.plot(diffusion.steps, diffusion.loss, color="#BBBBBB", linewidth=0.8, label="recorded")
    axes.plot(*_running_mean(diffusion.steps, diffusion.loss), color="#0072B2", linewidth=1.6, label="running mean")
    axes.set(xlabel="training step", ylabel="loss (logarithmic)", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    if diffusion.loss.max() > 5 * diffusion.loss.min():  # labels of all nine would lie on each other
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))  # more of these numbers would touch each other
    axes.legend(loc="upper right")


def _shades(panels: list[Panel]) -> str:
    """What the colours of gradients mean."""
    grey = panels[0].grid.pictures.shape[2] == 1
    meaning = (
        "blue darker, red brighter, white no change"
        if grey
        else "grey is no change, darker is less of a channel, brighter more"
    )
    return f"Each tile is scaled by itself: {meaning}."


def _panels_figure(title: str, about: str, panels: list[Panel], tile: Tile) -> Figure:
    pictures = [_mosaic(panel.grid, tile) for panel in panels]
    height = max(picture.pixels.shape[0] for picture in pictures)
    width = max(picture.pixels.shape[1] for picture in pictures)
    across = 1 if width > PANEL_WIDTH else min(2, len(panels))
    columns = [["input", *_shown_names(panel.grid)] for panel in panels]
    rows = [_row_names(panel) for panel in panels]
    plan = layout(width, _pitch(pictures[0]), across, chain(*rows), chain(*columns))
    titled = max(width, *(HEADING * BOLD * plan.em * ems(panel.title) for panel in panels))
    cell_width, cell_height = plan.side + titled + plan.margin, plan.heading + height + plan.margin
    with house_style(plan.scale):
        head = Head(title, about, across * cell_width, plan.em)
        figure = pixel_figure(across * cell_width, head.height + -(-len(panels) // across) * cell_height)
        head.write(figure)
        for index, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
            row, column = divmod(index, across)
            left, top = column * cell_width + plan.side, head.height + row * cell_height + plan.heading
            axes = pixel_axes(figure, left, top, picture.pixels.shape[1], picture.pixels.shape[0])
            _draw(axes, picture, columns[index], rows[index], plan)
            axes.set_title(panel.title, pad=plan.names * 72 / DPI, parse_math=False)
        return figure


def _row_names(panel: Panel) -> list[str]:
    names = _all_names(panel.grid)
    labels = [] if panel.grid.labels is None else [names[label] for label in panel.grid.labels[:MAX_ROWS]]
    return panel.rows or labels


def _pitch(picture: Mosaic) -> float:
    """Pixels from one column to the next."""
    return min((right - left for left, right in pairwise(picture.column_centres)), default=np.inf)


def _mosaic(grid: ClassGrid, tile: Tile) -> Mosaic:
    """Rows of pictures, after the input where there is one; the frame marks the input's own class."""
    pictures = grid.pictures[:MAX_ROWS, :MAX_CLASSES]
    rows = [[tile(picture) for picture in row] for row in pictures]
    if grid.images is None or grid.labels is None:
        return mosaic(rows, [None] * len(rows))
    rows = [[image_tile(image), *row] for image, row in zip(grid.images, rows, strict=False)]
    frames = [int(label) + 1 if label < pictures.shape[1] else None for label in grid.labels[: len(rows)]]
    return mosaic(rows, frames, wide_gap_after=(0,))


def _draw(axes: Axes, picture: Mosaic, columns: list[str], rows: list[str], plan: Layout) -> None:
    axes.imshow(picture.pixels, interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    # Without parse_math, as a '$' in the name of a class is a dollar.
    look: dict[str, Any] = {"fontsize": SMALLEST * plan.scale, "parse_math": False}
    axes.set_xticks(picture.column_centres, columns, rotation=90 if plan.upright else 0, **look)
    axes.set_yticks(picture.row_centres if rows else [], rows, **look)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False, pad=2)


def _shown_names(grid: ClassGrid) -> list[str]:
    return _all_names(grid)[:MAX_CLASSES]


def _all_names(grid: ClassGrid) -> list[str]:
    return [n if len(n) <= NAME_LENGTH else f"{n[: NAME_LENGTH - 1]}…" for n in grid.class_names]


def _running_mean(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a twentieth of the curve, and the steps in the middle of each: none where less is to be had."""
    window = np.ones(max(1, len(values) // 20)) / max(1, len(values) // 20)
    return np.convolve(steps, window, "valid"), np.convolve(values, window, "valid")
