from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_mosaik.core import Blocked, InputError
from napari_mosaik.predictor import (
    GUARD_TILES,
    block_split,
    leave_one_case_out,
    leave_one_patient_out,
    random_split,
)
from napari_mosaik.predictor.metrics import r2

PATIENTS = {"A2": "1", "A3": "1", "A4": "1", "A5": "1", "B8": "2", "B11": "2"}


def lattice_cells(rows: int, cols: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)


def test_leave_one_case_out_says_that_the_patient_is_shared():
    split = leave_one_case_out(PATIENTS, "B11")
    assert split.train == ("A2", "A3", "A4", "A5", "B8")
    assert split.shared_patient
    assert split.warnings
    assert not leave_one_case_out({"A2": "1", "B8": "2"}, "A2").shared_patient
    with pytest.raises(InputError, match="C1"):
        leave_one_case_out(PATIENTS, "C1")
    with pytest.raises(InputError, match="alone"):
        leave_one_case_out({"A2": "1"}, "A2")


def test_leave_one_patient_out_drops_the_patients_other_cases():
    split = leave_one_patient_out(PATIENTS, "B11")
    assert split.train == ("A2", "A3", "A4", "A5")
    assert not split.shared_patient
    with pytest.raises(InputError, match="alone"):
        leave_one_patient_out({"A2": "1", "A3": "1"}, "A2")


def test_block_split_keeps_the_guard_and_no_window_is_shared():
    cells = lattice_cells(40, 90)
    split = block_split(cells)
    assert split.available
    test, train = cells[split.test], cells[split.train]
    distance = np.abs(test[:, None, :] - train[None, :, :]).max(axis=2)
    assert distance.min() == GUARD_TILES
    half_um = (26 * 300 + 400) / 2
    assert 2 * half_um <= GUARD_TILES * 300
    assert 2 * half_um > (GUARD_TILES - 1) * 300
    assert split.test.sum() == round(0.25 * len(cells))
    assert not (split.test & split.train).any()


def test_block_split_is_not_available_rather_than_less_guarded():
    split = block_split(lattice_cells(15, 25))
    assert not split.available
    assert "guard of 28" in split.reason
    with pytest.raises(Blocked, match="not available"):
        split.require()


def test_random_split_is_refused_and_stamped_when_forced():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="refused"):
        random_split(100, rng)
    split = random_split(100, rng, forced=True)
    assert split.test.sum() == 25
    assert (split.train ^ split.test).all()
    assert "overlapping" in split.warnings[0]


def test_a_random_split_leaks_what_a_block_does_not():
    cells = lattice_cells(50, 90)
    rng = np.random.default_rng(3)
    values = gaussian_filter(rng.normal(size=(50, 90)), 3.0).ravel()

    def neighbours_r2(train: np.ndarray, test: np.ndarray) -> float:
        distance, index = cKDTree(cells[train]).query(cells[test], k=8)
        weight = 1 / distance**2
        guess = (values[train][index] * weight).sum(axis=1) / weight.sum(axis=1)
        return r2(values[test], guess)

    leaky = random_split(len(cells), rng, forced=True)
    block = block_split(cells).require()
    assert neighbours_r2(leaky.train, leaky.test) > 0.95
    assert neighbours_r2(block.train, block.test) < 0
