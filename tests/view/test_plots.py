"""Figures: what they show, printed numbers, missing data, no global state."""

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from napari_mosaik.core import InputError, Lattice, Raster, Table, TileGrid
from napari_mosaik.view import plots, spatial_plots
from napari_mosaik.view.board import board_maps
from napari_mosaik.view.figure import as_png, fit_axis_labels, paint
from napari_mosaik.view.report import figures as panels
from napari_mosaik.view.tile_data import TileData

RNG = np.random.default_rng(0)
MEASURED = RNG.normal(3, 1, 80)
PREDICTED = 1 + 0.6 * MEASURED + RNG.normal(0, 0.3, 80)


def words(figure):
    return "\n".join(t.get_text() for t in figure.findobj(Text) if isinstance(t, Text))


def small_grid():
    lattice = Lattice("cd34", (5, 6), (300.0, 300.0))
    kept = np.arange(3, 28)
    return TileGrid(lattice, 400.0, kept, np.ones(25), np.ones(25, bool))


def map_raster(scale=1.0):
    values = np.arange(30.0).reshape(5, 6) * scale
    values[0, :3] = np.nan
    return Raster(values, small_grid().lattice, "cm²/mL")


def trio_of(grid):
    """Measured, predicted, difference; one tile is beyond the training range."""
    values = np.arange(25.0)
    table = Table({"suv": 0.8 * values, "out_of_range": values == 3}, {"suv": "cm²/mL"})
    uptake = Table({"suv": values}, {"suv": "cm²/mL"})
    maps = board_maps(TileData(grid, uptake=uptake, prediction=table))
    return panels.board_panels(maps.values(), grid)


def all_figures():
    grid = small_grid()
    nothing = np.full(4, np.nan)
    matrix = np.array([[0.5, np.nan], [-0.9, 0.1]])
    trio = trio_of(grid)
    cluster = panels.cluster_panel(grid, np.arange(25) % 6, "caix_score")
    mask = panels.picture_panel("mask", np.eye(5, 6).astype(bool), grid.lattice)
    return [
        plots.scatter_figure(MEASURED, PREDICTED, "cm²/mL", selected=2),
        plots.scatter_figure(nothing, nothing),
        plots.bland_altman_figure(MEASURED, PREDICTED, selected=2),
        plots.bland_altman_figure(nothing, nothing),
        plots.calibration_figure(MEASURED, PREDICTED, "cm²/mL"),
        plots.calibration_figure(nothing, nothing),
        plots.kinetics_figure([0, 1, 72], {"free": [1, 0.1, 0], "bound": [0, 1, 2]}, [72.0]),
        plots.kinetics_figure([0, 1], {"free": [0, 0]}),
        spatial_plots.correlation_figure(matrix, ["caix_score", "mvd"], ["A2", "B11"]),
        spatial_plots.mean_correlation_figure(["a", "b"], [0.1, np.nan], [0.2, 0.3]),
        plots.training_figure({"training": [[1, 0.5]], "validation": [[1, np.nan]]}, 2),
        plots.training_figure({}),
        plots.error_by_group_figure({"hot": [1, 2], "cold": nothing}, "cm²/mL"),
        plots.error_by_group_figure({"hot": nothing}),
        plots.coverage_figure(["all", "low"], {"tile": [0.9, np.nan], "block": [1, 1]}),
        plots.coverage_figure(["all"], {"tile": [np.nan]}),
        plots.error_by_distance_figure(MEASURED, PREDICTED - MEASURED, "g/mL", selected=1),
        plots.error_by_distance_figure(nothing, nothing),
        panels.panels_figure([*trio, cluster, panels.missing_panel("width", "no interval")]),
        panels.result_board("B11", tissue=mask, parameters=[(trio[0], cluster)]),
    ]


def test_no_figure_says_nan_or_none_and_each_is_a_picture():
    for figure in all_figures():
        text = words(figure)
        assert "nan" not in text.lower()
        assert "None" not in text
        assert as_png(figure, 40).startswith(b"\x89PNG")


def test_nothing_global_is_touched():
    import matplotlib.pyplot as plt

    before = (plt.get_fignums(), dict(matplotlib.rcParams))
    all_figures()
    assert (plt.get_fignums(), dict(matplotlib.rcParams)) == before


def test_the_same_figure_gives_the_same_bytes():
    first, second = (plots.scatter_figure(MEASURED, PREDICTED) for _ in range(2))
    assert as_png(first) == as_png(second)


def test_the_printed_regression_is_that_of_scipy():
    gap = MEASURED.copy()
    gap[5] = np.nan
    fit = stats.linregress(np.delete(MEASURED, 5), np.delete(PREDICTED, 5))
    text = words(plots.scatter_figure(gap, PREDICTED))
    assert f"slope {fit.slope:.3f}, r {fit.rvalue:.3f}, n 79" in text


def test_bland_altman_by_hand():
    # differences 1, 2, 3: bias 2, SD 1 (divisor n - 1)
    figure = plots.bland_altman_figure([0, 0, 0], [1, 2, 3])
    assert "bias 2.00" in words(figure)
    assert "± 1.96" in words(figure)
    levels = sorted({float(line.get_ydata()[0]) for line in figure.axes[0].lines})
    assert levels == pytest.approx([0.0, 0.04, 2.0, 3.96])


