"""Which cases or tiles teach and which test, so that nothing of the test is seen in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import Blocked, InputError
from napari_mosaik.core.tiles import IntArray

__all__ = [
    "GUARD_TILES",
    "RANDOM_WARNING",
    "Split",
    "TileSplit",
    "block_split",
    "leave_one_case_out",
    "leave_one_patient_out",
    "random_split",
]

GUARD_TILES: Final = 28
"""Smallest lattice distance at which two 27 x 27 windows share no tissue (8.4 mm)."""
RANDOM_WARNING: Final = (
    "random split of overlapping tiles: test tiles share tissue with training tiles, "
    "the figures say nothing about a new slide"
)


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test cases.

    Parameters
    ----------
    kind
        ``"case"`` or ``"patient"``.
    train
        Names of the training cases, sorted.
    test
        Name of the test case.
    shared_patient
        True when the test case's patient also has training cases.
    warnings
        Sentences that belong beside every figure of this split.
    """

    kind: Literal["case", "patient"]
    train: tuple[str, ...]
    test: str
    shared_patient: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TileSplit:
    """Training and test tiles of one slide.

    Parameters
    ----------
    kind
        ``"block"`` or ``"random"``.
    train, test
        (n,) masks of the tiles; tiles in neither lie in the guard.
    reason
        Why the split is not available; empty when it is.
    warnings
        Sentences that belong beside every figure of this split.
    """

    kind: Literal["block", "random"]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether enough tiles remain on both sides."""
        return not self.reason

    def require(self) -> TileSplit:
        """The split itself, or `Blocked` with the reason why it is not available."""
        if self.reason:
            raise Blocked(f"split by blocks not available: {self.reason}")
        return self


def _check_test(patients: Mapping[str, str], test: str) -> None:
    if test not in patients:
        raise InputError(
            f"no case '{test}' in the cohort; there are: {', '.join(sorted(patients))}"
        )


def leave_one_case_out(patients: Mapping[str, str], test: str) -> Split:
    """All other cases teach, *test* tests.

    Parameters
    ----------
    patients
        Case name to patient pseudonym.
    test
        Name of the test case.

    Raises
    ------
    InputError
        Unknown test case, or no other case.
    """
    _check_test(patients, test)
    train = tuple(sorted(set(patients) - {test}))
    if not train:
        raise InputError(f"case '{test}' is alone: there is no other case to learn from")
    shared = patients[test] in {patients[case] for case in train}
    warnings = ("training and test share a patient: no claim about a new patient",) * shared
    return Split("case", train, test, shared, warnings)


def leave_one_patient_out(patients: Mapping[str, str], test: str) -> Split:
    """The cases of all other patients teach, *test* tests; its patient's other cases rest.

    Parameters and errors as `leave_one_case_out`.
    """
    _check_test(patients, test)
    train = tuple(sorted(case for case in patients if patients[case] != patients[test]))
    if not train:
        raise InputError(f"patient '{patients[test]}' is alone: no other patient to learn from")
    n_others = len({patients[case] for case in train})
    warning = f"{n_others} patient(s) in training: too few for a claim about patients"
    return Split("patient", train, test, False, (warning,) * (n_others < 10))


def block_split(
    cells: ArrayLike,
    *,
    test_fraction: float = 0.25,
    guard: int = GUARD_TILES,
    min_tiles: int = 30,
) -> TileSplit:
    """One end of the slide tests, the rest beyond the guard teaches.

    The block is cut across the longer side of the slide, from its end.

    Parameters
    ----------
    cells
        (n, 2) row and column of each tile on the lattice.
    test_fraction
        Share of the tiles in the test block.
    guard
        Smallest lattice distance (the larger of rows and columns) between a training and a test
        tile.
    min_tiles
        Fewest tiles on each side; with fewer the split is not available, and the guard is never
        made smaller instead.

    Notes
    -----
    Cluster labels of the measured map must be made anew within the training tiles: those of the
    whole slide carry values of neighbouring tiles across the guard.
    """
    cells = np.asarray(cells, np.int64).reshape(-1, 2)
    n = len(cells)
    if not n or not 0 < test_fraction < 1:
        raise InputError(f"cannot split {n} tiles with a test share of {test_fraction}")
    axis = int(np.argmax(np.ptp(cells, axis=0)))
    order = np.lexsort((cells[:, 1 - axis], cells[:, axis]))
    test = np.zeros(n, bool)
    test[order[n - max(1, round(n * test_fraction)) :]] = True
    train = ~test & (_distance(cells, cells[test]) >= guard)
    reason = ""
    if min(train.sum(), test.sum()) < min_tiles:
        reason = (
            f"{int(train.sum())} training and {int(test.sum())} test tiles remain with a guard of "
            f"{guard} tiles, at least {min_tiles} of each are needed"
        )
    return TileSplit("block", train, test, reason)


def _distance(cells: IntArray, others: IntArray) -> IntArray:
    """Lattice distance (the larger of rows and columns) to the nearest of the other cells."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(others).query(cells, p=np.inf)
    return np.asarray(np.rint(distance), np.int64)


def random_split(
    n_tiles: int, rng: np.random.Generator, *, test_fraction: float = 0.25, forced: bool = False
) -> TileSplit:
    """Tiles drawn at random: refused, because overlapping tiles make the test worthless.

    With *forced* the split is made and `RANDOM_WARNING` is stamped on it.
    """
    if not forced:
        raise InputError(
            "a random split of tiles is refused: overlapping tiles leak the answer; split by case, "
            "patient or block"
        )
    test = np.zeros(n_tiles, bool)
    test[rng.permutation(n_tiles)[: max(1, round(n_tiles * test_fraction))]] = True
    return TileSplit("random", ~test, test, warnings=(RANDOM_WARNING,))
