"""A session of correcting by hand as the window drives it: opened, acted on, gathered to be shown.

Everything here runs in the background and touches no widget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core.corrections import Correction
from napari_mosaik.view.objects import area_lines, cross_lines, outline_lines

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession, SelectedObject

__all__ = ["Seen", "drawn_area", "gather", "log_of", "merge", "open_session"]

_CROSS_UM = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """All that is shown of a session, gathered in the background."""

    selected: SelectedObject | None
    corrections: tuple[Correction, ...]
    lost: dict[int, str]
    undo: str
    redo: str
    made: Any
    gone: Any
    failed: str = ""


def open_session(case: Case, what: str, reader: str) -> CorrectionSession | CorrectionLog:
    """The record of one reader: with an editor for objects, without one for masks."""
    from napari_mosaik.core.catalogue import OBJECTS
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession

    return (
        CorrectionSession(case, what, reader)
        if what in OBJECTS
        else CorrectionLog(case, what, reader)
    )


def log_of(session: CorrectionSession | CorrectionLog) -> CorrectionLog:
    """The journal of a session."""
    from napari_mosaik.workflow.corrections import CorrectionSession

    return session.log if isinstance(session, CorrectionSession) else session


def merge(session: CorrectionSession, one: SelectedObject, at: Any) -> None:
    """Merge an object with the one at a place."""
    from napari_mosaik.core import InputError

    other = session.select(at)
    if other is None:
        raise InputError("there is no object where you clicked; click the second object")
    session.merge(one, other)


def drawn_area(mode: Any, points: Any, word: str = "") -> Correction:
    """An area that was drawn around, as a correction; *word* is what is bad about it."""
    from napari_mosaik.annotate import lasso_polygon

    return Correction(mode, word=word, area_wkt=lasso_polygon(points).wkt)


def gather(session: CorrectionSession | CorrectionLog, at: Any, failed: str = "") -> Seen:
    """What a session has to show; the object at a place is selected."""
    from napari_mosaik.workflow.corrections import CorrectionSession

    log = log_of(session)
    corrections = log.corrections
    selected, lost = None, {}
    made = [area_lines(one.area_wkt) for one in corrections if one.kind in ("add", "clear")]
    gone = [area_lines(one.area_wkt) for one in corrections if one.kind in ("cut", "flag")]
    if isinstance(session, CorrectionSession):
        if at is not None:
            selected = session.select(at)
        lost = {corrections.index(one): why for one, why in session.lost}
        made += [outline_lines(mask, lattice) for lattice, mask in session.edited_objects()]
        gone += [cross_lines(c.places_um[0], _CROSS_UM) for c in corrections if c.kind == "delete"]
    empty = np.zeros((0, 2, 2))
    return Seen(
        selected, corrections, lost, log.undo_title, log.redo_title,
        np.concatenate([empty, *made]), np.concatenate([empty, *gone]), failed,
    )  # fmt: skip