def test_the_calibration_has_the_means_of_groups_of_equally_many_tiles():
    predicted = np.arange(20.0)[::-1]
    measured = 2 * predicted + np.tile([-1.0, 1.0], 10)
    measured[4] = np.nan
    axes = plots.calibration_figure(measured, predicted, groups=3).axes[0]
    (points,) = axes.containers
    known = np.isfinite(measured)
    order = np.argsort(predicted[known])
    parts = [measured[known][order][rows] for rows in (slice(0, 7), slice(7, 13), slice(13, 19))]
    np.testing.assert_allclose(
        np.asarray(points.lines[0].get_ydata(), float), [p.mean() for p in parts]
    )
    ends = points.lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(end[:, 1]) / 2 for end in ends], [p.std() for p in parts])
    assert "identity" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_heat_map_prints_which_colour_is_positive():
    matrix = np.array([[0.5, np.nan]])
    figure = spatial_plots.correlation_figure(
        matrix, ["equivalent_diameter_um"], ["A2", "B11"], "Spearman correlation"
    )
    text = words(figure)
    assert "red positive" in text
    assert "Spearman" in text
    assert "equivalent diameter" in text
    image = figure.axes[0].images[1]
    red, _, blue, _ = image.cmap(image.norm(0.9))
    assert red > blue
    with pytest.raises(InputError, match="2 parameters"):
        spatial_plots.correlation_figure(matrix, ["a", "b"], ["A2"])


def test_time_is_logarithmic_only_where_it_spans_decades():
    short = plots.kinetics_figure(np.linspace(0, 336, 48), {"bound": np.linspace(1, 2, 48)})
    long = plots.kinetics_figure(np.geomspace(1e-4, 336, 48), {"bound": np.linspace(1, 2, 48)})
    assert short.axes[0].get_xscale() == "linear"
    assert long.axes[0].get_xscale() == "log"


def test_the_two_axes_of_the_mean_correlations_can_be_compared():
    figure = spatial_plots.mean_correlation_figure(["a", "b"], [0.1, -0.4], [0.2, 0.3])
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()


def test_measured_and_predicted_maps_share_a_scale_and_the_difference_is_centred():
    measured, predicted, difference = trio_of(small_grid())
    assert measured.limits == predicted.limits
    assert difference.limits[0] == -difference.limits[1]
    assert [len(panel.lines_um) for panel in (measured, predicted)] == [0, 3]


def test_maps_lie_where_their_lattice_says_and_rows_run_down():
    figure = panels.panels_figure([panels.map_panel(map_raster(), "uptake")])
    image = figure.axes[0].images[0]
    assert image.get_extent() == [0.0, 1800.0, 1500.0, 0.0]
    assert "1 mm" in words(figure) or "µm" in words(figure)


def test_paint_reaches_every_word():
    figure = plots.scatter_figure(MEASURED, PREDICTED, title="B11")
    paint(figure, "#dddddd", "#222222")
    axes = figure.axes[0]
    texts = [axes.title, axes.xaxis.label, *axes.get_legend().get_texts()]
    assert {t.get_color() for t in texts} == {"#dddddd"}


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="pairs"):
        plots.scatter_figure([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="channel"):
        panels.map_panel(
            Raster(np.zeros((5, 6, 2)), small_grid().lattice, channels=("a", "b")), "x"
        )


def _crowded():
    """Figures with long names and many cases, parameters and groups."""
    names = ["vessel_equivalent_diameter_um", "nucleus_difference_entropy_bits", "caix_h_score"]
    many, cases = names * 9, [f"2024-patient-{i}" for i in range(6)]
    groups = ("mostly neoplastic", "mostly non-neoplastic", "not classified", "not testable", "hot")
    matrix = RNG.uniform(-1, 1, (27, 6))
    return [
        spatial_plots.correlation_figure(matrix[:, :2], many, ["Pearson", "Spearman"]),
        spatial_plots.correlation_figure(matrix, many, cases),
        spatial_plots.correlation_figure(matrix, many, cases, narrow=True),
        spatial_plots.mean_correlation_figure(many, matrix[:, 0], matrix[:, 1]),
        spatial_plots.mean_correlation_figure(many, matrix[:, 0], matrix[:, 1], narrow=True),
        plots.error_by_group_figure({name: [1.0, 2.0] for name in groups}, "cm²/mL"),
        plots.error_by_group_figure({name: [1.0, 2.0] for name in groups[:3]}, "cm²/mL"),
        plots.scatter_figure(1e5 * MEASURED, 1e5 * PREDICTED),
    ]


@pytest.mark.parametrize("figure", [*all_figures(), *_crowded()])
def test_no_two_tick_labels_overlap(figure):
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = axis.get_ticklabels() if axis.get_visible() else ()
            labels = [label for label in shown if label.get_text()]
            turned = any(label.get_rotation() not in (0, 90) for label in labels)
            boxes = [] if turned else [label.get_window_extent() for label in labels]
            for i, one in enumerate(boxes):
                for other in boxes[i + 1 :]:
                    across = min(one.x1, other.x1) - max(one.x0, other.x0)
                    down = min(one.y1, other.y1) - max(one.y0, other.y0)
                    assert min(across, down) <= 0.5, [label.get_text() for label in labels]


def test_labels_of_axes_fit_a_figure_that_is_low():
    time = np.linspace(1, 100, 50)
    figure = plots.kinetics_figure(time, {"free": np.exp(-time / 30)})
    label = figure.axes[0].yaxis.label

    def is_inside():
        figure.draw_without_rendering()
        box = label.get_window_extent()
        return figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1

    figure.set_size_inches(3.4, 1.1)
    assert not is_inside()
    fit_axis_labels(figure)
    assert is_inside()
    assert label.get_text() == "concentration\n[µM]"
    figure.set_size_inches(3.4, 4.0)
    fit_axis_labels(figure)
    assert is_inside()
    assert (label.get_text(), label.get_fontsize()) == ("concentration [µM]", 9)
