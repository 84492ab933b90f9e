"""Nearness against the Euclidean distance map."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core.distance import within


@pytest.mark.parametrize("seed", range(30))
def test_the_same_pixels_as_a_distance_map(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(tuple(rng.integers(1, 60, 2))) < rng.choice([0.01, 0.1, 0.9])
    spacing_um = tuple(rng.choice([0.5, 4.0, 7.3, 8.0], 2))
    distance_um = float(rng.choice([0.0, 3.9, 4.0, 24.0, 25.0, 63.7]))
    if not mask.any():
        mask[0, 0] = True
    away_um = ndimage.distance_transform_edt(~mask, sampling=spacing_um)
    found = within(mask, distance_um, spacing_um)
    np.testing.assert_array_equal(found, away_um <= distance_um)


def test_nothing_is_near_an_empty_mask():
    assert not within(np.zeros((5, 7), bool), 10.0, (1.0, 1.0)).any()
    assert within(np.zeros((0, 7), bool), 10.0, (1.0, 1.0)).shape == (0, 7)
