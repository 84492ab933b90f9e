"""What the stored predictor would say if the tissue had other classes: computed, never stored.

    areas with a class (H&E) ─► class map ─┐
    corrections that were not run yet ─────┴─► bodies of the steps up to `predict` ─► before, after

The bodies that a run would call are called on results in memory, so the numbers are those that
`predict` gives once the class map or the corrections are really so.  No classifier and no predictor
is trained, and no file of the case changes.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLASSES,
    CORRECTED_NUCLEI,
    CORRECTED_VESSELS,
    PARAMETERS,
    PREDICTION,
    TILES,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.register import transform_of
from napari_mosaik.segment.training_pixels import rasterise_classes
from napari_mosaik.workflow.block_work import DiskWork
from napari_mosaik.workflow.case_status import CaseStatus, case_status
from napari_mosaik.workflow.changes import same
from napari_mosaik.workflow.parallel import one_blas_thread
from napari_mosaik.workflow.predictor_inputs import predictor_inputs
from napari_mosaik.workflow.run import plan
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import CaseInputs
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named
from napari_mosaik.workflow.steps.predict import (
    INTERVAL_COLUMNS,
    PredictParams,
    prediction_columns,
)

if TYPE_CHECKING:
    from napari_mosaik.core.window import Slices
    from napari_mosaik.io.case import Case
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.predictor import Attention, TileInputs, TrainedModel

__all__ = [
    "PredictedUptake",
    "WhatIf",
    "attention_of",
    "classes_to_assume",
    "tile_shapes",
    "what_if",
]

T = TypeVar("T")
_PREDICT = maker_of(PREDICTION)
_CORRECT = (maker_of(CORRECTED_VESSELS), maker_of(CORRECTED_NUCLEI))
_DIFFERS = 1e-3
"""Share of the training range by which a prediction may differ from computer to computer."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictedUptake:
    """The predicted SUV of the n tiles of a case with its 90 % interval.

    Parameters
    ----------
    suv
        (n,) in the unit of the training SUV; NaN where not predicted.
    low, high
        (n,) ends of the interval for a tile of a new slide; NaN where there is none.
    """

    suv: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def width(self) -> FloatArray:
        """(n,) width of the interval, SUV."""
        return self.high - self.low

    def record(self, tile: int) -> dict[str, float | None]:
        """One tile as JSON: ``suv``, ``low``, ``high`` and ``width`` (SUV; None: not known)."""
        columns = {"suv": self.suv, "low": self.low, "high": self.high, "width": self.width}
        values = {name: float(column[tile]) for name, column in columns.items()}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True, eq=False)
class WhatIf:
    """What a change of classes or corrections would make of the prediction.

    Parameters
    ----------
    grid
        The n tiles.
    before, after
        The prediction as it is, and as it would be.
    edited
        (n,) True for tiles with a parameter that would change.
    unit, model
        Unit of the SUV, and hash of the predictor.
    classes
        The classes that were assumed, in alphabetical order.
    assumed
        The areas that were given with a class, µm of H&E; without what was drawn before.
    held
        What was held fixed, one sentence each.
    """

    grid: TileGrid
    before: PredictedUptake
    after: PredictedUptake
    edited: NDArray[np.bool_]
    unit: str
    model: str
    classes: tuple[str, ...]
    assumed: tuple[AnnotatedShape, ...]
    held: tuple[str, ...]

    @property
    def difference(self) -> FloatArray:
        """(n,) after minus before, SUV; NaN where one of them is not predicted."""
        return self.after.suv - self.before.suv

    @property
    def reached(self) -> NDArray[np.bool_]:
        """(n,) True (label) for tiles whose prediction or interval would change."""
        pairs = [(getattr(self.before, k), getattr(self.after, k)) for k in ("suv", "low", "high")]
        differ: NDArray[np.bool_] = ~np.all([same(one, other) for one, other in pairs], axis=0)
        return differ

    def record(self) -> dict[str, Any]:
        """JSON-able: counts, what was held fixed, and the tiles that are edited or reached."""
        difference = self.difference
        tiles = [
            {
                "tile": tile,
                "edited": bool(self.edited[tile]),
                "before": self.before.record(tile),
                "after": self.after.record(tile),
                "difference": float(difference[tile]) if np.isfinite(difference[tile]) else None,
            }
            for tile in np.flatnonzero(self.edited | self.reached).tolist()
        ]
        return {
            "model": self.model,
            "unit": self.unit,
            "classes": list(self.classes),
            "n_edited": int(self.edited.sum()),
            "n_reached": int(self.reached.sum()),
            "held_fixed": list(self.held),
            "tiles": tiles,
        }


