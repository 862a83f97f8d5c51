"""Figures: the panels that are expected, square pixels, gradients around zero, labels that do not collide."""

from typing import get_args

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pag.foundation.artifacts import ArtifactError, save_arrays
from pag.foundation.config.section import Baseline, Realization
from pag.report import arrays, style
from pag.report.curves import curves_figure, with_curves
from pag.report.figures import illustrations
from pag.report.formats import METHOD_NAMES
from pag.report.grids import Panel, diffusion_figure, realization_figure, targets_figure
from pag.report.labels import Box, place_labels
from pag.report.mosaic import GAP, TILE, gradient_tile, image_tile, mosaic
from pag.report.results import read_results
from pag.report.style import COLOURS, colour, contrast, ink, marker


def test_every_figure_has_its_panels(experiment):
    params, confs = experiment.load()
    results = read_results(params, confs, experiment.folder)
    drawn = {item.name: item.figure for item in illustrations(params, results, experiment.folder)}
    panels = {name: [axes.get_title(loc="left") for axes in figure.axes] for name, figure in drawn.items()}
    methods = ["Vanilla", "AT-L2", "AT-L∞", "OI", "CM", "NN", "SBG", "AT-L2+SBG"]
    assert panels["digits-cnn-large-eps"] == panels["digits-cnn-gradients"] == methods
    assert [title.split(":")[0] for title in panels["digits-realizations"]] == ["OI", "CM", "NN", "SBG"]
    assert panels["toy"] == ["Vanilla", "NN alignment"]
    assert panels["digits-diffusion"] == ["Training loss", "One-step denoising, a column per class"]
    assert panels["digits-alignment"] == ["digits / cnn, L2 radius 0.5", "digits / cnn, L∞ radius 0.1"]
    axes = drawn["digits-alignment"].axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(methods)
    for name, rows in (("digits-realizations", "Rows: training images"), ("digits-cnn-gradients", "Rows: test images")):
        words = " ".join(text.get_text() for text in drawn[name].texts)
        for what in (rows, "Columns: target classes", "Orange frame: the image's own class", "blue darker"):
            assert what in words
    assert "predicted classes" in drawn["toy"].get_suptitle()
    grid = drawn["digits-realizations"].axes[0]
    assert [tick.get_text() for tick in grid.get_xticklabels()] == ["input", *map(str, range(10))]
    assert [tick.get_text() for tick in grid.get_yticklabels()] == ["0", "1", "2"]


def test_colours_mean_what_they_mean_in_colour_images():
    grid = arrays.ClassGrid(np.zeros((2, 3, 8, 8)), np.arange(2), np.zeros((2, 2, 3, 8, 8)), ("a", "b"))
    words = " ".join(text.get_text() for text in realization_figure("photos", [Panel("SBG", grid)]).texts)
    assert "grey is no change" in " ".join(words.split()) and "blue" not in words


@pytest.mark.parametrize(("kind", "rows"), [("samples", []), ("one-step denoising", ["noisy", "denoised"])])
def test_rows_of_one_step_denoising_say_which_is_which(kind, rows):
    samples = arrays.ClassGrid(None, None, np.zeros((2, 3, 1, 8, 8)), ("a", "b", "c"))
    figure = diffusion_figure("digits", arrays.Diffusion(np.arange(40), np.ones(40), samples, kind))
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == rows


def test_a_method_without_alignment_is_left_out_of_the_scatter(experiment):
    experiment.change("oi", alignment=None)
    params, confs = experiment.load()
    results = read_results(params, confs, experiment.folder)
    figure = next(i.figure for i in illustrations(params, results, experiment.folder) if i.name == "digits-alignment")
    assert "OI" not in [text.get_text() for text in figure.axes[0].texts]


def test_nothing_that_is_written_is_cut_off(experiment):
    params, confs = experiment.load()
    results = read_results(params, confs, experiment.folder)
    for item in illustrations(params, results, experiment.folder):
        drawn, (width, height) = item.figure.get_tightbbox(), item.figure.get_size_inches()
        inside = min(drawn.x0, drawn.y0) >= 0 and drawn.x1 <= width and drawn.y1 <= height
        assert inside, (item.name, drawn)


def test_mosaic_keeps_pixels_square_and_frames_one_tile():
    tile = np.zeros((8, 8, 3))
    tile[0, 0] = 1
    picture = mosaic([[tile, tile]], frames=[1])
    assert picture.pixels.shape == (TILE + 2 * GAP, 2 * TILE + 3 * GAP, 3)
    factor = TILE // 8
    corner = picture.pixels[GAP : GAP + factor, GAP : GAP + factor]
    assert (corner == 1).all()  # one pixel of the image became a square of factor × factor
    assert picture.column_centres == [GAP + TILE / 2 - 0.5, 2 * GAP + 1.5 * TILE - 0.5]
    left = 2 * GAP + TILE
    assert tuple(picture.pixels[GAP - 2, left + 5]) == pytest.approx((0.835, 0.369, 0.0))
    assert tuple(picture.pixels[GAP - 2, GAP + 5]) == (1, 1, 1)


