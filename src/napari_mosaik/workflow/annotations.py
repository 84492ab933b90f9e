"""The annotations of a case: open document, finished tiles, effect of a retraining."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
import shapely
from filelock import FileLock
from numpy.typing import NDArray

from napari_mosaik.annotate import (
    DEFAULT_CLASSES,
    LOCK,
    READING_TILE_UM,
    AnnotationDocument,
    ReadingTile,
    Snapshot,
    TissueClass,
    open_document,
    steps_of,
)
from napari_mosaik.annotate.compaction import Compacted
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    CLASS_RECORD,
    CLASSES,
    METRICS,
)
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.journal import (
    JournalPart,
    JournalScan,
    annotation_part,
    journals_of,
    readers_of,
)
from napari_mosaik.core.manifest import file_digest
from napari_mosaik.core.params import digest
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.core.shapes import DECIDED_BY, READER, AnnotatedShape
from napari_mosaik.core.text import natural_key
from napari_mosaik.io.annotations import write_geojson
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json, saving, write_bytes, write_json

__all__ = [
    "IMPORTED",
    "OWN_CLASS",
    "AnnotationResults",
    "FinishedTiles",
    "OpenAnnotations",
    "RetrainingEffect",
    "WithheldMap",
    "annotating_readers",
    "annotation_results",
    "copy_kept",
    "current_annotations",
    "decisions",
    "declared_classes",
    "finish_reading",
    "finished_by",
    "finished_tiles",
    "known_readers",
    "open_marks",
    "reader_documents",
    "readings",
    "retraining_effect",
    "shapes_to_export",
    "unfinished_readers",
    "withheld_class_map",
    "withheld_readers",
]

T = TypeVar("T")

_STAIN = "he"
_ADOPTED = "earlier annotations"
"""Title of the edit by which the first reader takes over shapes of a file."""
_WRITTEN = "written.json"
_TOUCHING_UM2: Final = 1e-3
"""A shape that covers no more of a reading tile only touches it."""
IMPORTED = "import of a file"
OWN_CLASS = "add class"
"""Titles of the edits by which classes of the user's own are declared."""


