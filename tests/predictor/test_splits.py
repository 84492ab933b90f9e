from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_mosaik.core import Blocked, InputError
from napari_mosaik.predictor import (
    GUARD_TILES,
    block_guard,
    block_split,
    held_out_tiles,
    leave_one_case_out,
    leave_one_patient_out,
    own_block,
    random_split,
    tiles_digest,
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
    assert test[:, 1].min() > train[:, 1].max()  # across the longer side
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


@pytest.mark.parametrize("guard", [-1, 0, 1])
def test_tiles_that_overlap_are_no_guard(guard):
    with pytest.raises(InputError, match=f"a guard of {guard} is refused"):
        block_split(lattice_cells(40, 90), guard=guard)
    assert block_split(lattice_cells(40, 90), guard=2).available


def test_the_guard_holds_the_window_and_the_blur_of_the_scanner():
    # 1.5 mm: sigma 0.637 mm, cut at 2.548 mm, which is 8.5 tiles of 300 µm
    assert block_guard(1500.0, 300.0) == 27 + 9
    assert block_guard(1400.0, 300.0) == 27 + 8
    assert block_guard(1500.0, 150.0) == 27 + 17
    assert block_guard(1e-6, 300.0) == GUARD_TILES


def test_the_test_tiles_are_found_again_on_the_same_tiles_only():
    cells = lattice_cells(40, 90)
    split = block_split(cells, guard=36)
    block = {"guard": 36, "tiles": tiles_digest(cells)}
    np.testing.assert_array_equal(held_out_tiles(cells, block), split.test)
    with pytest.raises(InputError, match="not those from which the test block was cut"):
        held_out_tiles(cells[:-1], block)


def test_one_case_is_enough_for_a_split_by_blocks():
    split = own_block({"A2": "1"}, "A2")
    assert (split.kind, split.train, split.test, split.shared_patient) == (
        "block",
        ("A2",),
        "A2",
        True,
    )
    assert "no claim about another slide" in split.warnings[0]
    with pytest.raises(InputError, match="C1"):
        own_block({"A2": "1"}, "C1")


def test_patients_are_compared_without_case_and_blanks():
    patients = {"A2": "Patient 2", "A3": "patient 2 ", "B8": "  PATIENT  2", "B11": "patient 1"}
    with pytest.raises(InputError, match="'Patient 2' is alone"):
        leave_one_patient_out({name: patients[name] for name in ("A2", "A3", "B8")}, "A2")
    assert leave_one_patient_out(patients, "A2").train == ("B11",)
    assert leave_one_case_out(patients, "A3").shared_patient


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