def tile_shapes(case: Case, tiles: Iterable[int], label: str) -> tuple[AnnotatedShape, ...]:
    """The squares of some tiles as areas of one class, µm of H&E.

    Raises `InputError` for a tile that the case does not have, or without a registration.
    """
    import shapely

    if any(case.store.origin(one) is None for one in (TILES, ALIGNMENT["he"])):
        raise InputError(f"case {case.name} has no tiles, or its H&E is not registered; run it")
    grid, from_he = case.store.read(TILES), transform_of(case.store.read(ALIGNMENT["he"]))
    half, shapes = grid.size_um / 2, []
    for tile in dict.fromkeys(tiles):
        if not 0 <= tile < len(grid):
            raise InputError(f"case {case.name} has no tile {tile}; it has 0 to {len(grid) - 1}")
        corners = grid.centres_um[tile] + half * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
        there = from_he.inverse().apply(corners)
        square = shapely.Polygon(there[:, ::-1])  # x is the column
        shapes.append(AnnotatedShape(str(uuid.uuid4()), label, square))
    return tuple(shapes)


def classes_to_assume(case: Case) -> tuple[str, ...]:
    """The classes of the class map of a case; none without one."""
    if case.store.origin(CLASSES) is None:
        return ()
    return tuple(name for code, name in case.store.read(CLASSES).names.items() if code)


def what_if(
    case: Case, shapes: Sequence[AnnotatedShape] = (), *, drawn: bool = False
) -> Generator[Progress, None, WhatIf]:
    """The prediction of a case if some areas of its H&E section were of other classes.

    Tissue in an area gets its class; what is not tissue stays so.  All that the steps up to the
    prediction compute from it is computed again, and nothing is stored.

    Parameters
    ----------
    case
        A case with a prediction that is up to date.
    shapes
        Areas with a class of the class map, µm of H&E; a later one lies over those before.
    drawn
        Assume also what readers have drawn on H&E, and the corrections of vessels and nuclei that
        were not run yet.

    Raises
    ------
    InputError
        The prediction is missing or stale for another reason, a class is not in the class map, or
        nothing was assumed.
    """
    status = case_status(case)
    waiting = _waiting(case, status, drawn=drawn)
    areas = (*(case.annotations("he") if drawn else ()), *shapes)
    if not areas and not waiting:
        raise InputError(
            "nothing is assumed: no correction waits for a run, and no area is drawn"
            if drawn
            else "nothing is assumed: give an area with a class"
        )
    work = _Hypothesis(case, status)
    with tempfile.TemporaryDirectory(prefix="napari-mosaik-") as folder, one_blas_thread():
        before = yield from work.predict(Path(folder), 0.0, 0.4)
        yield Progress(0.4, 1, "changing the classes")
        work.assume(areas)
        yield from work.recompute(waiting, Path(folder), 0.4, 0.6)
        after = yield from work.predict(Path(folder), 0.6, 1.0)
    grid, parameters = case.store.read(TILES), case.store.read(PARAMETERS)
    now = work.changed.get(PARAMETERS.name, parameters)
    edited = np.zeros(len(grid), bool)
    for name in now:
        edited |= ~same(np.asarray(parameters[name]), np.asarray(now[name]))
    held = [
        "the tissue classifier is not retrained: outside of the areas the classes stay as they are",
        "the predictor is not trained again: its weights and its intervals are those in use",
        *_doubts(case, before, work),
    ]
    classes = tuple(sorted({shape.label for shape in areas}))
    unit = work.card["suv_unit"]
    return WhatIf(
        grid, before, after, edited, unit, work.model, classes, tuple(shapes), tuple(held)
    )


def attention_of(case: Case) -> Generator[Progress, None, Attention]:
    """How the predictor in use weights the cluster maps around every tile of a case.

    Raises
    ------
    InputError
        The prediction is missing or stale, or the predictor does without the cluster maps.
    """
    status = case_status(case)
    _waiting(case, status, drawn=False)
    with tempfile.TemporaryDirectory(prefix="napari-mosaik-") as folder, one_blas_thread():
        model, tiles = yield from _Hypothesis(case, status).read(Path(folder))
        from napari_mosaik.predictor import attention_maps

        yield Progress(0.8, 1, "weights of the cluster maps")
        return attention_maps(model, tiles)