def test_grey_image_is_grey_and_colour_image_keeps_its_channels():
    grey = image_tile(np.full((1, 2, 2), 0.3))
    assert grey.shape == (2, 2, 3)
    assert np.allclose(grey, 0.3)
    colours = np.stack([np.full((2, 2), value) for value in (0.1, 0.5, 0.9)])
    assert image_tile(colours)[0, 0] == pytest.approx([0.1, 0.5, 0.9])


def test_gradient_tile_is_symmetric_around_zero_and_ignores_scale():
    gradient = np.linspace(-1, 1, 75).reshape(3, 5, 5)
    tile = gradient_tile(gradient)
    assert np.allclose(tile + gradient_tile(-gradient), 1)
    assert np.allclose(tile, gradient_tile(1000 * gradient))
    assert np.allclose(gradient_tile(np.zeros((3, 4, 4))), 0.5)
    up, down = gradient_tile(np.ones((1, 2, 2)))[0, 0], gradient_tile(-np.ones((1, 2, 2)))[0, 0]
    assert up[0] > up[2]  # red
    assert down[2] > down[0]  # blue


def test_labels_cover_neither_each_other_nor_the_points():
    at = [(50.0, 50.0), (54.0, 52.0), (58.0, 50.0), (195.0, 50.0)]
    boxes = place_labels(at, [(40.0, 10.0)] * 4, Box(0, 0, 200, 200), at)
    for index, box in enumerate(boxes):
        assert box.inside(Box(0, 0, 200, 200))
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.left < x < box.right and box.bottom < y < box.top for x, y in at)
    assert boxes[3].right < 195  # at the right edge the label stands on the left


def test_a_label_stands_off_the_lines_where_it_can():
    area, at, size = Box(0, 0, 200, 200), [(100.0, 100.0)], [(40.0, 10.0)]
    (free,) = place_labels(at, size, area, at)
    line = [(x, 100.0) for x in range(100, 150, 3)]  # to the right, where the label would stand
    (beside,) = place_labels(at, size, area, at, line)
    assert any(free.left < x < free.right and free.bottom < y < free.top for x, y in line)
    assert not any(beside.left < x < beside.right and beside.bottom < y < beside.top for x, y in line)


def test_no_label_stands_between_another_and_its_point():
    strip = Box(0, 0, 200, 20)  # too low for labels above or below a point
    at = [(50.0, 10.0), (42.0, 10.0)]  # near the second one there is no room, further off on both sides
    first, second = place_labels(at, [(10.0, 10.0)] * 2, strip, [*at, (30.0, 10.0)])
    assert first.left > 50
    assert second.right < 42


def test_no_label_stands_on_the_leader_of_another():
    random = np.random.default_rng(0)
    for _ in range(20):
        at = [tuple(point) for point in random.uniform(80, 120, (6, 2))]
        boxes = place_labels(at, [(40.0, 10.0)] * 6, Box(0, 0, 200, 200), at)
        for index, ((x, y), box) in enumerate(zip(at, boxes, strict=True)):
            leader = np.linspace((x, y), box.centre, 50)
            for other in boxes[:index] + boxes[index + 1 :]:
                across = (leader[:, 0] > other.left) & (leader[:, 0] < other.right)
                assert not (across & (leader[:, 1] > other.bottom) & (leader[:, 1] < other.top)).any()


def test_every_method_has_a_name_and_a_colour_of_its_own() -> None:
    """Or it would be drawn as a network of others."""
    known = {*get_args(Baseline), *get_args(Realization)}
    assert known == set(COLOURS) == set(METHOD_NAMES)


@pytest.mark.parametrize("method", COLOURS)
def test_labels_can_be_read(method):
    """WCAG 2 asks for 4.5; #767676 is the lightest grey that has it."""
    assert contrast((0x76 / 255,) * 3) == pytest.approx(4.54, abs=0.01)
    assert contrast(to_rgb(ink(method))) >= 4.5


def test_methods_differ_in_colour_or_marker():
    looks = {(colour(method), marker(method)) for method in [*COLOURS, "at-l2+sbg", "trades-linf+sbg"]}
    assert len(looks) == len(COLOURS) + 2
    assert len({colour(method) for method in COLOURS}) == len(COLOURS)


