"""Manual alignment: moves are transforms, changes can be undone, landmarks stay on the tissue."""

import numpy as np
import pytest

from napari_mosaik.core import InputError, Transform
from napari_mosaik.register import LandmarkPairs
from napari_mosaik.workflow.manual_alignment import ManualAlignment

START = Transform.similarity("he", "cd34", angle_deg=12, shift_um=(100, 200))


def shifted(down, right):
    return START.apply([[0, 0]]) + np.array([down, right])


def test_moves_are_applied_on_the_reference_and_undone_one_by_one():
    alignment = ManualAlignment(START)
    alignment.shift((30.0, -40.0))
    assert np.allclose(alignment.now.transform.apply([[0, 0]]), shifted(30, -40))
    about = alignment.now.transform.apply([[500.0, 600.0]])[0]
    alignment.rotate(5.0, about)
    assert alignment.now.transform.angle_deg == pytest.approx(17)
    alignment.scale(1.1, about)
    assert alignment.now.transform.scale == pytest.approx(1.1)
    alignment.flip_horizontally(about)
    assert alignment.now.transform.mirrored
    assert np.allclose(alignment.now.transform.apply([[500.0, 600.0]])[0], about)
    for _ in range(4):
        alignment.undo()
    assert not alignment.can_undo
    assert np.allclose(alignment.now.transform.matrix, START.matrix)
    alignment.redo()
    assert np.allclose(alignment.now.transform.apply([[0, 0]]), shifted(30, -40))
    alignment.shift((1.0, 0.0))
    assert not alignment.can_redo


def test_a_drag_of_many_moves_is_one_act():
    alignment = ManualAlignment(START)
    for number in range(10):
        alignment.shift((1.0, 2.0), continued=number > 0)
    assert np.allclose(alignment.now.transform.apply([[0, 0]]), shifted(10, 20))
    alignment.undo()
    assert np.allclose(alignment.now.transform.matrix, START.matrix)


def test_landmarks_stay_with_the_tissue_and_fit_it():
    true = Transform.similarity("he", "cd34", angle_deg=30, scale=0.97, shift_um=(50, 80))
    tissue = np.array([[100.0, 200.0], [900.0, 300.0], [500.0, 1200.0], [1500.0, 1400.0]])
    alignment = ManualAlignment(START)
    for own in tissue:
        alignment.add_landmark(alignment.now.transform.apply([own])[0])  # where it is seen now
        assert alignment.now.unpaired is not None
        alignment.add_landmark(true.apply([own])[0])
        alignment.shift((10.0, 0.0))  # what is dragged in between moves no landmark on its section
    assert np.allclose(alignment.now.landmarks.moving_um, tissue)
    assert alignment.residuals_um().max() > 100
    alignment.fit_to_landmarks("similarity")
    assert alignment.residuals_um() == pytest.approx(np.zeros(4), abs=1e-6)
    assert np.allclose(alignment.now.transform.matrix, true.matrix)
    entry = alignment.entry()
    assert entry.source == "landmarks"
    assert entry.note == "4 pairs, similarity"
    assert len(entry.landmarks_um) == 4
    alignment.shift((1.0, 0.0))
    assert alignment.entry().source == "manual"


def test_landmarks_are_deleted_exchanged_and_brought_back():
    marks = LandmarkPairs(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]]), np.ones((3, 2)))
    alignment = ManualAlignment(START, marks)
    alignment.swap_landmarks(0, 2)
    alignment.delete_landmark(1)
    assert len(alignment.now.landmarks) == 2
    alignment.undo()
    assert len(alignment.now.landmarks) == 3
    alignment.add_landmark((5.0, 5.0))
    alignment.delete_landmark(3)
    assert alignment.now.unpaired is None
    with pytest.raises(InputError, match="no landmark 8"):
        alignment.delete_landmark(7)
