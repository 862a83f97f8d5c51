"""Figures made of tiles: realisations, targeted attacks of large radius, diffusion samples."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pag.report.arrays import ClassGrid, Diffusion
from pag.report.mosaic import Mosaic, gradient_tile, image_tile, mosaic
from pag.report.style import house_style, pixel_axes, pixel_figure

MAX_CLASSES = 10  # columns of a grid; a dataset of more classes shows its first ones
MAX_ROWS = 10
NAME_LENGTH = 11  # characters of a class name that fit over a tile
PANEL_WIDTH = 1000  # pixels; wider panels stand below each other, others in pairs
LARGE_TILE = 96  # pixels, of the picture that compares methods
SIDE, TITLE, MARGIN, SUPTITLE = 84, 44, 16, 40  # pixels left of a panel, above it, between panels, above all
ABOUT, CHARACTER = 16, 6.4  # pixels of a line that says what is what, and of a character in it, at most

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
    with house_style():
        blocks = [mosaic(rows[i::across][:high], [None] * high, (0,), LARGE_TILE) for i in range(across)]
        height, width = blocks[0].pixels.shape[:2]
        about = _about("Each image beside what the attack makes of it: class → target.", across * (SIDE + width))
        top = SUPTITLE + ABOUT * len(about) + TITLE
        figure = pixel_figure(across * (SIDE + width) + MARGIN, top + height + MARGIN)
        _suptitle(figure, f"{dataset} / {arch}: targeted PGD, L2 radius {eps:g}", about)
        for index, block in enumerate(blocks):
            axes = pixel_axes(figure, SIDE + index * (SIDE + width), top, width, height)
            _draw(axes, block, ["input", *(panel.title for panel in panels)], labels[index::across][:high])
        return figure


def noise_level_figure(dataset: str, panels: list[Panel]) -> Figure:
    """SBG towards every class over the noise levels, one panel per image (the paper's Figure 8)."""
    about = f"Rows: noise levels; the first column is the noisy image. {TARGETS} {_shades(panels)}"
    return _panels_figure(f"{dataset}: score-based gradients over noise levels", about, panels, gradient_tile)


def diffusion_figure(dataset: str, diffusion: Diffusion) -> Figure:
    """Training loss, and samples (or one-step denoising) of the trained network."""
    with house_style():
        picture = _mosaic(diffusion.samples, image_tile)
        height, width = picture.pixels.shape[:2]
        plot_width, plot_height, left = 480, max(height, 220), 80
        titled = max(width, 300)  # the title may be wider than the picture of a few classes
        figure = pixel_figure(left + plot_width + 90 + titled + MARGIN, SUPTITLE + TITLE + plot_height + 60)
        _suptitle(figure, f"{dataset}: diffusion model", [])
        axes = pixel_axes(figure, left, SUPTITLE + TITLE, plot_width, plot_height)
        axes.plot(diffusion.steps, diffusion.loss, color="#BBBBBB", linewidth=0.8, label="recorded")
        axes.plot(*_running_mean(diffusion.steps, diffusion.loss), color="#0072B2", linewidth=1.6, label="running mean")
        axes.set(xlabel="training step", ylabel="loss (logarithmic)", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        if diffusion.loss.max() > 5 * diffusion.loss.min():  # labels of all nine would lie on each other
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.set_title("Training loss", pad=22)
        axes.legend(loc="upper right")
        axes = pixel_axes(figure, left + plot_width + 90, SUPTITLE + TITLE, width, height)
        alternating = [("noisy", "denoised")[row % 2] for row in range(len(picture.row_centres))]
        rows = alternating if diffusion.kind == "one-step denoising" else None
        _draw(axes, picture, _shown_names(diffusion.samples), rows)
        axes.set_title(f"{diffusion.kind.capitalize()}, a column per class", pad=22)
        return figure


def _shades(panels: list[Panel]) -> str:
    """What the colours of gradients mean."""
    grey = panels[0].grid.pictures.shape[2] == 1
    meaning = "blue darker, red brighter" if grey else "grey is no change, darker is less of a channel, brighter more"
    return f"Each tile is scaled by itself: {meaning}."


def _panels_figure(title: str, about: str, panels: list[Panel], tile: Tile) -> Figure:
    with house_style():
        pictures = [_mosaic(panel.grid, tile) for panel in panels]
        height = max(picture.pixels.shape[0] for picture in pictures)
        width = max(picture.pixels.shape[1] for picture in pictures)
        columns = 1 if width > PANEL_WIDTH else min(2, len(panels))
        rows = -(-len(panels) // columns)
        cell_width, cell_height = SIDE + width + MARGIN, TITLE + height + MARGIN
        lines = _about(about, columns * cell_width)
        head = SUPTITLE + ABOUT * len(lines) + MARGIN
        figure = pixel_figure(columns * cell_width, head + rows * cell_height)
        _suptitle(figure, title, lines)
        for index, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
            row, column = divmod(index, columns)
            left, top = column * cell_width + SIDE, head + row * cell_height + TITLE
            axes = pixel_axes(figure, left, top, picture.pixels.shape[1], picture.pixels.shape[0])
            grid = panel.grid
            names = _all_names(grid)
            labels = [names[label] for label in grid.labels[:MAX_ROWS]] if grid.labels is not None else None
            _draw(axes, picture, ["input", *_shown_names(grid)], panel.rows or labels)
            axes.set_title(panel.title, pad=22)
        return figure


def _mosaic(grid: ClassGrid, tile: Tile) -> Mosaic:
    """Rows of pictures, after the input where there is one; the frame marks the input's own class."""
    pictures = grid.pictures[:MAX_ROWS, :MAX_CLASSES]
    rows = [[tile(picture) for picture in row] for row in pictures]
    if grid.images is None or grid.labels is None:
        return mosaic(rows, [None] * len(rows))
    rows = [[image_tile(image), *row] for image, row in zip(grid.images, rows, strict=False)]
    frames = [int(label) + 1 if label < pictures.shape[1] else None for label in grid.labels[: len(rows)]]
    return mosaic(rows, frames, wide_gap_after=(0,))


def _draw(axes: Axes, picture: Mosaic, columns: list[str], rows: list[str] | None) -> None:
    axes.imshow(picture.pixels, interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    # Without parse_math, as a '$' in the name of a class is a dollar.
    axes.set_xticks(picture.column_centres, columns, fontsize=8, parse_math=False)
    axes.set_yticks(picture.row_centres if rows else [], rows or [], fontsize=8, parse_math=False)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False, pad=2)


def _about(text: str, width: float) -> list[str]:
    """Lines that fit the width of a figure in pixels."""
    return wrap(text, int((width - 2 * MARGIN) / CHARACTER))


def _suptitle(figure: Figure, title: str, about: list[str]) -> None:
    height = figure.get_size_inches()[1] * figure.dpi
    figure.text(0.012, 1 - 12 / height, title, fontsize=12, fontweight="bold", va="top")
    for line, text in enumerate(about):
        figure.text(0.012, 1 - (SUPTITLE + ABOUT * line) / height, text, fontsize=8, va="top")


def _shown_names(grid: ClassGrid) -> list[str]:
    return _all_names(grid)[:MAX_CLASSES]


def _all_names(grid: ClassGrid) -> list[str]:
    return [n if len(n) <= NAME_LENGTH else f"{n[: NAME_LENGTH - 1]}…" for n in grid.class_names]


def _running_mean(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a twentieth of the curve, and the steps in the middle of each: none where less is to be had."""
    window = np.ones(max(1, len(values) // 20)) / max(1, len(values) // 20)
    return np.convolve(steps, window, "valid"), np.convolve(values, window, "valid")
