"""Whether the measured uptake of a case was shown to somebody who corrected it afterwards.

    shown ─► journal/runs.jsonl: who saw what, and how far each reader's journal had come
    a later annotation or correction of the same person ─► development case (`steered_by`)

Only appended files are read, so the answer is the same after the case was opened again, and what
was once true stays true.  What a reader does while a blind review queue of theirs is open does not
count: nothing measured is shown then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from napari_mosaik.core.earlier_journals import RUNS
from napari_mosaik.core.journal import (
    REVIEW,
    JournalScan,
    annotation_part,
    correction_part,
    journals_of,
)

__all__ = ["BLIND", "FINISHED", "QUEUE", "SHOWN", "has_seen", "seen_by", "steered_by"]

QUEUE, FINISHED, BLIND = "queue", "finished", "blind"
"""Entries of the journal that begin and end a queue, and the mark of one that hides the PET."""
SHOWN: Final = "measured uptake shown"
"""Event of the journal of runs, see `Case.note_shown`."""
_WORK: Final = (annotation_part(""), correction_part(""))
"""How the parts begin whose entries reach the prediction."""


def seen_by(root: Path) -> dict[str, dict[str, Any]]:
    """What was shown to whom first, and the entries of each reader's journal before that.

    The reader "" is a person who gave no name.  Lines that cannot be read say nothing.
    """
    path = root / "journal" / RUNS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if SHOWN.encode() in line:
            try:
                entry = json.loads(line)
                if entry["event"] == SHOWN:
                    known = {str(name): int(n) for name, n in entry["entries"].items()}
                    shown = {"what": str(entry["what"]), "entries": known}
                    found.setdefault(str(entry["reader"]), shown)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return found


def has_seen(readers: frozenset[str] | dict[str, Any], reader: str) -> bool:
    """Whether a reader is among those who saw the measured uptake, as far as names tell."""
    return bool(readers) and (not reader or reader in readers or "" in readers)


def steered_by(root: Path) -> str:
    """What was shown to a person who then annotated or corrected the case; "" if nothing was."""
    seen = seen_by(root)
    if not seen:
        return ""
    for name, scan in journals_of(root).items():
        for reader, shown in seen.items():
            if reader in ("", name) and _worked(scan, shown["entries"].get(name, 0)):
                whom = f"reader {reader}" if reader else "a reader"
                return f"{name} corrected it after {shown['what']} had been shown to {whom}"
    return ""


def _worked(scan: JournalScan, first: int) -> bool:
    """Whether a journal has an annotation or correction from an entry on that was not blind."""
    turns = [one for one in scan.entries if one.part == REVIEW and one.event in (QUEUE, FINISHED)]
    begun = {event["n"]: event for event in scan.events(turns)}
    blind = False
    for one in scan.entries:
        if one.n in begun:
            blind = one.event == QUEUE and (blind or bool(begun[one.n].get(BLIND)))
        elif one.n >= first and not blind and one.part.startswith(_WORK) and one.event != FINISHED:
            return True
    return False
