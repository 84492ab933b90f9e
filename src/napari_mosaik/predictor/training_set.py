"""Which cases and tiles train, validate and test, so that training uses nothing of the test."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import Blocked, FloatArray, InputError
from napari_mosaik.core.params import digest
from napari_mosaik.core.text import same_words
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.predictor.inputs import N_CLASSES, TileInputs, tiling
from napari_mosaik.predictor.model import TargetScale
from napari_mosaik.predictor.multiscale import SCALE_TILES
from napari_mosaik.predictor.params import TrainParams

__all__ = [
    "GUARD_TILES",
    "RANDOM_WARNING",
    "Split",
    "TileSplit",
    "TrainingSet",
    "block_guard",
    "block_split",
    "choose_validation",
    "held_out_tiles",
    "leave_one_case_out",
    "leave_one_patient_out",
    "make_training_set",
    "own_block",
    "random_split",
    "tiles_digest",
]

MIN_GUARD: Final = 2
"""Tiles overlap their neighbours, so at a distance of 0 or 1 they share tissue."""
GUARD_TILES: Final = 28
"""Smallest lattice distance at which two 27 x 27 windows share no tissue (8.4 mm)."""
RANDOM_WARNING: Final = (
    "random split of overlapping tiles: test tiles share tissue with training tiles, "
    "the results do not generalise to a new slide"
)


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test cases.

    Parameters
    ----------
    kind
        ``"case"``, ``"patient"`` or ``"block"`` (the test case trains with its other end).
    train
        Names of the training cases, sorted.
    test
        Name of the test case.
    shared_patient
        True when the test case's patient also has training cases.
    warnings
        Warnings that accompany every result of this split.
    """

    kind: Literal["case", "patient", "block"]
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
        (n,) masks of the tiles; tiles in neither lie in the guard band.
    reason
        Why the split is not available; empty when it is.
    warnings
        Warnings that accompany every result of this split.
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
    """Train on all other cases, test on *test*.

    Parameters
    ----------
    patients
        Case name to patient pseudonym; pseudonyms are compared without case and blanks.
    test
        Name of the test case.

    Raises
    ------
    InputError
        Unknown test case, or no other case.
    """
    _check_test(patients, test)
    patients = {case: same_words(patient) for case, patient in patients.items()}
    train = tuple(sorted(set(patients) - {test}))
    if not train:
        raise InputError(
            f"case '{test}' is alone: there is no other case to train on; with --split block it "
            "trains on one end of its slide and is tested on the other"
        )
    shared = patients[test] in {patients[case] for case in train}
    warnings = ("training and test share a patient: no claim about a new patient",) * shared
    return Split("case", train, test, shared, warnings)


def leave_one_patient_out(patients: Mapping[str, str], test: str) -> Split:
    """Train on the cases of all other patients, test on *test*; exclude its patient's other cases.

    Parameters and errors as `leave_one_case_out`.
    """
    _check_test(patients, test)
    given = patients[test]
    patients = {case: same_words(patient) for case, patient in patients.items()}
    train = tuple(sorted(case for case in patients if patients[case] != patients[test]))
    if not train:
        raise InputError(
            f"patient '{given}' is alone: there is no other patient to train on; with --split case "
            "the other cases of the patient train, without a claim about a new patient"
        )
    n_others = len({patients[case] for case in train})
    patients_word = "patient" if n_others == 1 else "patients"
    warning = f"{n_others} {patients_word} in training: too few for a claim about patients"
    return Split("patient", train, test, False, (warning,) * (n_others < 10))


def own_block(patients: Mapping[str, str], test: str) -> Split:
    """Train on one end of *test* and test on the other; see `block_split` for the tiles.

    Parameters and errors as `leave_one_case_out`, but no other case is needed.
    """
    _check_test(patients, test)
    warning = "trained and tested on one slide: no claim about another slide or patient"
    return Split("block", (test,), test, True, (warning,))


def block_guard(fwhm_um: float, pitch_um: float) -> int:
    """Lattice distance at which test tiles share neither windows nor the scanner's blur, tiles.

    The widest window, and the Gaussian of *fwhm_um* (µm), which is cut at four standard deviations,
    over tiles of *pitch_um* (µm).
    """
    sigma_um = fwhm_um / (2.0 * math.sqrt(2.0 * math.log(2.0)))
    return max(SCALE_TILES.values()) + math.ceil(4.0 * sigma_um / pitch_um)


