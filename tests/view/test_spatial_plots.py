"""The Moran scatter plot and one parameter against the uptake."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from napari_mosaik.core import InputError
from napari_mosaik.core.palette import CLUSTER_COLOURS
from napari_mosaik.view.spatial_plots import (
    correlation_figure,
    mean_correlation_figure,
    moran_figure,
    parameter_uptake_figure,
)

Z = np.array([2.0, -1.5, 1.0, -0.5, 0.1, np.nan])
LAG = np.array([1.5, -1.0, -0.8, 0.6, 0.0, np.nan])
LABEL = np.array([1, 2, 3, 4, 0, 5])


def test_points_have_the_colours_of_their_labels_and_the_line_the_slope_of_moran():
    figure = moran_figure(Z, LAG, LABEL, 0.6, name="vessel_density_per_mm2", selected=2)
    axes = figure.axes[0]
    shown = {}
    for points in axes.collections:
        words = points.get_label()
        if not words.startswith("_"):
            shown[words.split(":")[0]] = to_hex(points.get_facecolors()[0])
    assert shown["hot"] == CLUSTER_COLOURS[1].lower()
    assert shown["cold"] == CLUSTER_COLOURS[2].lower()
    assert set(shown) == {"average", "hot", "cold", "high-low", "low-high"}
    line = next(one for one in axes.lines if one.get_label() == "I = 0.600")
    x, y = line.get_xdata(), line.get_ydata()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(0.6)
    ring = axes.collections[-1].get_offsets()
    assert ring.tolist() == [[1.0, -0.8]]
    assert axes.get_title() == "Vessel density"


def test_nothing_to_show_is_said():
    empty = np.full(6, np.nan)
    words = [text.get_text() for text in moran_figure(empty, empty, LABEL, 0.0).axes[0].texts]
    assert "neighbours" in words[0]
    words = [text.get_text() for text in parameter_uptake_figure(empty, Z).axes[0].texts]
    assert words == ["no tile has both values"]
    for make in (
        lambda: moran_figure(Z, LAG[:3], LABEL, 0.0),
        lambda: parameter_uptake_figure(Z, Z[:2]),
    ):
        with pytest.raises(InputError):
            make()


def test_a_relation_leaves_out_what_is_missing_and_names_both_units():
    axes = parameter_uptake_figure(
        Z, LAG, name="vessel_density_per_mm2", unit="1/mm²", uptake_unit="g/mL", selected=5
    ).axes[0]
    assert len(axes.collections) == 1  # a tile without values is not ringed
    assert len(axes.collections[0].get_offsets()) == 5
    assert axes.get_xlabel() == "Vessel density [1/mm²]"
    assert axes.get_ylabel() == "measured SUV [g/mL]"


def test_in_a_narrow_place_the_scale_of_the_heat_map_lies_below():
    matrix = np.array([[0.5, np.nan], [-0.2, 0.1]])
    names = ("vessel_density_per_mm2", "caix_h_score")
    figure = correlation_figure(matrix, names, ("A2", "B11"), narrow=True)
    figure.canvas.draw()
    bar = figure.axes[1]
    assert bar.get_position().y1 < figure.axes[0].get_position().y0
    assert "red positive" in bar.get_xlabel()
    assert {text.get_text() for text in figure.axes[0].texts} == {".50", "–", "−.20", ".10"}


def test_means_lie_on_two_axes_with_one_scale_either_way():
    names = ("vessel_density_per_mm2", "caix_h_score")
    for narrow in (False, True):
        figure = mean_correlation_figure(names, [0.5, -0.2], [0.4, np.nan], narrow=narrow)
        first, second = figure.axes
        limits = [(a.get_xlim() if narrow else a.get_ylim()) for a in (first, second)]
        assert limits[0] == limits[1] == pytest.approx((-0.55, 0.55))
        offsets = first.collections[0].get_offsets()[:, 0 if narrow else 1]
        assert offsets.tolist() == [0.5, -0.2]
        assert "Spearman" in (second.get_xlabel() if narrow else second.get_ylabel())
