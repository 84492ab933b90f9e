"""The manual corrections of a case: one journal for each corrected result and each reader.

    case/corrections/vessels/READER.jsonl     one line per correction, undo and redo

The journals are the only copy; the corrections in force are derived from them on request.
"""

from __future__ import annotations

import heapq
import json
from pathlib import Path
from typing import Any

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import CORRECTED, OBJECTS
from napari_mosaik.core.corrections import Correction, active_corrections
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.readers import reader_files, reader_of
from napari_mosaik.core.table import Table
from napari_mosaik.io.store import CaseStore

__all__ = ["correction_journals", "objects_now", "read_corrections"]


def correction_journals(root: Path, what: str) -> list[Path]:
    """The journals of all readers, by name; none where nothing was corrected."""
    return reader_files(root / "corrections" / what)


def read_corrections(root: Path, what: str) -> tuple[Correction, ...]:
    """The corrections of all readers that are in force, in the order in which they were made.

    Raises
    ------
    InputError
        A journal is damaged; the message names it and the line.
    """
    each = [
        active_corrections(_events(path), reader_of(path))[0]
        for path in correction_journals(root, what)
    ]
    return tuple(heapq.merge(*each, key=lambda correction: correction.time))


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


def _events(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a torn last line was never confirmed and is ignored."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"the corrections {path} cannot be read: {error}") from error
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line) if line.strip() else {}
        except ValueError:
            event = None
        if not isinstance(event, dict):
            if number == len(lines):
                break
            raise InputError(
                f"line {number} of the corrections {path} is damaged; restore the file from a "
                "copy, or delete it to discard the corrections of this reader"
            )
        if event:
            events.append(event)
    return events