class OpenAnnotations(Closing):
    """The annotations of one reader on a slide of a case, open for editing.

    Every edit is in the reader's journal at once, and the journals are the truth; `save` writes the
    shapes of all readers to a GeoJSON file for other programs.  A reader sees no shapes of another.
    Shapes that a file brought into a case without journals belong to the first reader.

    Parameters
    ----------
    case
        The case; needs the slide.
    reader
        Name of the reader, which names the journal.
    stain
        The annotated slide.

    Raises
    ------
    InputError
        The name cannot be used, or the slide or the annotations cannot be read.
    CaseLocked
        The journal is open in another program.
    """

    def __init__(self, case: Case, reader: str, stain: str = _STAIN) -> None:
        self.case, self.stain = case, stain
        self.kept: Path | None = None
        """Copy of a GeoJSON file that another program had changed, after it was replaced."""
        with case.slide(stain) as slide:
            self.lattice = slide.lattice
        self._others: dict[str, tuple[str, tuple[AnnotatedShape, ...]]] = {}
        self._saving, self._number, self._saved = Lock(), 0, 0
        self.part = JournalPart(case.root, reader, annotation_part(stain))
        self.reader = self.part.reader
        try:
            self.document = AnnotationDocument.open(self.part, stain, overlap="new wins")
            if not journals_of(case.root, self.part.part):
                drawn = case.annotations(stain)
                if drawn:
                    self.document.add_many(drawn, _ADOPTED)
                    _remember(case, stain)
        except BaseException:
            self.part.close()
            raise

    def state(self) -> OpenState:
        """The present shapes, for `save` on another thread."""
        compacted, scan = self.document.state()
        self._number += 1
        return OpenState(compacted, scan, _edits(scan, self.stain), self._number)

    def save(self, state: OpenState | None = None) -> Path | None:
        """Write the GeoJSON file of all readers, with the given `state` of this one.

        To write in the background, take the state on the thread that edits.  One state is written
        at a time, and none after a later one.  What makes the journal quick to open is stored
        beside it.  Returns `kept`.
        """
        state = state or self.state()
        with self._saving:
            if state.number > self._saved:
                self._save(state)
                self._saved = state.number
            return self.kept

    def _save(self, state: OpenState) -> None:
        with ThreadPoolExecutor(1) as pool:
            beside = None
            if _worth_compacting(state.scan, self.part.part):
                now = state.compacted, state.scan
                beside = pool.submit(self.document.compact, now)
            own = {self.reader: (state.edits, state.compacted.snapshot.shapes)}
            self.kept = _write(self.case, self.stain, self.lattice, {**self._read_others(), **own})
            if beside is not None:
                with saving("the compacted annotations", self.part.journal.path.parent):
                    beside.result()

    def export(self, path: Path, state: OpenState, notes: list[str]) -> int:
        """Write the shapes of this reader alone as GeoJSON; their number.

        *notes* receives the doubts about them.
        """
        now = state.compacted.snapshot
        if not len(now):
            raise InputError(f"reader {self.reader} has no annotations to export")
        shapes = _as_in_qupath(_merged({self.reader: now.shapes}), {self.reader: now.classes})
        write_geojson(path, shapes, self.lattice)
        return len(shapes)

    def _read_others(self) -> dict[str, tuple[str, tuple[AnnotatedShape, ...]]]:
        for reader, scan in journals_of(self.case.root, self.part.part).items():
            edits = _edits(scan, self.stain)
            if reader != self.reader and self._others.get(reader, ("", ()))[0] != edits:
                self._others[reader] = (edits, open_document(scan, self.stain).shapes)
        return self._others

    def finish(self, tiles: Iterable[ReadingTile] | None = None) -> None:
        """Note in the journal that the reader regards reading tiles as complete; None for all."""
        part = {} if tiles is None else {"tiles": [list(tile) for tile in tiles]}
        self.part.append({"event": "finished", **part})

    def decide(self, region: str, label: str | None, readers: Sequence[str]) -> None:
        """Note in the journal what becomes of a region in which two readers differ.

        *region* is its key, *label* the class: empty for none, None to take a decision back.
        """
        named = {"readers": list(readers), "region": region, "label": label}
        self.part.append({"event": "adjudicated", **named})

    def close(self) -> None:
        """Release the journal."""
        self.part.close()


@dataclass(frozen=True, slots=True, eq=False)
class OpenState:
    """The annotations of a reader at one moment, their journal, and the digest of its edits.

    *number* is higher in a later one.
    """

    compacted: Compacted
    scan: JournalScan
    edits: str
    number: int


def _edits(scan: JournalScan, stain: str) -> str:
    """Digest of the edits in force of a journal."""
    return digest([one.mark for one in scan.active(annotation_part(stain)) if one.title])


_LONG: Final = 1 << 20
"""A journal with more bytes of edits than this is compacted."""


def _worth_compacting(scan: JournalScan, part: str) -> bool:
    return sum(entry.size for entry in scan.of_part(part)) > _LONG


def current_annotations(
    case: Case, stain: str = _STAIN, notes: list[str] | None = None
) -> tuple[AnnotatedShape, ...]:
    """The shapes of all readers of a case, from their journals; without any, those of its file.

    *notes* receives a sentence for each shape of the file that was repaired or excluded.
    """
    journals = journals_of(case.root, annotation_part(stain))
    if not journals:
        return case.annotations(stain, notes)
    return _merged({reader: open_document(scan, stain).shapes for reader, scan in journals.items()})


def copy_kept(case: Case, stain: str, content: bytes | None = None) -> Path:
    """Keep a copy of the annotations of a slide, or of *content*, beside them."""
    path = case.annotations_path(stain)
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    copy, number = path.with_name(f"{stain}-{time}.geojson"), 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{stain}-{time}-{number}.geojson")
    write_bytes(copy, path.read_bytes() if content is None else content)
    return copy


def _merged(shapes: Mapping[str, Iterable[AnnotatedShape]]) -> tuple[AnnotatedShape, ...]:
    """The shapes of all readers, each with the name of its reader and a key of its own."""
    merged: dict[str, AnnotatedShape] = {}
    for reader in sorted(shapes, key=natural_key):
        for shape in shapes[reader]:
            key = shape.key if shape.key not in merged else f"{shape.key} ({reader})"
            merged[key] = _named(shape, reader, key)
    return tuple(merged.values())


