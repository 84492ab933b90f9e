"""Distances to the nearest marked pixel, against scipy."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from napari_mosaik.core.distance import distance_strips


def whole(marked, spacing_um):
    out = np.full(marked.shape, np.nan)
    for row, strip in distance_strips(marked, spacing_um):
        out[row : row + len(strip)] = strip
    return out


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0), (4.0, 4.0), (0.7, 2.3), (3.0, 0.5)])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.6])
def test_against_scipy(spacing_um, share):
    rng = np.random.default_rng(7)
    marked = rng.random((600, 140)) < share
    marked[:80], marked[:, 100:120] = False, False
    np.testing.assert_allclose(
        whole(marked, spacing_um), distance_transform_edt(~marked, spacing_um), rtol=1e-12
    )


def test_labels_one_pixel_and_none_at_all():
    labels = np.zeros((1100, 5), np.int32)
    assert list(distance_strips(labels, (1.0, 1.0))) == []
    assert list(distance_strips(np.zeros((0, 4)), (1.0, 1.0))) == []
    labels[1030, 4] = 9
    rows, cols = np.mgrid[:1100, :5]
    np.testing.assert_allclose(
        whole(labels, (2.0, 3.0)), np.hypot((rows - 1030) * 2.0, (cols - 4) * 3.0), rtol=1e-12
    )


def test_an_image_of_very_many_rows():
    marked = np.zeros((70_000, 2), bool)
    marked[0, 0] = True
    assert whole(marked, (1.0, 1.0))[-1, 0] == 69_999