def block_split(
    cells: ArrayLike,
    *,
    test_fraction: float = 0.25,
    guard: int = GUARD_TILES,
    min_tiles: int = 30,
) -> TileSplit:
    """Test on one end of the slide, train on the rest beyond the guard band.

    The block is cut across the longer side of the slide, from its end.

    Parameters
    ----------
    cells
        (n, 2) row and column index of each tile on the lattice.
    test_fraction
        Fraction of the tiles in the test block.
    guard
        Smallest lattice distance (the larger of rows and columns) between a training and a test
        tile.
    min_tiles
        Minimum number of tiles on each side; with fewer the split is not available.  The guard is
        never reduced instead.

    Notes
    -----
    Cluster labels of the measured map must be recomputed within the training tiles: those of the
    whole slide carry values of neighbouring tiles across the guard.
    """
    cells = np.asarray(cells, np.int64).reshape(-1, 2)
    n = len(cells)
    if guard < MIN_GUARD:
        raise InputError(
            f"a guard of {guard} is refused: neighbouring tiles overlap and share the answer; use "
            f"{MIN_GUARD} tiles or more"
        )
    if not n or not 0 < test_fraction < 1:
        raise InputError(f"cannot split {n} tiles with a test fraction of {test_fraction}")
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


def tiles_digest(cells: ArrayLike) -> str:
    """Digest of the (n, 2) row and column index of the tiles."""
    return digest(np.asarray(cells, np.int64).reshape(-1, 2).tolist())


