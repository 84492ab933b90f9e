"""Laying a section on CD34 by hand: moves, landmarks, undo; free of files and windows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.io.case import GivenAlignment
from napari_mosaik.register import AlignKind
from napari_mosaik.workflow.given_alignment import GivenBy, LandmarkPairs, given_alignment_entry

__all__ = ["AlignmentState", "ManualAlignment"]

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentState:
    """How it lies at one moment: the map, who gave it, and the landmarks.

    ``unpaired`` is a landmark on the section that has no partner on CD34 yet.
    """

    transform: Transform
    source: GivenBy = "hand"
    note: str = ""
    moving: tuple[Point, ...] = ()
    fixed: tuple[Point, ...] = ()
    unpaired: Point | None = None

    @property
    def landmarks(self) -> LandmarkPairs:
        """The pairs."""
        return LandmarkPairs(_points(self.moving), _points(self.fixed))


@dataclass
class ManualAlignment:
    """One section that is laid by hand; every act can be undone and done again."""

    start: Transform
    initial_landmarks: LandmarkPairs = field(default_factory=LandmarkPairs)
    now: AlignmentState = field(init=False)

    def __post_init__(self) -> None:
        self.now = AlignmentState(
            self.start,
            note="as it was",
            moving=tuple(map(_pair, self.initial_landmarks.moving_um)),
            fixed=tuple(map(_pair, self.initial_landmarks.fixed_um)),
        )
        self._undone: list[AlignmentState] = []
        self._before: list[AlignmentState] = []

    # --- undo -----------------------------------------------------------------------------------
    @property
    def frame(self) -> str:
        """What is laid."""
        return self.start.source

    @property
    def can_undo(self) -> bool:
        """Whether something was done."""
        return bool(self._before)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone."""
        return bool(self._undone)

    def undo(self) -> None:
        """Take back the last act."""
        if self._before:
            self._undone.append(self.now)
            self.now = self._before.pop()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self._undone:
            self._before.append(self.now)
            self.now = self._undone.pop()

    def _do(self, laid: AlignmentState, *, continued: bool = False) -> None:
        """Go on to another state; *continued* makes it one act with the one before (a drag)."""
        if not continued:
            self._before.append(self.now)
        self._undone.clear()
        self.now = laid

    # --- moves ----------------------------------------------------------------------------------
    def shift(self, step_um: Any, *, continued: bool = False) -> None:
        """Shift by (row, column) in µm of CD34."""
        self._move(Transform.similarity(REFERENCE, REFERENCE, shift_um=_pair(step_um)), continued)

    def rotate(self, angle_deg: float, about_um: Any, *, continued: bool = False) -> None:
        """Turn about a place on CD34; positive is counter-clockwise on the screen."""
        about = _pair(about_um)
        self._move(
            Transform.similarity(REFERENCE, REFERENCE, angle_deg=angle_deg, about_um=about),
            continued,
        )

    def scale(self, factor: float, about_um: Any) -> None:
        """Scale about a place on CD34."""
        about = _pair(about_um)
        self._move(Transform.similarity(REFERENCE, REFERENCE, scale=factor, about_um=about), False)

    def flip_horizontally(self, about_um: Any) -> None:
        """Turn over about a place on CD34: left becomes right."""
        about = _pair(about_um)
        self._move(Transform.similarity(REFERENCE, REFERENCE, mirror=True, about_um=about), False)

    def _move(self, move: Transform, continued: bool) -> None:
        laid = replace(
            self.now, transform=self.now.transform.then(move), source="hand", note="dragged"
        )
        self._do(laid, continued=continued)

    def import_transform(self, transform: Transform, source: GivenBy, note: str) -> None:
        """Take over a map from a file or another way."""
        self._do(replace(self.now, transform=transform, source=source, note=note))

    # --- landmarks ------------------------------------------------------------------------------
    def add_landmark(self, place_um: Any) -> None:
        """Set a landmark where it is seen on CD34: first on the section, then its partner."""
        seen = _pair(place_um)
        now = self.now
        if now.unpaired is None:
            own = _pair(now.transform.inverse().apply([seen])[0])
            self._do(replace(now, unpaired=own))
            return
        self._do(
            replace(
                now, moving=(*now.moving, now.unpaired), fixed=(*now.fixed, seen), unpaired=None
            )
        )

    def set_landmarks(self, marks: LandmarkPairs) -> None:
        """Take over landmarks from files, in place of those that were set."""
        self._do(
            replace(
                self.now,
                moving=tuple(map(_pair, marks.moving_um)),
                fixed=tuple(map(_pair, marks.fixed_um)),
                unpaired=None,
            )
        )

    def delete_landmark(self, row: int) -> None:
        """Delete a pair; a landmark without a partner is deleted by its own number."""
        now = self.now
        if row == len(now.moving) and now.unpaired is not None:
            self._do(replace(now, unpaired=None))
            return
        self._check(row)
        self._do(
            replace(
                now,
                moving=now.moving[:row] + now.moving[row + 1 :],
                fixed=now.fixed[:row] + now.fixed[row + 1 :],
            )
        )

    def swap_landmarks(self, first: int, second: int) -> None:
        """Exchange the partners of two landmarks."""
        self._check(first)
        self._check(second)
        fixed = list(self.now.fixed)
        fixed[first], fixed[second] = fixed[second], fixed[first]
        self._do(replace(self.now, fixed=tuple(fixed)))

    def fit_to_landmarks(self, kind: AlignKind) -> None:
        """Lay the section by the landmarks."""
        marks = self.now.landmarks
        note = f"{len(marks)} pairs, {kind}"
        self._do(
            replace(self.now, transform=marks.fit(kind, self.frame), source="landmarks", note=note)
        )

    def residuals_um(self) -> FloatArray:
        """Distance (n,) of each landmark from its partner as it lies now, µm."""
        return self.now.landmarks.residuals_um(self.now.transform)

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.now.moving):
            raise InputError(f"there is no landmark {row + 1}; there are {len(self.now.moving)}")

    # --- taking over ----------------------------------------------------------------------------
    def entry(self) -> GivenAlignment:
        """What ``case.toml`` will hold."""
        now = self.now
        return given_alignment_entry(now.transform, now.source, now.note, now.landmarks)


def _pair(values: Any) -> Point:
    row, column = (float(value) for value in values)
    return row, column


def _points(pairs: tuple[Point, ...]) -> FloatArray:
    return np.array(pairs, np.float64).reshape(-1, 2)