def _named(shape: AnnotatedShape, reader: str, key: str = "") -> AnnotatedShape:
    named = {**shape.properties, READER: reader}
    return AnnotatedShape(key or shape.key, shape.label, shape.geometry, shape.colour, named)


def _write(
    case: Case,
    stain: str,
    lattice: Lattice,
    states: Mapping[str, tuple[str, tuple[AnnotatedShape, ...]]],
) -> Path | None:
    """Write the shapes of all readers; the copy of a file that another program had changed."""
    path = case.annotations_path(stain)
    with FileLock(case.root / "journal" / "written.lock"):
        before = _written(case, stain).get("file")
        foreign = path.is_file() and file_digest(path) != before
        kept = copy_kept(case, stain) if foreign else None
        with saving("the annotations", path.parent):
            merged = _merged({reader: shapes for reader, (_, shapes) in states.items()})
            write_geojson(path, merged, lattice)
        _remember(case, stain)
    return kept


def _written(case: Case, stain: str) -> dict[str, Any]:
    """Digest of the file that was written last."""
    record = _records(case).get(stain)
    return dict(record) if isinstance(record, dict) else {}


def _records(case: Case) -> dict[str, Any]:
    try:
        record = read_json(case.root / "journal" / _WRITTEN)
    except InputError:  # absent, or damaged: then the file counts as changed, and a copy is kept
        return {}
    return record if isinstance(record, dict) else {}


def _remember(case: Case, stain: str) -> None:
    own = {"file": file_digest(case.annotations_path(stain))}
    write_json(case.root / "journal" / _WRITTEN, {**_records(case), stain: own})


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationResults:
    """What annotations lead to, at one time; None for what was missing.

    Parameters
    ----------
    codes
        Tissue classes (rows, columns), code of each pixel.
    areas_mm2
        Area of each class, mm².
    mae, mae_suv
        Mean absolute error of the prediction: dimensionless (normalised), and in the unit of SUV.
    unit
        Unit of *mae_suv*.
    """

    codes: NDArray[Any] | None = None
    areas_mm2: dict[str, float] | None = None
    mae: float | None = None
    mae_suv: float | None = None
    unit: str = ""


def annotation_results(case: Case) -> AnnotationResults:
    """The stored tissue classes and prediction error of a case; damaged ones count as absent."""

    def known(artifact: Artifact[T]) -> T | None:
        try:
            return case.store.read(artifact) if case.store.origin(artifact) else None
        except CorruptArtifact:
            return None

    classes, record, metrics = known(CLASSES), known(CLASS_RECORD), known(METRICS)
    codes = None if classes is None else classes.array()
    areas = None if record is None else record["area_mm2"]
    if metrics is None:
        return AnnotationResults(codes, areas)
    errors = metrics["suv_norm"]["mae"], metrics["suv_bsa"]["mae"]
    return AnnotationResults(codes, areas, *errors, str(metrics.get("unit", "")))


@dataclass(frozen=True, slots=True, eq=False)
class RetrainingEffect:
    """What changed between two times.

    Parameters
    ----------
    before, after
        The results at both times.
    compared
        Whether both times have a map of tissue classes.
    changed_fraction
        Fraction of the tissue whose class changed; None if not compared, or if the size of the map
        changed.
    """

    before: AnnotationResults
    after: AnnotationResults
    compared: bool
    changed_fraction: float | None

    @property
    def any_change(self) -> bool:
        """Whether anything that was there before is different now."""
        before, after = self.before, self.after
        classes = self.compared and self.changed_fraction != 0
        return classes or (before.mae is not None and before.mae != after.mae)


def retraining_effect(before: AnnotationResults, after: AnnotationResults) -> RetrainingEffect:
    """What changed between two times."""
    old, new = before.codes, after.codes
    if old is None or new is None:
        return RetrainingEffect(before, after, False, None)
    if old.shape != new.shape:
        return RetrainingEffect(before, after, True, None)
    tissue = (old > 0) | (new > 0)
    fraction = float(np.mean(old[tissue] != new[tissue])) if tissue.any() else 0.0
    return RetrainingEffect(before, after, True, fraction)


