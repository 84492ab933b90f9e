"""Lengths, areas, magnification and the pixel size from a line of known length."""

import math

import numpy as np
import pytest
from shapely import LineString, Polygon

from napari_mosaik.core import InputError
from napari_mosaik.view import measurements as measuring
from napari_mosaik.view.measurements import Measurement, spacing_from_ruler


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_lengths_and_areas_are_those_of_shapely():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * math.pi, 9))
        around = rng.uniform(50, 500, (9, 1)) * np.stack([np.sin(angles), np.cos(angles)], 1)
        points = around + rng.uniform(-1e5, 1e5, 2)
        assert measuring.length_um(points) == pytest.approx(LineString(points).length)
        assert measuring.area_um2(points) == pytest.approx(Polygon(points).area, rel=1e-9)
        assert measuring.area_um2(points[::-1]) == pytest.approx(Polygon(points).area, rel=1e-9)


def test_too_few_points_measure_nothing():
    assert measuring.length_um([]) == measuring.length_um([(3.0, 4.0)]) == 0
    assert measuring.area_um2([(0, 0), (5, 5)]) == 0
    assert not Measurement("area", ((0, 0), (5, 5))).is_whole
    assert len(Measurement("length", ((0, 0),)).segments()) == 0


def test_an_outline_is_closed_and_a_line_is_not():
    corners = ((0.0, 0.0), (0.0, 400.0), (300.0, 400.0))
    line, outline = Measurement("length", corners), Measurement("area", corners)
    assert len(line.segments()) == 2
    assert len(outline.segments()) == 3
    assert np.allclose(outline.segments().sum(axis=0)[1], 0)
    assert plain(line.words) == "700 µm"
    assert plain(outline.words) == "60 000 µm², perimeter 1.20 mm"
    assert plain(outline.label) == "60 000 µm²"


@pytest.mark.parametrize(
    ("um", "words"),
    [(4.256, "4.26 µm"), (999.2, "999 µm"), (999.9, "1.00 mm"), (12_340, "12.3 mm")],
)
def test_lengths_in_words(um, words):
    assert plain(measuring.length_words(um)) == words


def test_areas_in_words():
    assert plain(measuring.area_words(512.3)) == "512 µm²"
    assert plain(measuring.area_words(1e5)) == "0.100 mm²"
    assert plain(measuring.area_words(3.12e7)) == "31.2 mm²"


def test_magnification_is_the_familiar_one():
    assert measuring.magnification(0.25) == 40
    assert measuring.um_per_pixel(20) == 0.5
    assert plain(measuring.magnification_words(0.499)) == "0.50 µm per pixel, about 20x"
    assert plain(measuring.magnification_words(4.0)) == "4.0 µm per pixel, about 2.5x"
    assert "uncalibrated" in measuring.magnification_words(1.0, calibrated=False)


def test_the_pixel_size_from_a_line():
    assert spacing_from_ruler(1000.0, 500.0) == 0.5


@pytest.mark.parametrize(
    ("length_px", "length_um", "words"),
    [
        (0.0, 100.0, "the line"),
        (200.0, math.nan, "known length"),
        (200.0, -5.0, "known length"),
        (12.0, 6.0, "too short"),
        (1000.0, 1.0, "Check the length and its unit"),
        (100.0, 5000.0, "Check the length and its unit"),
    ],
)
def test_what_cannot_be_a_pixel_size_is_refused(length_px, length_um, words):
    with pytest.raises(InputError, match=words):
        spacing_from_ruler(length_px, length_um)
