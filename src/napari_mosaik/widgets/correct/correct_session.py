"""A session of manual correction as the window drives it: open, act, read the state.

Everything here runs in the background and touches no widget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mosaik.core.corrections import Correction
from napari_mosaik.view.objects import corrected_lines

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession, SelectedObject

__all__ = [
    "CorrectionState",
    "correction_state",
    "drawn_area",
    "find_in",
    "log_of",
    "merge",
    "open_session",
]


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionState:
    """Everything that the panel shows of a session.

    ``made`` and ``gone`` are outlines of edited and of removed regions, vectors (n, 2, 2) in µm of
    the section; ``lost`` gives the reason for each correction, by index, that has no object;
    ``found`` are objects that are offered.
    """

    selected: SelectedObject | None
    corrections: tuple[Correction, ...]
    lost: dict[int, str]
    undo: str
    redo: str
    made: Any
    gone: Any
    failed: str = ""
    found: tuple[Correction, ...] = ()


def open_session(case: Case, target: str, reader: str) -> CorrectionSession | CorrectionLog:
    """Open the record of one reader: a session for objects, a log for masks."""
    from napari_mosaik.core.catalogue import OBJECTS
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession

    return (
        CorrectionSession(case, target, reader)
        if target in OBJECTS
        else CorrectionLog(case, target, reader)
    )


def log_of(session: CorrectionSession | CorrectionLog) -> CorrectionLog:
    """The journal of a session."""
    from napari_mosaik.workflow.corrections import CorrectionSession

    return session.log if isinstance(session, CorrectionSession) else session


def merge(session: CorrectionSession, one: SelectedObject, at: Any) -> None:
    """Merge an object with the one at a position, (row, column) in µm."""
    from napari_mosaik.core import InputError

    other = session.select(at)
    if other is None:
        raise InputError("no object at this position; click the second object")
    session.merge(one, other)


def find_in(session: CorrectionSession, points: Any) -> None:
    """Look for missed objects within an outline, points (n, 2) in µm."""
    from napari_mosaik.annotate import lasso_polygon

    session.find(lasso_polygon(points))


def drawn_area(mode: Any, points: Any, word: str = "") -> Correction:
    """An outlined area or object as a correction; *word* is the artefact type."""
    from napari_mosaik.annotate import lasso_polygon

    return Correction(
        "add" if mode == "draw" else mode, word=word, area_wkt=lasso_polygon(points).wkt
    )


def correction_state(
    session: CorrectionSession | CorrectionLog, at: Any, failed: str = ""
) -> CorrectionState:
    """State of a session; the object at a position, (row, column) in µm, is selected."""
    from napari_mosaik.workflow.corrections import CorrectionSession

    log = log_of(session)
    corrections = log.corrections
    selected, lost = None, {}
    if isinstance(session, CorrectionSession):
        session.current()
        if at is not None:
            selected = session.select(at)
        lost = {corrections.index(one): why for one, why in session.lost}
    edited = session.edited_objects() if isinstance(session, CorrectionSession) else None
    return CorrectionState(
        selected, corrections, lost, log.part.journal.undo_title(), log.part.journal.redo_title(),
        *corrected_lines(corrections, edited), failed, tuple(getattr(session, "found", ())),
    )  # fmt: skip