def reader_documents(case: Case, stain: str = _STAIN) -> dict[str, AnnotationDocument]:
    """The annotations of each reader of a case who has drawn any, from the journals."""
    journals = journals_of(case.root, annotation_part(stain))
    found = {reader: open_document(scan, stain) for reader, scan in journals.items()}
    return {reader: document for reader, document in found.items() if len(document)}


def annotating_readers(cases: Iterable[Case], stain: str = _STAIN) -> list[str]:
    """The readers who have annotated a slide of any of the cases, by name."""
    part = annotation_part(stain)
    names = {
        reader
        for case in cases
        for reader, scan in journals_of(case.root, part).items()
        if any(entry.title for entry in scan.active(part))
    }
    return sorted(names, key=natural_key)


def readings(case: Case, stain: str = _STAIN) -> dict[str, AnnotationDocument]:
    """The annotations of each reader; sets that an adjudicator has made are not readings."""
    return {
        reader: document
        for reader, document in reader_documents(case, stain).items()
        if any(DECIDED_BY not in shape.properties for shape in document.shapes)
    }


def declared_classes(case: Case, stain: str = _STAIN) -> tuple[str, ...]:
    """The classes that readers have declared as their own, or drawn with; by name."""
    names, part = set(), annotation_part(stain)
    for scan in journals_of(case.root, part).values():
        declaring = [e for e in scan.of_part(part) if e.title in (IMPORTED, OWN_CLASS)]
        for event in scan.events(declaring):
            names |= {str(entry[0]) for entry in event.get("classes", ())}
    return tuple(sorted(names))


def known_readers(case: Case) -> list[str]:
    """The readers who have annotated, corrected or rated anything of a case; by name."""
    return readers_of(case.root)


@dataclass(frozen=True, slots=True)
class FinishedTiles:
    """The reading tiles that a reader has finished and not changed since.

    Parameters
    ----------
    whole
        Whether all tiles were finished; then *tiles* are the exceptions, else the finished ones.
    tiles
        Row and column of tiles.
    """

    whole: bool = False
    tiles: frozenset[ReadingTile] = frozenset()

    def __contains__(self, tile: ReadingTile) -> bool:
        return self.whole is (tile not in self.tiles)

    @property
    def any(self) -> bool:
        """Whether a tile is finished."""
        return self.whole or bool(self.tiles)

    @property
    def complete(self) -> bool:
        """Whether all tiles are finished."""
        return self.whole and not self.tiles

    def common(self, other: FinishedTiles) -> FinishedTiles:
        """The tiles that both have finished."""
        if self.whole and other.whole:
            return FinishedTiles(True, self.tiles | other.tiles)
        if self.whole or other.whole:
            listed, rest = (other, self) if self.whole else (self, other)
            return FinishedTiles(False, listed.tiles - rest.tiles)
        return FinishedTiles(False, self.tiles & other.tiles)

    def at(self, points_um: FloatArray) -> NDArray[np.bool_]:
        """Whether each point (n, 2), µm of the slide, lies in a finished tile."""
        if self.complete or not self.any:
            return np.full(len(points_um), self.complete)
        places = np.floor(np.asarray(points_um) / READING_TILE_UM).astype(np.int64)
        tiles, where = np.unique(places, axis=0, return_inverse=True)
        inside = np.array([(row, column) in self for row, column in tiles.tolist()], bool)
        return inside[where.ravel()]

    def hold(self, tiles: Iterable[ReadingTile]) -> bool:
        """Whether all *tiles* are finished."""
        return self.complete or all(tile in self for tile in tiles)

    def changed(self, tiles: Iterable[ReadingTile], *, finished: bool) -> FinishedTiles:
        """The finished tiles after some were finished, or reopened by an edit."""
        listed = self.tiles - set(tiles) if finished is self.whole else self.tiles | set(tiles)
        return FinishedTiles(self.whole, frozenset(listed))