def test_the_picture_of_targets_shows_the_class_after_the_images_own():
    pictures = np.zeros((5, 3, 1, 4, 4))
    pictures[range(5), [1, 2, 0, 1, 2]] = np.linspace(0.1, 0.9, 5)[:, None, None, None]
    grid = arrays.ClassGrid(np.ones((5, 1, 4, 4)), np.array([0, 1, 2, 0, 1]), pictures, ("a", "b", "long name"))
    figure = targets_figure("digits", "cnn", 3.0, [Panel("Vanilla", grid), Panel("SBG", grid)])
    left, right = figure.axes  # two images a row, so the fifth is left out
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["input", "Vanilla", "SBG"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a → b", "long name →\na"]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["b →\nlong name", "a → b"]
    shown = right.images[0].get_array()[:, :, 0]
    centres = [int(y) for y in right.get_yticks()], [int(x) for x in right.get_xticks()]
    values = shown[np.ix_(*centres)].ravel().tolist()
    assert values == pytest.approx([1, 0.3, 0.3, 1, 0.7, 0.7])


def test_curves_start_at_the_clean_accuracy_and_fall_where_images_break(experiment):
    never = np.inf
    radius = {"L2": np.array([0, 0.5, 1.0, never]), "Linf": np.array([0, 0.1, 0.2, never])}
    curve = {"curve_eps_L2": np.array([0.25, 0.5]), "curve_radius_L2": np.array([0, 0.25, 0.5, never])}
    experiment.write_outcomes("sbg", radius, np.ones(10, bool), **curve)
    params, confs = experiment.load()
    results = read_results(params, confs, experiment.folder)
    drawn = {item.name: item.figure for item in illustrations(params, results, experiment.folder)}
    (axes,) = drawn["digits-cnn-curves"].axes
    (line,) = axes.lines
    assert line.get_label() == "SBG"
    assert line.get_xydata().tolist() == [[0, 75], [0.25, 50], [0.5, 25]]


def test_radii_in_grey_levels_have_whole_numbers_below_them(experiment):
    curve = {"curve_eps_Linf": np.array([4, 20]) / 255, "curve_radius_Linf": np.array([0, 5 / 255, 0.1, np.inf])}
    radius = {norm: np.array([0, 0.5, 1.0, np.inf]) for norm in ("L2", "Linf")}
    experiment.write_outcomes("sbg", radius, np.ones(10, bool), **curve)
    params, confs = experiment.load()
    runs = with_curves(read_results(params, confs, experiment.folder).runs)
    figure = curves_figure("digits", "cnn", runs)
    figure.draw_without_rendering()  # as the numbers depend on the room for them
    (axes,) = figure.axes
    assert axes.get_xlabel() == "L∞ radius ε (1/255)"
    ticks = axes.get_xticks()
    assert ticks.tolist() == ticks.round().tolist() and {0, 4, 8, 12, 16, 20} <= set(ticks)


def test_combined_methods_share_the_colour_of_their_robust_part():
    assert colour("at-l2+sbg") == colour("at-l2")
    assert len({marker(method) for method in ("vanilla", "sbg", "at-l2", "at-l2+sbg")}) == 4


def save(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(path, content)
    return path


def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path):
    images, labels = np.zeros((2, 1, 8, 8)), np.zeros(2, int)
    gradients = np.zeros((2, 3, 1, 8, 8))
    path = save(tmp_path / "short.npz", images=images, labels=labels)
    with pytest.raises(ArtifactError, match=r"needs an array 'gradients' of 5 axes, it has only images, labels"):
        arrays.read_gradients(path)
    path = save(tmp_path / "flat.npz", images=images, labels=labels, gradients=gradients[:, :, 0])
    with pytest.raises(ArtifactError, match=r"'gradients' of 5 axes, it has one of 4 axes"):
        arrays.read_gradients(path)
    path = save(tmp_path / "rows.npz", images=images, labels=labels, gradients=gradients[:1])
    with pytest.raises(ArtifactError, match=r"does not fit together: images \(2, 1, 8, 8\)"):
        arrays.read_gradients(path)
    names = np.array(["cat", "dog"])
    path = save(tmp_path / "names.npz", images=images, labels=labels, gradients=gradients, class_names=names)
    with pytest.raises(ArtifactError, match=r"has 2 class_names for 3 pictures per image"):
        arrays.read_gradients(path)


def test_class_indices_stand_in_for_names(tmp_path):
    content = {"images": np.zeros((2, 1, 8, 8)), "labels": np.zeros(2, int), "gradients": np.zeros((2, 3, 1, 8, 8))}
    assert arrays.read_gradients(save(tmp_path / "a.npz", **content)).class_names == ("0", "1", "2")


@pytest.mark.filterwarnings("ignore:Glyph")  # a font has not every character of the world; a box stands for it
def test_class_names_are_no_formulas(tmp_path):
    names = ("a_b$^$", "犬 🐕", "$5 or $6")
    samples = arrays.ClassGrid(None, None, np.zeros((2, 3, 1, 8, 8)), names)
    figure = diffusion_figure("digits", arrays.Diffusion(np.arange(40), np.ones(40), samples, "samples"))
    style.save(figure, tmp_path / "drawn.png")
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == list(names)