def _waiting(case: Case, status: CaseStatus, *, drawn: bool) -> list[Step[Any]]:
    """The steps that wait for a run; anything but drawn corrections is refused."""
    todo = plan(status, _PREDICT.name)
    follow = {step.name for step in _CORRECT}
    for step in STEPS:
        if _made_before(step) & follow:
            follow.add(step.name)
    for step in todo:
        stored, now = case.store.origin(step.writes[0]), status.expected.get(step.name)
        settled = stored is not None and now is not None and stored.params == now.params
        if not settled or stored is None or now is None or stored.revision != now.revision:
            state = status.states[step.name]
            raise InputError(
                f"'{step.title}' of case {case.name} is {state.word} ({state.reason}); run it "
                f"first: napari-mosaik run CASE --until {_PREDICT.name}"
            )
        if step.name not in follow or not drawn:
            hint = "" if step.name not in follow else ", or assume also what was drawn"
            raise InputError(
                f"'{step.title}' of case {case.name} is stale "
                f"({status.states[step.name].reason}); run it first{hint}"
            )
    return [step for step in todo if step in _CORRECT]


def _doubts(case: Case, before: PredictedUptake, work: _Hypothesis) -> list[str]:
    """A sentence where the prediction of today is not the stored one."""
    stored = np.asarray(case.store.read(PREDICTION)["suv"], float)
    span = work.card["target"]["high"] - work.card["target"]["low"]
    differ = np.abs(stored - before.suv)
    most = float(np.nanmax(differ)) if np.isfinite(differ).any() else 0.0
    if most <= _DIFFERS * span:
        return []
    return [
        f"computed again here, the prediction differs from the stored one by up to {most:.3g}: "
        "before and after are those of this computer"
    ]


class _Hypothesis:
    """A case with some of its results exchanged in memory."""

    def __init__(self, case: Case, status: CaseStatus) -> None:
        self.case, self.status = case, status
        self.changed: dict[str, Any] = {}
        self.windows: dict[str, list[Slices]] = {}
        self.card: dict[str, Any] = {}
        self.model = ""

    def assume(self, shapes: Sequence[AnnotatedShape]) -> None:
        """Exchange the class map for one in which the tissue in areas has their classes."""
        if not shapes:
            return
        if self.case.store.origin(CLASSES) is None:
            raise InputError(f"case {self.case.name} has no tissue classes to change")
        classes = self.case.store.read(CLASSES)
        known = {name: code for code, name in classes.names.items() if code}
        unknown = sorted({shape.label for shape in shapes} - set(known))
        if unknown:
            raise InputError(
                f"the class map of case {self.case.name} has no class '{unknown[0]}'; it has "
                f"{', '.join(known)}; another class needs a retrained classifier"
            )
        values, painted = classes.array(), rasterise_classes(shapes, classes.lattice, known)
        new = np.where((values > 0) & (painted > 0), painted, values).astype(values.dtype)
        differ = new != values
        if not differ.any():
            return
        rows, cols = np.flatnonzero(differ.any(axis=1)), np.flatnonzero(differ.any(axis=0))
        window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
        self.changed[CLASSES.name] = LabelImage(new, classes.lattice, classes.names)
        self.windows[CLASSES.name] = [window]

    def recompute(
        self, waiting: Sequence[Step[Any]], scratch: Path, start: float, stop: float
    ) -> Generator[Progress, None, None]:
        """Compute what follows from the exchanged results, up to the inputs of the prediction."""
        todo, touched, needed = [], set(self.changed), _ancestors(_PREDICT)
        for step in STEPS:
            entries = {entry.name for entry in (*step.reads, *step.may_read)}
            if step.name not in needed or not (step in waiting or entries & touched):
                continue
            if self.case.store.origin(step.writes[0]) is not None:  # else it is done without
                todo.append(step)
                touched |= {artifact.name for artifact in step.writes}
        share = (stop - start) / max(1, len(todo))
        for number, step in enumerate(todo):
            first = start + number * share
            body = step.body(self.context(step, scratch), self.status.recipe[step.name])
            part = partial(_part, start=first, stop=first + share, title=step.title)
            results = yield from map_progress(body, part)
            self.changed |= {artifact.name: value for artifact, value in results.items()}

    def predict(
        self, scratch: Path, start: float, stop: float
    ) -> Generator[Progress, None, PredictedUptake]:
        """The prediction with its intervals from what is there now."""
        middle = (start + stop) / 2
        part = partial(_part, start=start, stop=middle)
        model, tiles = yield from map_progress(self.read(scratch), part)
        from napari_mosaik.predictor import predict

        yield Progress(middle, 1, "predicting")
        self.card, self.model = dict(model.card), model.hash
        columns, _, _ = prediction_columns(model, tiles, predict(model, tiles))
        low, high = (
            model.target.restore(columns[INTERVAL_COLUMNS["tile"].format(end)])
            for end in ("low", "high")
        )
        return PredictedUptake(columns["suv"], low, high)

    def read(self, scratch: Path) -> Generator[Progress, None, tuple[TrainedModel, TileInputs]]:
        """The predictor in use, and what it reads of what is there now."""
        params = cast(PredictParams, self.status.recipe[_PREDICT.name])
        return predictor_inputs(self.context(_PREDICT, scratch), params.model)

    def context(self, step: Step[Any], scratch: Path) -> _AssumedContext:
        return _AssumedContext(self, step, scratch / step.name)