def _tiles_of(shapes: Sequence[AnnotatedShape]) -> frozenset[ReadingTile]:
    """The reading tiles of which shapes cover a part; those that they only touch are none."""
    areas = [shape.geometry for shape in shapes]
    edges = shapely.bounds(np.array(areas, object)).reshape(-1, 4) // READING_TILE_UM
    found: set[ReadingTile] = set()
    for area, (left, top, right, bottom) in zip(areas, edges.astype(int).tolist(), strict=True):
        near = {(r, c) for r in range(top, bottom + 1) for c in range(left, right + 1)}
        several = len(near) > 1
        found |= {one for one in near - found if not several or _reaches(area, *one)}
    return frozenset(found)


def _reaches(area: Any, row: int, column: int) -> bool:
    """Whether an area, µm of the slide, covers a part of a reading tile."""
    left, top = column * READING_TILE_UM, row * READING_TILE_UM
    box = (left, top, left + READING_TILE_UM, top + READING_TILE_UM)
    part = shapely.clip_by_rect(area, *box)
    return bool(shapely.area(part) > _TOUCHING_UM2)


def finished_tiles(case: Case, stain: str = _STAIN) -> dict[str, FinishedTiles]:
    """The reading tiles that each reader has finished; an edit reopens the tiles that it changes.

    Readers who have finished nothing are absent.
    """
    part = annotation_part(stain)
    found = {
        reader: finished_by(scan, stain)
        for reader, scan in journals_of(case.root, part).items()
        if any(entry.event == "finished" for entry in scan.of_part(part))
    }
    return {reader: state for reader, state in found.items() if state.any}


def finished_by(scan: JournalScan, stain: str = _STAIN) -> FinishedTiles:
    """The reading tiles that are finished at the end of the journal of one reader."""
    state = FinishedTiles()
    for event, before, after in steps_of(scan, stain):
        if event.get("event") == "finished":
            tiles = event.get("tiles")
            if tiles is None:
                state = FinishedTiles(True)
            else:
                state = state.changed([(int(r), int(c)) for r, c in tiles], finished=True)
        elif state.any and after is not before:
            state = state.changed(_touched(before, after), finished=False)
    return state