def held_out_tiles(cells: ArrayLike, block: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Mask (n,) of the test tiles of a block that a model's card describes.

    *cells* are (n, 2) row and column index of each tile; tiles other than those that were cut raise
    `InputError`.
    """
    if tiles_digest(cells) != block["tiles"]:
        raise InputError(
            "the tiles are not those from which the test block was cut: train again with "
            "--split block"
        )
    return block_split(cells, guard=int(block["guard"])).test


def _distance(cells: IntArray, others: IntArray) -> IntArray:
    """Lattice distance (the larger of rows and columns) to the nearest of the other cells."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(others).query(cells, p=np.inf)
    return np.asarray(np.rint(distance), np.int64)


def random_split(
    n_tiles: int, rng: np.random.Generator, *, test_fraction: float = 0.25, forced: bool = False
) -> TileSplit:
    """Random tiles: refused, because overlapping tiles leak the answer.

    With *forced* the split is made, with `RANDOM_WARNING`.
    """
    if not forced:
        raise InputError(
            "a random split of tiles is refused: overlapping tiles leak the answer; split by case, "
            "patient or block"
        )
    test = np.zeros(n_tiles, bool)
    test[rng.permutation(n_tiles)[: max(1, round(n_tiles * test_fraction))]] = True
    return TileSplit("random", ~test, test, warnings=(RANDOM_WARNING,))


# --- training set --------------------------------------------------------------------------------
_MIN_TILES = 8


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Training and validation tiles of one training.

    Parameters
    ----------
    cases
        Training cases without the validation case, sorted by name.
    everything
        All training cases, sorted by name; the baselines are fitted on them.
    tiles
        (m, 2) index of the case, and of the tile within it, of each training tile.
    target, label
        (m,) normalised SUV, clipped to [0, 1] only for the network of the paper, and class
        (-1: none) of the training tiles.
    scale
        Scaling of the SUV.
    class_counts, class_weights
        (5,) count of tiles of each class, and weights n / (5 n_c), 0 for an absent class.
    validation, validation_rows, validation_target
        The validation case, (k,) indices of its measured tiles and their normalised SUV.
    digest
        Digest of all of it.
    """

    cases: tuple[TileInputs, ...]
    everything: tuple[TileInputs, ...]
    tiles: NDArray[np.int64]
    target: NDArray[np.float32]
    label: NDArray[np.int64]
    scale: TargetScale
    class_counts: NDArray[np.int64]
    class_weights: NDArray[np.float32]
    validation: TileInputs | None
    validation_rows: NDArray[np.int64]
    validation_target: FloatArray
    digest: str

    @property
    def mean_target(self) -> float:
        """Mean normalised SUV of the training tiles."""
        return float(self.target.mean())


def choose_validation(cases: Sequence[TileInputs], validation: str) -> str | None:
    """Name of the validation case, None for no validation; the rule is that of `train`."""
    names = sorted(case.case for case in cases)
    if validation == "none" or (validation == "auto" and len(names) < 3):
        return None
    if validation != "auto":
        if validation not in names:
            raise InputError(
                f"validation case '{validation}' is not a training case: {', '.join(names)}"
            )
        if len(names) < 2:
            raise InputError(f"case '{validation}' cannot be both training and validation case")
        return validation
    patients = Counter(same_words(case.patient) for case in cases)
    most = min(patients, key=lambda patient: (-patients[patient], patient))
    return max(case.case for case in cases if same_words(case.patient) == most)


def _check_alike(cases: Sequence[TileInputs]) -> None:
    """Raise `InputError` when cases cannot be trained on together."""
    if not cases:
        raise InputError("no training case")
    names = Counter(case.case for case in cases)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"training case '{twice[0]}' is given twice")
    first = cases[0]
    for case in cases:
        if case.suv is None:
            raise InputError(f"training case {case.case} has no measured uptake")
        case.require_modalities()
        for name, (one, other) in _differences(first, case).items():
            raise InputError(
                f"cases {first.case} and {case.case} differ in their {name}: {one}, and {other}"
            )


def _differences(one: TileInputs, other: TileInputs) -> dict[str, tuple[str, str]]:
    """What two cases cannot be trained on together for: its name, and what each has, in words."""
    px, um = one.windows_px, one.spacings_um
    own, names = set(one.feature_names), set(other.feature_names)
    times = one.times_h.shape == other.times_h.shape and np.allclose(one.times_h, other.times_h)
    lists = [", ".join(sorted(a - b)) or "nothing more" for a, b in ((own, names), (names, own))]
    both = [(", ".join(c.proxies), ", ".join(f"{t:g} h" for t in c.times_h)) for c in (one, other)]
    windows = [", ".join(f"{n} px" for n in c.windows_px) for c in (one, other)]
    if own == names:
        lists = ["one order", "another"]
    found: dict[str, tuple[bool, str, str]] = {
        "window size": (px == other.windows_px, windows[0], windows[1]),
        "tiling": (
            bool(np.allclose(um, other.spacings_um, rtol=1e-3)),
            tiling(px, um),
            tiling(other.windows_px, other.spacings_um),
        ),
        "proxies": (one.proxies == other.proxies, both[0][0], both[1][0]),
        "tile parameters": (one.feature_names == other.feature_names, lists[0], lists[1]),
        "curve times": (bool(times), both[0][1], both[1][1]),
    }
    return {name: (a, b) for name, (same, a, b) in found.items() if not same}


def _labels(case: TileInputs) -> NDArray[np.int64]:
    """(n,) class of each tile, -1 where there is none."""
    if case.pet_label is None:
        return np.full(len(case), -1, np.int64)
    label = np.asarray(case.pet_label, np.int64)
    return np.where((label >= 0) & (label < N_CLASSES), label, -1)


def _digest(cases: Sequence[TileInputs], validation: str | None) -> str:
    """Digest of everything that the training reads."""
    content = hashlib.blake2b(digest_size=16)
    content.update(repr(validation).encode())
    for case in cases:
        content.update(f"{case.case} {case.patient} {len(case)}".encode())
        arrays = [case.codes, case.curves, case.suv, _labels(case), case.features, case.covered]
        for scale in case.scales:
            arrays += [scale.values, scale.corners]
        for array in arrays:
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def make_training_set(
    cases: Sequence[TileInputs], params: TrainParams, validation: str
) -> TrainingSet:
    """Sort the cases, set the validation case aside, and fit scaling and class weights."""
    _check_alike(cases)
    if cases[0].windows_px != params.windows_px:
        found, asked = (", ".join(map(str, px)) for px in (cases[0].windows_px, params.windows_px))
        raise InputError(f"the windows have {found} px, but the settings ask for {asked} px")
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    held_out = choose_validation(ordered, validation)
    training = tuple(case for case in ordered if case.case != held_out)
    rows = [np.flatnonzero(case.measured) for case in training]
    tiles = np.concatenate(
        [np.column_stack([np.full(len(r), i), r]) for i, r in enumerate(rows)]
    ).astype(np.int64)
    if len(tiles) < _MIN_TILES:
        raise InputError(f"{len(tiles)} measured training tiles: at least {_MIN_TILES} are needed")
    suv = np.concatenate([np.asarray(c.suv)[r] for c, r in zip(training, rows, strict=True)])
    scale = TargetScale.fit(suv, params.low_percentile, params.high_percentile)
    label = np.concatenate([_labels(c)[r] for c, r in zip(training, rows, strict=True)])
    counts = np.bincount(label[label >= 0], minlength=N_CLASSES)
    weights = np.where(counts > 0, counts.sum() / (N_CLASSES * np.maximum(counts, 1)), 0.0)
    check = next((case for case in ordered if case.case == held_out), None)
    check_rows = np.zeros(0, np.int64) if check is None else np.flatnonzero(check.measured)
    if check is not None and not len(check_rows):
        raise InputError(f"validation case '{held_out}' has no measured tile")
    return TrainingSet(
        cases=training,
        everything=ordered,
        tiles=tiles,
        target=scale.normalise(suv, clip=params.clips_targets).astype(np.float32),
        label=label,
        scale=scale,
        class_counts=counts,
        class_weights=weights.astype(np.float32),
        validation=check,
        validation_rows=check_rows,
        validation_target=(
            np.zeros(0)
            if check is None
            else scale.normalise(np.asarray(check.suv)[check_rows], clip=params.clips_targets)
        ),
        digest=_digest(ordered, held_out),
    )
