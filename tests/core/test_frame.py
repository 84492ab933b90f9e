"""Lattices and transforms: round trips, signs, composition."""

import numpy as np
import pytest

from napari_mosaik.core import FrameMismatch, InputError, Lattice, Transform

LATTICE = Lattice("cd34", (5, 7), (2.0, 3.0), (10.0, -4.0))


def test_index_and_position_round_trip():
    index = np.array([[0, 0], [4, 6], [1.25, 3.5]])
    assert np.allclose(LATTICE.to_index(LATTICE.to_um(index)), index, atol=1e-12)
    assert LATTICE.to_um([0, 0]).tolist() == [11.0, -2.5]


def test_a_crop_keeps_positions():
    part = LATTICE.crop(slice(1, 4), slice(2, 9))
    assert part.shape == (3, 5)
    assert np.allclose(part.centres_um(), LATTICE.centres_um()[1:4, 2:7])


def test_resizing_covers_the_same_area():
    fine = LATTICE.resized(0.7)
    assert fine.extent_um[0] >= LATTICE.extent_um[0] > fine.extent_um[0] - 0.7
    assert fine.origin_um == LATTICE.origin_um


def test_a_positive_angle_turns_rows_towards_columns():
    quarter = Transform.similarity("he", "cd34", angle_deg=90)
    assert np.allclose(quarter.apply([1.0, 0.0]), [0.0, 1.0])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("angle", [-170.0, -30.0, 0.0, 45.0, 180.0])
def test_scale_angle_and_side_are_read_back(angle, mirror):
    made = Transform.similarity(
        "he", "cd34", angle_deg=angle, scale=0.93, shift_um=(40, -7), about_um=(5, 9), mirror=mirror
    )
    assert made.scale == pytest.approx(0.93)
    assert made.mirrored is mirror
    assert (made.angle_deg - angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)


def test_there_and_back_is_where_it_began():
    made = Transform.similarity("he", "cd34", angle_deg=23, scale=1.04, shift_um=(1e3, -2e3))
    points = np.random.default_rng(0).uniform(-1e4, 1e4, (100, 2))
    assert np.abs(made.then(made.inverse()).apply(points) - points).max() < 1e-6


def test_frames_must_meet():
    one = Transform.identity("he", "cd34")
    with pytest.raises(FrameMismatch, match="caix"):
        one.then(Transform.identity("caix", "cd34"))


def test_a_singular_matrix_is_refused():
    with pytest.raises(InputError, match="invertible"):
        Transform("he", "cd34", np.diag([0.0, 1.0, 1.0]))


def test_a_lattice_needs_a_positive_spacing():
    with pytest.raises(InputError, match="spacing"):
        Lattice("he", (2, 2), (0.0, 1.0))
