"""The review queue of a case: its signals, a reader's session on it, and the development flag.

    results ─► signals (`review_signals`) ─► `review_queue` ─► JSON of the command line
                                                  └─► `QueueSession` ─► journal of the reader

Only the ranking "uptake" reads the measured uptake; before it does, the case is marked as a
development case (``development`` in ``case.toml``), and its metrics are computed again with that.
So is a case that somebody corrected to whom its measured uptake had been shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate.review_queue import (
    DEFAULT_RANKING,
    ERROR_RANKING,
    RANKINGS,
    ErrorRate,
    QueuedTile,
    ReviewQueueParams,
    Signal,
    class_signals,
    cold_among_hot,
    draw_queue,
    error_rate,
    expected_gain,
    priorities,
    ranking_named,
    spread_order,
    take_turns,
    tile_kinds,
)
from napari_mosaik.core.artifact import Artifact, defined_artifacts
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLASS_PROBABILITY,
    CLASSES,
    CORRECTED_ARTEFACT_MASK,
    METRICS,
    PET,
    PREDICTION,
    PREDICTION_RECORD,
    REFERENCE,
    STAIN_TITLES,
    STAINS,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.errors import Blocked, CaseLocked, CorruptArtifact, InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.journal import REVIEW, JournalChange, JournalPart, journals_of
from napari_mosaik.core.params import digest
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.core.text import counted
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json, write_json
from napari_mosaik.io.seen_uptake import (
    BLIND,
    FINISHED,
    QUEUE,
    has_seen,
    seen_by,
    steered_by,
)
from napari_mosaik.register import transform_of
from napari_mosaik.segment.training_pixels import class_codes, class_list
from napari_mosaik.tissue import ARTEFACT_NAMES
from napari_mosaik.workflow.annotations import open_marks, withheld_class_map
from napari_mosaik.workflow.case_status import CaseStatus, case_status
from napari_mosaik.workflow.leaks import development_warning
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps import maker_of

__all__ = [
    "RANKINGS",
    "Decision",
    "Judgement",
    "QueueSession",
    "ReviewQueue",
    "blind_readers",
    "has_seen",
    "mark_development",
    "mark_steered",
    "review_queue",
    "seen_by",
]

POINTS = 12
"""Each tile is sampled at so many x so many points."""
RIM_UM = 50.0
"""An artefact within this distance of a tile counts for it."""
READING_UM = 8.0
"""Pixel size at which the annotations of readers are compared, µm."""
STOP_BELOW = 0.05
"""Expected gain below which stopping is proposed, until the reader sets another value."""
FEWEST = 10
"""Stopping is not proposed before so many tiles were judged."""
_CONSTANT: Final = ("baseline_mean", "baseline_position")
"""Baselines that do not look at the tissue."""
_CLASS_SIGNALS: Final = ("uncertainty", "boundary", "rare")
Decision = Literal["accept", "reject", "edit"]


@dataclass(frozen=True, slots=True, eq=False)
class ReviewQueue:
    """The queue of a case under one ranking, with doubts about it.

    ``hides_measured``: nobody may see the measured uptake while it is worked on, since its ranking
    is blind to it and the case may be a test case.
    """

    case: str
    ranking: str
    seed: int
    development: bool
    tiles: tuple[QueuedTile, ...]
    warnings: tuple[str, ...] = ()
    hides_measured: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        rows = []
        for item in self.tiles:
            row = asdict(item)
            del row["place"]
            if item.control:
                row["reason"] = f"random control sample; {item.reason}"
            else:
                del row["probability"]
            rows.append(row)
        about = {"about": ranking_named(self.ranking).about, "development": self.development}
        return {
            "case": self.case, "ranking": self.ranking, "seed": self.seed, **about,
            "n": len(rows), "tiles": rows, "warnings": list(self.warnings),
        }  # fmt: skip


def review_queue(
    case: Case,
    ranking: str = DEFAULT_RANKING,
    seed: int = 0,
    params: ReviewQueueParams | None = None,
    *,
    reader: str = "",
) -> ReviewQueue:
    """The tiles of a case in order of review priority, with a random control sample mixed in.

    The ranking "uptake" first marks the case as a development case (`mark_development`).  Nothing
    that comes from the marks of another ranks for a *reader* before both have finished the same
    tiles; a warning says which signals are missing for that.

    Raises
    ------
    InputError
        An unknown ranking, or a result that it needs is not there.
    CorruptArtifact
        A result that it needs is damaged.
    """
    chosen, params = ranking_named(ranking), params or ReviewQueueParams()
    results = _Results(case, reader)
    if not results.done(TILES):
        raise InputError(
            f"case {case.name} has no tiles yet ({results.why(TILES)}); run: napari-mosaik run "
            f"{case.root}"
        )
    grid = results.read(TILES)
    lacking: dict[str, str] = {}
    signals = {
        name: signal
        for name, signal in _signals(results, grid, set(chosen.weights), lacking).items()
        if np.isfinite(signal.values).any() or lacking.setdefault(name, "no tile has any")
    }
    signals = {name: signal for name, signal in signals.items() if name not in lacking}
    if not signals:
        why = "; ".join(dict.fromkeys(lacking.values()))
        helps = "" if results.hidden else f". Run: napari-mosaik run {case.root}"
        raise InputError(f"case {case.name} cannot be ranked by '{ranking}': {why}{helps}")
    if not chosen.blind:
        mark_development(case)
    priority, reasons = priorities(signals, chosen, len(grid))
    order, scores = spread_order(priority, grid.centres_um, params.apart_um)
    if ranking == DEFAULT_RANKING and "uncertainty" in signals:
        looks = _class_points(results, grid)
        kinds = tile_kinds(looks, np.isfinite(priority), params.kinds)
        order, scores = take_turns(order, scores, kinds)
    tiles = draw_queue(order, scores, reasons, seed, params.control_share)
    by_reason: dict[str, list[str]] = {}
    for name, why in lacking.items():
        by_reason.setdefault(why, []).append(name)
    warnings = [f"ranked without {', '.join(n)}: {why}" for why, n in by_reason.items()]
    seen = results.done(PREDICTION) and results.read(PREDICTION_RECORD)["seen_in_training"]
    if seen:
        warnings.append(
            f"the predictor was trained on case {case.name}: its predicted uptake is not blind to "
            "the measured one"
        )
    development = case.is_development
    if development:
        warnings.append(development_warning(case.name))
    hides = not (development or seen) and not case.missing_reason(PET)
    return ReviewQueue(case.name, ranking, seed, development, tuple(tiles), tuple(warnings), hides)


def mark_development(
    case: Case, reason: str = f"review queue ranked by '{ERROR_RANKING}'", *, compute: bool = True
) -> None:
    """Mark a case whose measured uptake is used to rank or steer: its error is optimistic now.

    The metrics, if there are any, are computed again at once, so that they carry the mark; without
    *compute* they are stale.
    """
    from napari_mosaik.workflow.run import run

    if not case.file.development:
        case.update(development=True)
        case.log("development", reason=reason)
    step, recipe = maker_of(METRICS), read_recipe(case.root)
    if compute and case_status(case, recipe).states[step.name].word in ("stale", "missing"):
        # Where an earlier step has to run first, they are marked when they are computed.
        with contextlib.suppress(Blocked):
            for _ in run(case, step, recipe[step.name], recipe=recipe):
                pass
    copy = case.root.parent.parent / "metrics.json"  # where `demo` puts one
    with contextlib.suppress(InputError, AttributeError):
        record = read_json(copy)
        if record.get("test_case") == case.name:
            write_json(copy, {**record, "development": True})


def mark_steered(case: Case, *, compute: bool = True) -> None:
    """Mark a case that a person corrected after its measured uptake was shown to them.

    Its metrics are computed again where *compute*; they are stale otherwise.  A case in use by
    another program is marked the next time: `Case.is_development` is true meanwhile.
    """
    why = "" if case.file.development else steered_by(case.root)
    if why:
        with contextlib.suppress(CaseLocked):
            mark_development(case, why, compute=compute)


def blind_readers(case: Case) -> frozenset[str]:
    """The readers who may not see the measured uptake of a case.

    A blind queue of theirs was begun and not finished, in whatever window.  Nobody in a development
    case.
    """
    if case.is_development:
        return frozenset()
    found = set()
    for reader, scan in journals_of(case.root, REVIEW).items():
        turns = [entry for entry in scan.active(REVIEW) if entry.event in (QUEUE, FINISHED)]
        blind = False
        for event in scan.events(turns):
            blind = event["event"] == QUEUE and (blind or bool(event.get(BLIND)))
        if blind:
            found.add(reader)
    return frozenset(found)


# --- signals --------------------------------------------------------------------------------------
class _Results:
    """The results of a case that are done; each is read once.

    ``hidden`` says why the class map, and what is computed from it, is hidden from the reader.
    """

    def __init__(self, case: Case, reader: str) -> None:
        self.case, self.reader = case, reader
        self.hidden = withheld_class_map(case).why(reader)
        self._status: CaseStatus = case_status(case)
        self._read: dict[str, Any] = {}

    def done(self, artifact: Artifact[Any]) -> bool:
        state = self._status.states[maker_of(artifact).name]
        if state.damaged:
            raise CorruptArtifact(state.reason)
        return state.word == "done"

    def shown(self, artifact: Artifact[Any]) -> bool:
        """Whether a result is done and not hidden from the reader."""
        return self.done(artifact) and not (self.hidden and self._knows_classes(artifact))

    def _knows_classes(self, artifact: Artifact[Any]) -> bool:
        """Whether a result was computed from the class map, or with it."""
        if maker_of(artifact) == maker_of(CLASSES):
            return True
        origin = self.case.store.origin(artifact)
        names = {name for name, _ in origin.inputs} if origin is not None else set()
        return any(self._knows_classes(one) for one in defined_artifacts() if one.name in names)

    def why(self, artifact: Artifact[Any]) -> str:
        """Why a result is not there, in words."""
        step = maker_of(artifact)
        if self.done(artifact):
            made = "" if step == maker_of(CLASSES) else f"{step.title} reads the class map. "
            return f"{made}{self.hidden}"
        state = self._status.states[step.name]
        return f"{step.title.lower()}: {state.word}" + (f", {state.reason}" if state.reason else "")

    def read(self, artifact: Artifact[Any]) -> Any:
        if artifact.name not in self._read:
            self._read[artifact.name] = self.case.store.read(artifact)
        return self._read[artifact.name]

    def to_reference(self, stain: str) -> Transform | None:
        """The transform of a section to the reference one; None where it is not aligned."""
        if stain == REFERENCE:
            return Transform.identity(REFERENCE, REFERENCE)
        return transform_of(self.read(ALIGNMENT[stain])) if self.done(ALIGNMENT[stain]) else None


def _signals(
    results: _Results, grid: TileGrid, wanted: set[str], lacking: dict[str, str]
) -> dict[str, Signal]:
    """The wanted signals that there are; *lacking* receives why each of the others is missing."""
    signals: dict[str, Signal] = {}
    classified = results.shown(CLASS_PROBABILITY) and results.done(ALIGNMENT["he"])
    if wanted.intersection(_CLASS_SIGNALS):
        if classified:
            names = results.read(CLASS_PROBABILITY).channels
            found = class_signals(_class_points(results, grid), names)
            signals |= {name: found[name] for name in _CLASS_SIGNALS if name in wanted}
        else:
            absent = CLASS_PROBABILITY if not results.shown(CLASS_PROBABILITY) else ALIGNMENT["he"]
            lacking |= {name: results.why(absent) for name in _CLASS_SIGNALS if name in wanted}
    makers: dict[str, Callable[[_Results, TileGrid], Signal | str]] = {
        "disagreement": _disagreement,
        "cold-among-hot": _cold,
        "artefacts": _artefacts,
        ERROR_RANKING: _error,
    }
    for name, make in makers.items():
        if name in wanted:
            made = make(results, grid)
            if isinstance(made, Signal):
                signals[name] = made
            else:
                lacking[name] = made
    return signals


def _points(grid: TileGrid, points: int = POINTS, rim_um: float = 0.0) -> FloatArray:
    """Positions (n, points^2, 2) in each tile and its rim, µm of the reference section."""
    size = grid.size_um + 2 * rim_um
    step = (np.arange(points) + 0.5) / points * size - rim_um
    offsets = np.stack(np.meshgrid(step, step, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(grid.corners_um[:, None, :] + offsets, float)


def _class_points(results: _Results, grid: TileGrid) -> FloatArray:
    """Class probabilities (n, p, p, k) at the points of each tile, fraction; NaN off tissue."""
    probability = results.read(CLASS_PROBABILITY)
    to_reference = results.to_reference("he")
    assert to_reference is not None
    there = to_reference.inverse().apply(_points(grid).reshape(-1, 2))
    values = probability.at(there) / 255.0
    values[~(values.sum(axis=1) > 0.5)] = np.nan
    return np.asarray(values.reshape(len(grid), POINTS, POINTS, -1), float)


def _error(results: _Results, grid: TileGrid) -> Signal | str:
    """Predicted minus measured uptake: the only signal that reads the PET of the case."""
    for artifact in (PREDICTION, UPTAKE):
        if not results.shown(artifact):
            return results.why(artifact)
    measured = results.read(UPTAKE)
    error = np.asarray(results.read(PREDICTION)["suv"], float) - np.asarray(measured["suv"], float)
    unit = measured.unit("suv")

    def reason(tile: int) -> str:
        side = "above" if error[tile] > 0 else "below"
        amount = f"{abs(error[tile]):.3g} {unit}".rstrip()
        return f"predicted SUV {amount} {side} the measured one"

    return Signal(np.abs(error), reason)


def _cold(results: _Results, grid: TileGrid) -> Signal | str:
    if not results.shown(PREDICTION):
        return results.why(PREDICTION)
    table = results.read(PREDICTION)
    return cold_among_hot(table["suv"], grid.windows(3), table.unit("suv"))


def _artefacts(results: _Results, grid: TileGrid) -> Signal | str:
    """Share of each tile and its rim that is an artefact or cannot be read, on the worst slide."""
    points = _points(grid, rim_um=RIM_UM)
    worst = np.full(len(grid), np.nan)
    words = np.full(len(grid), "", object)
    for stain in STAINS:
        to_reference = results.to_reference(stain)
        if to_reference is None or not results.done(CORRECTED_ARTEFACT_MASK[stain]):
            continue
        mask = results.read(CORRECTED_ARTEFACT_MASK[stain])
        there = to_reference.inverse().apply(points.reshape(-1, 2))
        codes = np.nan_to_num(mask.at(there)).astype(np.int64).reshape(len(grid), -1)
        share = (codes > 0).mean(axis=1)
        larger = ~(share <= worst)
        worst = np.where(larger, share, worst)
        for tile in np.flatnonzero(larger & (share > 0)):
            kind = int(np.bincount(codes[tile][codes[tile] > 0]).argmax())
            words[tile] = f"{ARTEFACT_NAMES[kind]} on {STAIN_TITLES[stain]}"
    if not np.isfinite(worst).any():
        return results.why(CORRECTED_ARTEFACT_MASK[REFERENCE])

    def reason(tile: int) -> str:
        return f"{100 * worst[tile]:.0f} % of the tile and its rim is an artefact ({words[tile]})"

    return Signal(worst, reason)


def _disagreement(results: _Results, grid: TileGrid) -> Signal | str:
    """The largest contradiction in each tile, as a fraction.

    Points where readers differ, points where a reader and the classifier differ (share of the
    points that were read), and the SD of the normalised SUV over network and baselines.
    """
    found = [*_reader_differences(results, grid), *_model_spread(results)]
    if not found:
        return f"no annotation of a reader to compare, and {results.why(PREDICTION)}"
    values = np.nan_to_num(np.stack([share for share, _ in found]))
    largest, best = values.max(axis=0), values.argmax(axis=0)

    def reason(tile: int) -> str:
        return str(found[best[tile]][1]).format(100 * largest[tile], largest[tile])

    return Signal(largest, reason)


def _reader_differences(results: _Results, grid: TileGrid) -> list[tuple[FloatArray, str]]:
    """Share (n,) of the points that were read where readers, or reader and classifier, differ."""
    read = _read_classes(results, grid)
    found = []
    for one, other in combinations(read.values(), 2):
        text = "readers differ on {:.0f} % of what both have read"
        found.append((_differ(one, other), text))
    if read and results.shown(CLASS_PROBABILITY):
        points = _class_points(results, grid).reshape(len(grid), POINTS**2, -1)
        seen = np.isfinite(points[..., 0])
        predicted = np.where(seen, np.nan_to_num(points).argmax(axis=2) + 1, 0)
        for name, codes in read.items():
            who = name.replace("{", "{{").replace("}", "}}")
            text = f"reader {who} and the classifier differ on {{:.0f}} % of what was read"
            found.append((_differ(codes, predicted), text))
    return found


def _differ(one: NDArray[np.int64], other: NDArray[np.int64]) -> FloatArray:
    """Share (n,) of points, (n, points) codes, that differ, fraction of those that both have."""
    both = (one > 0) & (other > 0)
    return np.asarray((both & (one != other)).sum(axis=1) / np.maximum(both.sum(axis=1), 1), float)


def _model_spread(results: _Results) -> list[tuple[FloatArray, str]]:
    """SD (n,) of the normalised SUV over network and baselines; none without a prediction."""
    if not results.shown(PREDICTION):
        return []
    table = results.read(PREDICTION)
    models = [name for name in table if name.startswith("baseline_") and name not in _CONSTANT]
    spread = table.matrix(("suv_norm", *models)).std(axis=1)
    return [(spread, "the uptake models differ (SD {1:.2g} of the normalised SUV)")]


def _read_classes(results: _Results, grid: TileGrid) -> dict[str, NDArray[np.int64]]:
    """Class codes (n, points) of each reader at the points of each tile, label; 0 where unread.

    Code k is channel k - 1 of the class probabilities, where there are any.  Nobody sees the marks
    of another reader in a tile that not both have finished.
    """
    case = results.case
    documents = open_marks(case, results.reader)
    to_reference = results.to_reference("he")
    if not documents or to_reference is None:
        return {}
    known = results.read(CLASS_PROBABILITY).channels if results.shown(CLASS_PROBABILITY) else ()
    drawn = class_list([shape for one, _ in documents.values() for shape in one.shapes])
    names = class_codes(tuple(dict.fromkeys((*known, *drawn))))
    with case.slide("he") as slide:
        lattice = slide.lattice.resized(READING_UM)
    there = to_reference.inverse().apply(_points(grid).reshape(-1, 2))
    found = {}
    for reader, (document, tiles) in documents.items():
        codes = Raster(rasterise(document.shapes, lattice, names), lattice).at(there, outside=0.0)
        found[reader] = np.where(tiles.at(there), codes, 0).astype(np.int64).reshape(len(grid), -1)
    return found


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> FloatArray:
    """Share (n,) of the points of each tile, (n, points), fraction of those in *whole*."""
    count = whole.sum(axis=1)
    return np.asarray(part.sum(axis=1) / np.maximum(count, 1), float)


# --- a reader's session ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Judgement:
    """What a reader decided on one tile, and how long it was looked at, s."""

    tile: int
    decision: Decision
    seconds: float


class QueueSession(Closing):
    """One reader's way through the review queue of a case; resumes where it was left.

    Every decision and comment is in the journal before it counts.  A queue belongs to the results
    that it was made from, a ranking and a seed; with other ones a new one begins, and the earlier
    decisions stay on record.

    A queue that `hides_measured` keeps its reader blind (`blind_readers`) until it is finished,
    also when it is closed.  ``finished`` says so; from then on no decision is taken.

    Parameters
    ----------
    case, reader
        Whose queue of which case.
    ranking, seed
        See `review_queue`.

    Raises
    ------
    InputError
        The name of the reader is not valid, or the queue cannot be made.
    CaseLocked
        The journal is open in another program.
    """

    def __init__(
        self, case: Case, reader: str, ranking: str = DEFAULT_RANKING, seed: int = 0
    ) -> None:
        self.case = case
        self.queue = review_queue(case, ranking, seed, reader=check_reader_name(reader))
        made = digest([[item.tile, item.control] for item in self.queue.tiles])
        self._head = {"queue": self.queue.ranking, "seed": self.queue.seed, "made": made}
        self.part = JournalPart(case.root, reader, REVIEW)
        self.reader = self.part.reader
        try:
            self._read()
            events = self.part.active()
            last = next((e for e in reversed(events) if QUEUE in e), None)
            blind = self.queue.hides_measured and not self.finished
            if last is None or not self._is_own(last) or (blind and not last.get(BLIND)):
                head = {"event": QUEUE, **self._head, "n": len(self.queue.tiles), BLIND: blind}
                self.part.append(head)
                self._read()
            self.warnings = (*self.queue.warnings, *self._seen_before(events))
        except BaseException:
            self.part.close()
            raise
        self.part.follow(self._journal_changed)

    def _seen_before(self, events: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """A doubt where the reader may have seen the PET since an earlier blind queue."""
        ended = [event for event in events if event["event"] == FINISHED]
        if not ended or self.finished or not self.queue.hides_measured:
            return ()
        day = str(ended[-1]["time"])[:10]
        return (
            f"the PET was shown to reader {self.reader} after the queue that was finished on "
            f"{day}: what is corrected now is not blind to it",
        )

    def _is_own(self, event: Mapping[str, Any]) -> bool:
        """Whether a queue of the journal is this one."""
        return all(event.get(key) == value for key, value in self._head.items())

    def _read(self) -> None:
        """Read what was decided on this queue, also in between other queues."""
        self._events: list[Mapping[str, Any]] = []
        own = False
        for event in self.part.active():
            if QUEUE in event:
                own = self._is_own(event)
            elif own:
                self._events.append(event)
        self._replay()

    def _journal_changed(self, change: JournalChange) -> None:
        """Follow every entry, also one that another view undid or redid."""
        if change.kind == "append":
            self._events.append(change.event)
            self._replay()
        else:
            self._read()

    def _replay(self) -> None:
        """The state that the events lead to."""
        self.stop_below = STOP_BELOW
        self.judged: dict[int, Judgement] = {}
        self.comments: dict[int, str] = {}
        self.finished = False
        for event in self._events:
            if event["event"] == FINISHED:
                self.finished = True
                continue
            if "stop_below" in event:
                self.stop_below = float(event["stop_below"])
                continue
            tile = int(event["tile"])
            if "decision" in event:
                self.judged[tile] = Judgement(tile, event["decision"], float(event["seconds"]))
            elif event["comment"]:
                self.comments[tile] = str(event["comment"])
            else:
                self.comments.pop(tile, None)

    # --- what a reader does ---------------------------------------------------------------------
    def decide(self, tile: int, decision: Decision, seconds: float) -> None:
        """Accept a tile, reject it, or note that it is edited; a later decision replaces it."""
        if decision not in get_args(Decision):
            raise InputError(
                f"'{decision}' is not a decision on a tile; use one of: "
                f"{', '.join(get_args(Decision))}"
            )
        self._check(tile)
        if self.finished:
            raise InputError(
                f"this review queue of case {self.case.name} is finished; with new results a new "
                "one begins"
            )
        done = {"tile": int(tile), "decision": decision, "seconds": round(seconds, 2)}
        self.part.append({"event": "decision", "title": f"{decision} tile {tile}", **done})

    def comment(self, tile: int, text: str) -> None:
        """Add a comment to a tile; a later one replaces it, an empty one removes it."""
        self._check(tile)
        done = {"tile": int(tile), "comment": " ".join(text.split())}
        self.part.append({"event": "comment", "title": f"comment on tile {tile}", **done})

    def undo(self) -> tuple[str, int | None]:
        """Undo what this reader did last, here or in another part of the work.

        What it was, in words (empty for nothing), and the index of its tile if it was done here.
        """
        change = self.part.journal.undo_last()
        if change is None:
            return "", None
        return change.title, int(change.event["tile"]) if change.part == REVIEW else None

    def set_stop(self, probability: float) -> None:
        """Propose to stop once the expected gain falls below this probability."""
        if not 0 <= probability <= 1:
            raise InputError(f"the expected gain is a probability from 0 to 1, not {probability}")
        if probability != self.stop_below:
            self.part.append({"event": "stop", "stop_below": float(probability)})

    def finish(self) -> None:
        """End the queue: its decisions stand, and its reader may see the measured uptake.

        Raises
        ------
        InputError
            Tiles have no decision yet, and the expected gain is not below the reader's value.
        """
        if not self.may_finish:
            raise InputError(
                f"{counted(len(self.queue.tiles) - len(self.judged), 'tile')} of the review queue "
                f"of case {self.case.name} without a decision, and the expected gain is not below "
                "the value that was set; continue with the queue"
            )
        if not self.finished:
            self.part.append({"event": FINISHED, "judged": len(self.judged)})

    def _check(self, tile: int) -> None:
        if all(item.tile != tile for item in self.queue.tiles):
            raise InputError(f"tile {tile} is not in the review queue of case {self.case.name}")

    # --- where it stands ------------------------------------------------------------------------
    def next_open(self, after: int = -1) -> int | None:
        """Place of the next tile without a decision behind a place, else of one before it."""
        n = len(self.queue.tiles)
        places = [place % n for place in range(after + 1, after + 1 + n)]
        return next((p for p in places if self.queue.tiles[p].tile not in self.judged), None)

    @property
    def wrong(self) -> dict[int, bool]:
        """By tile: whether something was wrong with it (rejected or edited)."""
        return {tile: one.decision != "accept" for tile, one in self.judged.items()}

    @property
    def rate(self) -> ErrorRate:
        """The error rate of all tiles, estimated without bias."""
        return error_rate(self.queue.tiles, self.wrong)

    @property
    def gain(self) -> float | None:
        """Probability that the next tile is wrong; None before any decision."""
        return expected_gain(self.queue.tiles, self.wrong)

    @property
    def may_stop(self) -> bool:
        """Whether the expected gain has fallen below the reader's value, on enough tiles."""
        enough = sum(not item.control for item in self.queue.tiles if item.tile in self.judged)
        return enough >= FEWEST and self.gain is not None and self.gain < self.stop_below

    @property
    def may_finish(self) -> bool:
        """Whether every tile has a decision, or stopping is proposed."""
        return len(self.judged) == len(self.queue.tiles) or self.may_stop

    @property
    def seconds(self) -> float | None:
        """Median time per tile, s; None before any decision."""
        return float(np.median([o.seconds for o in self.judged.values()])) if self.judged else None

    def close(self) -> None:
        """Release the reader's journal."""
        self.part.close()