def _part(progress: Progress, start: float, stop: float, title: str = "") -> Progress:
    done = start + (stop - start) * progress.fraction
    return Progress(done, 1, title or progress.text)


def _made_before(step: Step[Any]) -> set[str]:
    """Names of the steps whose results a step reads."""
    entries = (*step.reads, *step.may_read)
    return {maker_of(entry).name for entry in entries if isinstance(entry, Artifact)}


def _ancestors(step: Step[Any]) -> set[str]:
    """Names of the steps whose results a step reads, directly or through others."""
    found: set[str] = set()
    pending = _made_before(step)
    while pending:
        name = pending.pop()
        found.add(name)
        pending |= _made_before(step_named(name)) - found
    return found


@final
class _AssumedContext(CaseInputs, DiskWork):
    """A `StepContext` of a case with exchanged results; the stored ones are those of before."""

    def __init__(self, work: _Hypothesis, step: Step[Any], scratch: Path) -> None:
        entries = (*step.reads, *step.may_read)
        unavailable = work.status.unavailable.get(step.name, ())
        CaseInputs.__init__(self, work.case, step.name, entries, unavailable)
        DiskWork.__init__(self, scratch, step.name)
        self._work = work
        self._changed = {entry.name for entry in entries} & work.changed.keys()
        self._made_by = step

    def read(self, artifact: Artifact[T]) -> T:
        """The exchanged result, or the stored one."""
        self.check(artifact)
        if artifact.name in self._changed:
            value: T = self._work.changed[artifact.name]
            return value
        return self.stored(artifact)

    def slide(self, stain: str) -> Slide:
        """One slide, opened; the caller closes it."""
        return self.opened(stain)

    def previous_result(self, artifact: Artifact[T], *besides: Artifact[Any] | Source) -> T | None:
        """What is stored, if only the given inputs were exchanged."""
        if self._changed - {entry.name for entry in besides}:
            return None
        return self.case.store.read(artifact)

    def previous_input(self, artifact: Artifact[T]) -> T | None:
        """The stored input."""
        return self.stored(artifact)

    def is_unchanged(self, artifact: Artifact[Any]) -> bool:
        """Whether an input was not exchanged."""
        self.check(artifact)
        return artifact.name not in self._changed

    def previous_record(self) -> dict[str, Any]:
        """The record of the stored result."""
        return self.case.store.record(self._made_by.writes[0])

    def changed_windows(self, artifact: Artifact[LabelImage]) -> list[Slices] | None:
        """Where a label image (rows, columns) was exchanged, in pixels; None: not known."""
        if artifact.name not in self._changed:
            return []
        return self._work.windows.get(artifact.name)

    def rewrite_labels(
        self,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[tuple[slice, slice]],
        text: str,
        earlier: Artifact[LabelImage] | None = None,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) that differ from stored ones into the scratch folder."""
        self.check(before)
        return (yield from self.rewritten(self.case.store.folder(before), labels, windows, text))
