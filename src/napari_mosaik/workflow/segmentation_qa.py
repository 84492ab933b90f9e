"""Visual QA of the segmentations of a case: who rated which result, and the error rates.

    part "qa:vessels" of the reader's journal     one line per rating, on the disk before the next

Ratings belong to one result (its origin).  When the result changes, they stay on record as those
of an earlier result, and a new sample is drawn.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from napari_mosaik.annotate.visual_qa import (
    ObjectRating,
    OverallRating,
    QaSample,
    QaSummary,
    draw_sample,
    summarise_qa,
)
from napari_mosaik.core.catalogue import OBJECTS, REFERENCE, TILES
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.corrections import CORRECTED_FRAMES, Point
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.journal import JournalChange, JournalPart, journals_of, qa_part
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.io.files import write_bytes
from napari_mosaik.segment.label_editing import ObjectEditor

__all__ = ["QA_TARGETS", "PlaceToCorrect", "SegmentationQa", "qa_records", "qa_records_csv"]

QA_TARGETS = tuple(OBJECTS)
"""Segmentations that can be rated, with manual corrections where they were applied."""
N_OBJECTS, N_FIELDS = 60, 8


@dataclass(frozen=True, slots=True)
class PlaceToCorrect:
    """An object that was judged wrong, or a tile with missed objects.

    Parameters
    ----------
    place_um, frame
        A position in the object, or the centre of the tile, (row, column) in µm of the section
        *frame*.
    size_um
        Longest extent of the object, or side length of the tile, µm.
    missed
        Number of objects that were missed in the tile; 0 for an object.
    """

    place_um: Point
    frame: str
    size_um: float
    missed: int = 0


class SegmentationQa(Closing):
    """One reader's visual QA of one segmentation; resumes an unfinished one.

    Parameters
    ----------
    case
        The case.
    what
        "vessels" or "nuclei".
    reader
        Name of the reader; see `check_reader_name`.
    n_objects, n_fields, seed
        Size and random seed of a new sample; an unfinished QA keeps its own.

    Raises
    ------
    InputError
        If there is no such result, it has no objects, or the reader's name is not valid.
    """

    def __init__(
        self,
        case: Case,
        what: str,
        reader: str,
        *,
        n_objects: int = N_OBJECTS,
        n_fields: int = N_FIELDS,
        seed: int = 0,
    ) -> None:
        if what not in QA_TARGETS:
            raise InputError(f"no visual QA of '{what}'; use one of: {', '.join(QA_TARGETS)}")
        origin = case.store.origin(objects_now(case.store, what)[0])
        if origin is None:
            raise InputError(
                f"case {case.name} has no {what} yet; run: napari-mosaik run {case.root}"
            )
        self.case, self.what = case, what
        self.part = JournalPart(case.root, reader, qa_part(what))
        self.reader = self.part.reader
        try:
            self._open(origin.digest(), n_objects, n_fields, seed)
        except BaseException:
            self.part.close()
            raise
        self.part.follow(self._journal_changed)

    @property
    def objects(self) -> Table:
        """The measured objects of the present result, one row each."""
        return self.case.store.read(objects_now(self.case.store, self.what)[1])

    def _open(self, result: str, n_objects: int, n_fields: int, seed: int) -> None:
        sessions = _sessions(self.part.active())
        if not sessions or sessions[-1]["result"] != result:
            table = self.objects
            if len(table) == 0:
                raise InputError(f"case {self.case.name} has no {self.what}: none were detected")
            fields = np.zeros(0, np.int64)
            if self.case.store.origin(TILES) is not None:
                fields = np.flatnonzero(self.case.store.read(TILES).inner)
            sample = draw_sample(np.arange(1, len(table) + 1), fields, n_objects, n_fields, seed)
            self.part.append(
                {"event": "sample", "qa": self.what, "result": result, "seed": seed,
                 "n": len(table), **asdict(sample)}
            )  # fmt: skip
        self._sessions = _sessions(self.part.active())

    def _journal_changed(self, change: JournalChange) -> None:
        """Follow every rating, also one that another view undid or redid."""
        if change.kind == "append":
            self._sessions[-1]["events"].append(dict(change.event))
        else:
            self._sessions = _sessions(self.part.active())

    @property
    def sample(self) -> QaSample:
        """The sample to rate."""
        return _sample(self._sessions[-1])

    @property
    def summary(self) -> QaSummary:
        """The ratings so far."""
        return summarise_qa(self.sample, self._sessions[-1]["events"])

    def next_object(self) -> int | None:
        """Label of the first object without a rating; None when all are rated."""
        return self._next("object", self.sample.objects)

    def next_field(self) -> int | None:
        """Index of the first tile that was not searched; None when all were."""
        return self._next("field", self.sample.fields)

    def _next(self, key: str, sample: tuple[int, ...]) -> int | None:
        done = {event.get(key) for event in self._sessions[-1]["events"]}
        return next((item for item in sample if item not in done), None)

    def to_correct(self) -> list[PlaceToCorrect]:
        """The objects rated wrong, then the tiles with missed objects; the last rating counts."""
        ratings: dict[int, str] = {}
        missed: dict[int, int] = {}
        for event in self._sessions[-1]["events"]:
            if "object" in event:
                ratings[event["object"]] = event["rating"]
            elif "field" in event:
                missed[event["field"]] = event["missed"]
        wrong = [label for label in self.sample.objects if ratings.get(label) == "wrong"]
        places = []
        store = self.case.store
        if wrong:
            found, rows = objects_now(store, self.what)
            labels = store.read(found)
            editor = ObjectEditor(labels.values, labels.lattice, store.read(rows))
            for label in wrong:
                window, mask = editor.mask(label)
                depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
                index = np.unravel_index(depth.argmax(), depth.shape)
                row, column = labels.lattice.crop(*window).to_um([index])[0]
                size = max(mask.shape) * max(labels.lattice.spacing_um)
                places.append(
                    PlaceToCorrect((float(row), float(column)), CORRECTED_FRAMES[self.what], size)
                )
        tiles = [tile for tile in self.sample.fields if missed.get(tile)]
        if tiles:
            grid = store.read(TILES)
            for tile in tiles:
                row, column = grid.centres_um[tile]
                place = (float(row), float(column))
                places.append(PlaceToCorrect(place, REFERENCE, float(grid.size_um), missed[tile]))
        return places

    def rate_object(self, label: int, rating: ObjectRating) -> None:
        """Rate an object of the sample; a later rating replaces an earlier one."""
        if rating not in get_args(ObjectRating):
            allowed = ", ".join(get_args(ObjectRating))
            raise InputError(f"'{rating}' is not a rating of an object; use one of: {allowed}")
        if label not in self.sample.objects:
            raise InputError(f"object {label} is not in the sample")
        title = f"rating of object {label}"
        self.part.append(
            {"event": "object", "title": title, "object": int(label), "rating": rating}
        )

    def record_missed(self, field: int, detected: int, missed: int) -> None:
        """Record how many objects a tile of the sample has, and how many were missed there."""
        if field not in self.sample.fields:
            raise InputError(f"tile {field} is not in the sample")
        if min(detected, missed) < 0:
            raise InputError(
                f"counts must not be negative: {detected} detected, {missed} missed in tile {field}"
            )
        counts = {"field": int(field), "detected": int(detected), "missed": int(missed)}
        self.part.append({"event": "field", "title": f"count in tile {field}", **counts})

    def rate_overall(self, rating: OverallRating, comment: str = "") -> None:
        """Rate the whole segmentation."""
        if rating not in get_args(OverallRating):
            allowed = ", ".join(get_args(OverallRating))
            raise InputError(f"'{rating}' is not an overall rating; use one of: {allowed}")
        words = {"overall_rating": rating, "comment": comment}
        self.part.append({"event": "overall", "title": "overall rating", **words})

    def close(self) -> None:
        """Release the reader's journal."""
        self.part.close()