def _touched(before: Snapshot, after: Snapshot) -> set[ReadingTile]:
    """The reading tiles in which an edit changed a class."""
    keys = {key for key in {*before.entries, *after.entries}
            if before.entries.get(key) is not after.entries.get(key)}  # fmt: skip
    tiles: set[ReadingTile] = set()
    for key in keys:
        old, new = before.entries.get(key), after.entries.get(key)
        areas: list[Any] = [one.shape.geometry for one in (old, new) if one is not None]
        if old is not None and new is not None and old.shape.label == new.shape.label:
            areas = [areas[0].symmetric_difference(areas[1])]
        for part in shapely.get_parts(areas).tolist():
            left, top, right, bottom = (int(edge // READING_TILE_UM) for edge in part.bounds)
            tiles |= {(r, c) for r in range(top, bottom + 1) for c in range(left, right + 1)}
    return tiles


def unfinished_readers(case: Case, stain: str = _STAIN) -> tuple[str, ...]:
    """The readers who have not finished every tile of a slide in which anybody has drawn."""
    drawn, finished = readings(case, stain), finished_tiles(case, stain)
    marks = _tiles_of([shape for one in drawn.values() for shape in one.shapes])
    return tuple(name for name in drawn if not finished.get(name, FinishedTiles()).hold(marks))


def withheld_readers(case: Case, reader: str, stain: str = _STAIN) -> tuple[str, ...]:
    """The other readers of a slide whose marks may not help *reader*.

    Those who have drawn in a tile that not both have finished; none for somebody who has drawn
    nothing there.
    """
    drawn = readings(case, stain)
    if reader not in drawn or len(drawn) < 2:
        return ()
    finished = finished_tiles(case, stain)
    found = [
        name
        for name, document in drawn.items()
        if name != reader and not _common(finished, (reader, name)).hold(_tiles_of(document.shapes))
    ]
    return tuple(sorted(found, key=natural_key))


def _common(finished: Mapping[str, FinishedTiles], readers: Iterable[str]) -> FinishedTiles:
    """The tiles that some readers all have finished."""
    common = FinishedTiles(True)
    for reader in readers:
        common = common.common(finished.get(reader, FinishedTiles()))
    return common


@dataclass(frozen=True, slots=True)
class WithheldMap:
    """From whom the class map of a slide is hidden, and why, in words.

    Parameters
    ----------
    readers
        Why by reader, of all who have drawn there; empty for those from whom it is not hidden.
    learned
        Those whose marks are hidden with it from a reader who has drawn nothing yet.
    """

    readers: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[str, ...] = ()

    def why(self, reader: str) -> str:
        """Why it is hidden from a reader; empty where it is not.

        Without a name it is hidden as soon as it is from anybody who has drawn.
        """
        if not reader:
            return next(filter(None, self.readers.values()), "")
        if reader in self.readers or not self.learned:
            return self.readers.get(reader, "")
        return (
            f"{_hidden(reader, self.learned)}, and {reader} has not drawn and finished there. "
            "Without a name it is shown to anyone who does not read this slide"
        )


def _hidden(reader: str, whose: Iterable[str]) -> str:
    names = " and ".join(sorted(whose, key=natural_key))
    return (
        f"The class map is hidden from {reader}: its model has learned from the marks of {names} "
        "on this slide"
    )


def withheld_class_map(case: Case) -> WithheldMap:
    """From whom the class map of the H&E slide is hidden.

    Its model has learned from marks of another reader on this slide in a tile that not both have
    finished.  Who has drawn nothing there yet is to read it, too, until at least two have, and all
    have finished the tiles of these marks.
    """
    if case.store.origin(CLASSES) is None:
        return WithheldMap()
    model = str(case.store.record(CLASSES).get("params", {}).get("model", ""))
    card = case.model_folder(model) / "card.json"
    training = read_json(card).get("training", {}) if model and card.is_file() else {}
    journal = training.get("journal") or {}
    ranges = journal.get(case.name, {}) if journal else dict.fromkeys(training.get("readers") or ())
    drawn = readings(case) if ranges else {}
    if not drawn:
        return WithheldMap()
    scans, finished = journals_of(case.root, annotation_part(_STAIN)), finished_tiles(case)
    learned = {
        name: marks
        for name, entries in ranges.items()
        if name in scans and (marks := _learned_marks(scans[name], entries))
    }
    found = {}
    for reader in drawn:
        whose = [
            name
            for name, marks in learned.items()
            if name != reader and not _common(finished, (reader, name)).hold(marks)
        ]
        why = "and they have not finished the same tiles"
        found[reader] = f"{_hidden(reader, whose)}, {why}" if whose else ""
    over = len(drawn) > 1 and all(_common(finished, drawn).hold(m) for m in learned.values())
    return WithheldMap(found, () if over else tuple(sorted(learned, key=natural_key)))


_LEARNED: dict[tuple[str, str, int, int], frozenset[ReadingTile]] = {}
"""The tiles of the marks that trainings have seen, by journal and entries, which never change."""


def _learned_marks(scan: JournalScan, entries: Sequence[int] | None) -> frozenset[ReadingTile]:
    """The tiles with marks of a reader that a training has seen.

    *entries* of the journal are the first and the last one that it read, after those of its parent;
    None for what is there now.
    """
    if entries is None:
        return _tiles_of(_not_adjudicated(open_document(scan, _STAIN).snapshot))
    first, last = entries
    key = (str(scan.path), scan.digest(last), first, last)
    if key not in _LEARNED:
        own = parents = Snapshot()
        for event, _, after in steps_of(scan, _STAIN):
            own = after if event["n"] <= last else own
            parents = after if event["n"] < first else parents
        _LEARNED[key] = _tiles_of([*_not_adjudicated(own), *_not_adjudicated(parents)])
    return _LEARNED[key]


def _not_adjudicated(snapshot: Snapshot) -> list[AnnotatedShape]:
    return [shape for shape in snapshot.shapes if DECIDED_BY not in shape.properties]


def open_marks(
    case: Case, reader: str, stain: str = _STAIN
) -> dict[str, tuple[AnnotationDocument, FinishedTiles]]:
    """The annotations that a reader may see, each with the tiles in which.

    Their own everywhere, and those of another in the tiles that both have finished.  Who has drawn
    nothing sees tiles that all have finished; without a name, also everything of a single reader.
    """
    documents, drawn = reader_documents(case, stain), readings(case, stain)
    finished, everywhere = finished_tiles(case, stain), FinishedTiles(True)
    if len(drawn) < 2 and reader not in drawn:
        return {} if reader else {name: (one, everywhere) for name, one in drawn.items()}
    seen = {
        name: everywhere
        if name == reader
        else _common(finished, (reader, name) if reader in drawn else (*drawn, name))
        for name in documents
    }
    return {name: (documents[name], tiles) for name, tiles in seen.items() if tiles.any}


def decisions(case: Case, stain: str = _STAIN) -> dict[str, dict[str, str]]:
    """What each adjudicator has decided: the class of each region by its key, empty for none."""
    found: dict[str, dict[str, str]] = {}
    part = annotation_part(stain)
    for reader, scan in journals_of(case.root, part).items():
        made = [entry for entry in scan.of_part(part) if entry.event == "adjudicated"]
        for event in scan.events(made):
            own = found.setdefault(reader, {})
            own.pop(str(event["region"]), None)
            if event.get("label") is not None:
                own[str(event["region"])] = str(event["label"])
    return found


def shapes_to_export(
    case: Case, stain: str, reader: str, notes: list[str], *, blind: bool = True
) -> tuple[AnnotatedShape, ...]:
    """The shapes of a reader, or of all, each with the colour of its class.

    *notes* receives the doubts about them.  Raises `InputError` where there are none, and with
    *blind* for those of all readers before all have finished the tiles in which they lie.
    """
    documents = reader_documents(case, stain)
    reading = readings(case, stain)
    waiting = unfinished_readers(case, stain) if blind and not reader and len(reading) > 1 else ()
    if waiting:
        raise InputError(
            f"case {case.name} has the readers {', '.join(reading)}, and readers see each other's "
            "marks after all have finished the tiles in which anybody has drawn "
            f"({', '.join(waiting)} not yet): give one with --reader, or --all if you do not read"
        )
    if reader:
        name = check_reader_name(reader)
        if name not in documents:
            known = ", ".join(documents) or "none"
            raise InputError(
                f"reader {name} has no annotations on {stain} of case {case.name}; readers: {known}"
            )
        documents = {name: documents[name]}
    shapes = _merged({name: document.shapes for name, document in documents.items()})
    shapes = shapes or case.annotations(stain, notes)
    if not shapes:
        raise InputError(f"case {case.name} has no annotations on {stain}")
    return _as_in_qupath(shapes, {name: one.classes for name, one in documents.items()})


def _as_in_qupath(
    shapes: Iterable[AnnotatedShape], classes: Mapping[str, Iterable[TissueClass]]
) -> tuple[AnnotatedShape, ...]:
    """The shapes of readers with the colours of their *classes*, locked where the class is."""
    listed = [(reader, known) for reader, all_of in classes.items() for known in all_of]
    colours = {known.name: known.colour for known in (*(c for _, c in listed), *DEFAULT_CLASSES)}
    locked = {(reader, known.name) for reader, known in listed if known.locked}

    def shown(shape: AnnotatedShape) -> AnnotatedShape:
        colour, properties = shape.colour or colours.get(shape.label, ""), shape.properties
        if locked and (str(properties.get(READER)), shape.label) in locked:
            properties = {**properties, LOCK: True}
        return AnnotatedShape(shape.key, shape.label, shape.geometry, colour, properties)

    return tuple(map(shown, shapes))


def finish_reading(case: Case, reader: str, stain: str = _STAIN) -> dict[str, Any]:
    """Mark the annotations of a reader as complete; their classes with shapes and area.

    Raises
    ------
    InputError
        If the reader has no annotations.
    CaseLocked
        If they are open in a window.
    """
    with OpenAnnotations(case, reader, stain) as opened:
        document = opened.document
        if not len(document):
            raise InputError(f"reader {opened.reader} has no annotations on case {case.name}")
        opened.save()
        opened.finish()
    counts, areas = document.count_by_class(), document.area_by_class_um2()
    rows = [{"name": n, "shapes": counts[n], "area_mm2": areas[n] / 1e6} for n in counts]
    empty = [name for name, n in counts.items() if not n]
    warnings = [f"case {case.name}: nothing is annotated as '{name}'" for name in empty]
    return {
        "case": case.name, "slide": stain, "reader": opened.reader,
        "classes": rows, "warnings": warnings,
    }  # fmt: skip
