"""The manual corrections of a case, from the journals of its readers.

The journals are the only copy; the corrections in force are derived from them on request.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import CORRECTED, OBJECTS
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.journal import JournalEntry, JournalScan, correction_part, journals_of
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.io.store import CaseStore

__all__ = ["corrections_in", "corrections_of", "objects_now", "read_corrections"]


def read_corrections(root: Path, what: str) -> tuple[Correction, ...]:
    """The corrections of all readers that are in force, in the order in which they were made.

    Raises
    ------
    InputError
        A correction cannot be understood.
    """
    each = [
        [(entry.at, one) for entry, one in corrections_of(scan, what)]
        for scan in journals_of(root, correction_part(what)).values()
    ]
    return tuple(one for _, one in heapq.merge(*each, key=lambda pair: pair[0]))


def corrections_of(scan: JournalScan, what: str) -> list[tuple[JournalEntry, Correction]]:
    """The corrections of one reader that are in force, oldest first, each with its entry."""
    entries = scan.active(correction_part(what))
    return [
        (entry, one)
        for entry, event in zip(entries, scan.events(entries), strict=True)
        if entry.event == "add"
        for one in corrections_in(event, scan.reader, entry.time)
    ]


def corrections_in(
    event: Mapping[str, Any], reader: str = "", time: str = ""
) -> tuple[Correction, ...]:
    """The corrections of one entry: one, or all that a file brought."""
    given = event.get("corrections") or [event.get("correction") or {}]
    return tuple(Correction.from_dict(one, reader, time) for one in given)


def objects_now(store: CaseStore, what: str) -> tuple[Artifact[LabelImage], Artifact[Table]]:
    """Current labels, shape (rows, columns), and table of the "vessels" or "nuclei".

    These are the corrected objects if corrections were applied to the stored segmentation;
    otherwise the segmentation itself.
    """
    found, corrected = OBJECTS[what]
    before, after = store.origin(found[0]), store.origin(corrected[0])
    if before is None or after is None or (found[0].name, before.digest()) not in after.inputs:
        return found
    return corrected if store.record(corrected[0]).get(CORRECTED, {}).get("made") else found
