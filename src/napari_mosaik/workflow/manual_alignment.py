"""Manual alignment of a section to CD34: its inputs, moves, landmarks and undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import GivenAlignment
from napari_mosaik.register import (
    AlignKind,
    Alignment,
    LandmarkPairs,
    PetAlignParams,
)
from napari_mosaik.workflow.given_alignment import (
    AssessmentInputs,
    GivenBy,
    current_transform,
    given_alignment_entry,
    landmark_spacing_um,
    read_assessment_inputs,
)

__all__ = [
    "AlignmentInputs",
    "AlignmentState",
    "ManualAlignment",
    "assess_uptake_while",
    "read_alignment_inputs",
]

_OVERVIEW_PX = 700

_Position = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentState:
    """The alignment at one moment: transform, its origin, and the landmarks (row, column) in µm.

    ``unpaired`` is a landmark on the section that has no partner on CD34 yet.
    """

    transform: Transform
    source: GivenBy = "manual"
    note: str = ""
    moving: tuple[_Position, ...] = ()
    fixed: tuple[_Position, ...] = ()
    unpaired: _Position | None = None

    @property
    def landmarks(self) -> LandmarkPairs:
        """The pairs of landmarks."""
        return LandmarkPairs(_points(self.moving), _points(self.fixed))


@dataclass
class ManualAlignment:
    """The manual alignment of one section; every change can be undone and redone."""

    start: Transform
    initial_landmarks: LandmarkPairs = field(default_factory=LandmarkPairs)
    now: AlignmentState = field(init=False)

    def __post_init__(self) -> None:
        self.now = AlignmentState(self.start, note="unchanged")
        self.now = self._with_landmarks(self.initial_landmarks)
        self._undone: list[AlignmentState] = []
        self._before: list[AlignmentState] = []

    # --- undo -----------------------------------------------------------------------------------
    @property
    def frame(self) -> str:
        """The section that is aligned."""
        return self.start.source

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to undo."""
        return bool(self._before)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to redo."""
        return bool(self._undone)

    def undo(self) -> None:
        """Undo the last change."""
        if self._before:
            self._undone.append(self.now)
            self.now = self._before.pop()

    def redo(self) -> None:
        """Redo the change that was undone last."""
        if self._undone:
            self._before.append(self.now)
            self.now = self._undone.pop()

    def _change(self, state: AlignmentState, *, continued: bool = False) -> None:
        """Go to another state; *continued* joins it with the previous change (a drag)."""
        if not continued:
            self._before.append(self.now)
        self._undone.clear()
        self.now = state

    # --- moves ----------------------------------------------------------------------------------
    def shift(self, step_um: Any, *, continued: bool = False) -> None:
        """Shift by (row, column) in µm of CD34."""
        self._move(continued, shift_um=_position(step_um))

    def rotate(self, angle_deg: float, about_um: Any, *, continued: bool = False) -> None:
        """Rotate about a position on CD34; positive is counter-clockwise on the screen."""
        self._move(continued, angle_deg=angle_deg, about_um=_position(about_um))

    def scale(self, factor: float, about_um: Any) -> None:
        """Scale about a position on CD34."""
        self._move(False, scale=factor, about_um=_position(about_um))

    def flip_horizontally(self, about_um: Any) -> None:
        """Flip left and right about a position on CD34."""
        self._move(False, mirror=True, about_um=_position(about_um))

    def _move(self, continued: bool, **similarity: Any) -> None:
        move = Transform.similarity(REFERENCE, REFERENCE, **similarity)
        transform = self.now.transform.then(move)
        state = replace(self.now, transform=transform, source="manual", note="dragged")
        self._change(state, continued=continued)

    def import_transform(self, transform: Transform, source: GivenBy, note: str) -> None:
        """Replace the transform by one from a file or another method."""
        self._change(replace(self.now, transform=transform, source=source, note=note))

    # --- landmarks ------------------------------------------------------------------------------
    def add_landmark(self, position_um: Any) -> None:
        """Set a landmark at a position on CD34: first on the section, then its partner."""
        position = _position(position_um)
        now = self.now
        if now.unpaired is None:
            moving = _position(now.transform.inverse().apply([position])[0])
            self._change(replace(now, unpaired=moving))
            return
        moving_points, fixed_points = (*now.moving, now.unpaired), (*now.fixed, position)
        self._change(replace(now, moving=moving_points, fixed=fixed_points, unpaired=None))

    def set_landmarks(self, landmarks: LandmarkPairs) -> None:
        """Replace all landmarks by those of files."""
        self._change(self._with_landmarks(landmarks))

    def _with_landmarks(self, landmarks: LandmarkPairs) -> AlignmentState:
        return replace(
            self.now,
            moving=tuple(map(_position, landmarks.moving_um)),
            fixed=tuple(map(_position, landmarks.fixed_um)),
            unpaired=None,
        )

    def delete_landmark(self, row: int) -> None:
        """Delete a pair by its index; a landmark without a partner has the index after the last."""
        now = self.now
        if row == len(now.moving) and now.unpaired is not None:
            self._change(replace(now, unpaired=None))
            return
        self._check_row(row)
        self._change(
            replace(
                now,
                moving=now.moving[:row] + now.moving[row + 1 :],
                fixed=now.fixed[:row] + now.fixed[row + 1 :],
            )
        )

    def swap_landmarks(self, first: int, second: int) -> None:
        """Swap the partners of two landmarks, given by index."""
        self._check_row(first)
        self._check_row(second)
        fixed = list(self.now.fixed)
        fixed[first], fixed[second] = fixed[second], fixed[first]
        self._change(replace(self.now, fixed=tuple(fixed)))

    def fit_to_landmarks(self, kind: AlignKind) -> None:
        """Fit the transform to the landmarks."""
        landmarks = self.now.landmarks
        transform = landmarks.fit(kind, self.frame, REFERENCE)
        note = f"{len(landmarks)} pairs, {kind}"
        self._change(replace(self.now, transform=transform, source="landmarks", note=note))

    def residuals_um(self) -> FloatArray:
        """Distance (n,) of each landmark from its partner under the present transform, µm."""
        return self.now.landmarks.residuals_um(self.now.transform)

    def _check_row(self, row: int) -> None:
        if not 0 <= row < len(self.now.moving):
            raise InputError(f"there is no landmark {row + 1}; there are {len(self.now.moving)}")

    # --- result ---------------------------------------------------------------------------------
    def entry(self) -> GivenAlignment:
        """The entry of ``case.toml``."""
        now = self.now
        return given_alignment_entry(now.transform, now.source, now.note, now.landmarks)


def _position(values: Any) -> _Position:
    row, column = (float(value) for value in values)
    return row, column


def _points(pairs: tuple[_Position, ...]) -> FloatArray:
    return np.array(pairs, np.float64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentInputs:
    """What manual alignment of a section reads of a case.

    Parameters
    ----------
    case, frame
        The case, and the section: "he", "caix" or "pet".
    assessment
        Tissue masks of the section and of CD34, and the PET, for the registration error.
    picture
        Overview of the section, shape (rows, columns, 3), or the PET slice, shape (rows, columns).
    fwhm_um
        Spatial resolution of the PET, µm; 0 for a slide.
    start
        The current alignment; where there is none, the centres of the masks coincide.
    landmarks
        Landmarks that were given before.
    centre_um
        Centre of the tissue on CD34, (row, column) in µm.
    spacing_um, reference_spacing_um
        Pixel sizes of the section and of CD34, (row, column) in µm.
    """

    case: Case
    frame: str
    assessment: AssessmentInputs
    picture: Raster
    fwhm_um: float
    start: Transform
    landmarks: LandmarkPairs
    centre_um: tuple[float, float]
    spacing_um: tuple[float, float]
    reference_spacing_um: tuple[float, float]


def read_alignment_inputs(case: Case, frame: str) -> AlignmentInputs:
    """Read what manual alignment of a section needs; coordinates in µm, landmarks of shape (n, 2).

    Raises `InputError` when a slide or the PET is missing or cannot be read.
    """
    assessment = read_assessment_inputs(case, frame)
    moving, fixed = _centre_um(assessment.moving), _centre_um(assessment.fixed)
    start = current_transform(case, frame)
    if start is None:
        shift = (fixed[0] - moving[0], fixed[1] - moving[1])
        start = Transform.similarity(frame, REFERENCE, shift_um=shift)
    entry = case.file.given_alignment(frame)
    landmarks = LandmarkPairs()
    if entry is not None:
        landmarks = LandmarkPairs(
            np.array(entry.landmarks_um, float).reshape(-1, 2),
            np.array(entry.reference_landmarks_um, float).reshape(-1, 2),
        )
    params = assessment.params
    return AlignmentInputs(
        case,
        frame,
        assessment,
        _overview(case, frame),
        params.fwhm_um if isinstance(params, PetAlignParams) else 0.0,
        start,
        landmarks,
        fixed,
        landmark_spacing_um(case, frame),
        case.spacing_um(REFERENCE),
    )


def assess_uptake_while(
    assessment: AssessmentInputs, transform: Transform, wanted: Callable[[], bool]
) -> Alignment | str:
    """Assess an alignment by the PET, or the reason why that is impossible.

    Stops early when *wanted* becomes false: the section was moved meanwhile.
    """
    work = assessment.assess_uptake(transform)
    while wanted():
        try:
            next(work)
        except StopIteration as end:
            return end.value if end.value is not None else "the PET has no values on the section"
        except InputError as error:
            return str(error)
    return "superseded"


def _overview(case: Case, frame: str) -> Raster:
    """The PET, or an overview of the slide."""
    if frame == "pet":
        return case.pet().raster
    with case.slide(frame) as slide:
        return slide.thumbnail(max(slide.lattice.extent_um) / _OVERVIEW_PX)


def _centre_um(mask: Raster) -> tuple[float, float]:
    rows, columns = np.nonzero(np.asarray(mask.values, bool))
    centre = mask.lattice.to_um([[rows.mean(), columns.mean()]])[0]
    return float(centre[0]), float(centre[1])