def qa_records(case: Case) -> list[dict[str, Any]]:
    """All visual QA of a case, one row each: what, reader, time, rates with intervals, rating.

    ``state`` is "current" or "earlier result": whether the ratings belong to the present result.
    """
    rows = []
    for what in QA_TARGETS:
        origin = case.store.origin(objects_now(case.store, what)[0])
        present = None if origin is None else origin.digest()
        for reader, scan in journals_of(case.root, qa_part(what)).items():
            for session in _sessions(scan.events(scan.active(qa_part(what)))):
                state: Literal["current", "earlier result"] = (
                    "current" if session["result"] == present else "earlier result"
                )
                row = {"what": what, "reader": reader, "state": state, **_row(session)}
                rows.append(row)
    return rows


def _row(session: dict[str, Any]) -> dict[str, Any]:
    summary = summarise_qa(_sample(session), session["events"])
    last = session["events"][-1] if session["events"] else session
    row: dict[str, Any] = {
        "time": last.get("time", session["time"]),
        "objects": session["n"],
        "sample": len(session["objects"]),
    }
    for name in ("correct", "wrong", "unsure", "fields", "detected", "missed"):
        row[name] = getattr(summary, name)
    for name, rate in (("false", summary.false_rate), ("miss", summary.miss_rate)):
        for part in ("estimate", "low", "high"):
            row[f"{name}_rate_{part}"] = None if rate is None else getattr(rate, part)
    row["finished"] = summary.to_rate == 0 and summary.to_search == 0
    return {**row, "overall_rating": summary.overall_rating, "comment": summary.comment}


def qa_records_csv(rows: list[dict[str, Any]]) -> str:
    """The rows of `qa_records` as CSV with a header; a cell is empty where a rate is unknown."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def write_qa_csv(case: Case, path: Path) -> None:
    """Write all visual QA of a case as CSV; see `qa_records`."""
    write_bytes(path, qa_records_csv(qa_records(case)).encode())


def _sample(session: Mapping[str, Any]) -> QaSample:
    return QaSample(tuple(session["objects"]), tuple(session["fields"]))


def _sessions(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The visual QA sessions of a journal, one per sample, each with its own events."""
    sessions: list[dict[str, Any]] = []
    for event in events:
        if "qa" in event:
            sessions.append({**event, "events": []})
        elif sessions:
            sessions[-1]["events"].append(event)
    return sessions
