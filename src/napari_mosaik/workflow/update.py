"""Bring the results of a case up to date after corrections, and say what that took.

    corrections ──► steps that are stale through them alone ──► run, reusing what is as before
                                     └──► CASE/update.json: before-state, tiles, seconds

`run` reuses of the stored results what a change does not concern (`StepContext.previous_result`),
whoever calls it.  An update adds the choice of the steps and the record of what was there before.
An update that was interrupted, even killed, is continued by the next one: every step is whole or
absent, and the before-state stays that of its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from napari_mosaik.core.artifact import Origin, Progress, defined_artifacts
from napari_mosaik.core.catalogue import CORRECTIONS, DEVELOPMENT, PARAMETERS, RECOMPUTED
from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.baseline import (
    COMPARED,
    LastUpdate,
    pinned,
    read_baseline,
    take_baseline,
)
from napari_mosaik.workflow.case_status import CaseStatus, Looked, case_status
from napari_mosaik.workflow.recipe import Recipe, read_recipe
from napari_mosaik.workflow.run import plan, run_until
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import STEPS, maker_of

__all__ = ["WaitingUpdate", "expected_seconds", "steps_to_update", "update", "waiting_update"]


def steps_to_update(case: Case, status: CaseStatus, *, everything: bool = False) -> list[Step[Any]]:
    """The steps that are stale through corrections alone, in order, or all that have to run.

    A step whose settings changed, or that reads the result of one, is left to *everything*, and so
    is one whose result is damaged or missing.
    """
    if everything:
        return plan(status)
    stale = [step for step in STEPS if status.states[step.name].word == "stale"]
    return [step for step in stale if _stale_by_corrections(case, status, step)]


def _stale_by_corrections(case: Case, status: CaseStatus, step: Step[Any]) -> bool:
    """Whether corrections alone make the stored result of a step differ from one of now."""
    if status.states[step.name].damaged:
        return False
    with suppress(CorruptArtifact):
        stored = case.store.origin(step.writes[0])
        return stored is not None and _corrected(case, status, stored, status.expected[step.name])
    return False


def _corrected(case: Case, status: CaseStatus, before: Origin, now: Origin) -> bool:
    """Whether two origins of a step differ through corrections alone, made anywhere before it.

    The steps between may have run already: what they had stored is kept while something stale
    was computed from it.  A correction may also have made the case a development case.
    """
    if (before.step, before.revision, before.params) != (now.step, now.revision, now.params):
        return False
    corrections = {source.name for source in (*CORRECTIONS.values(), DEVELOPMENT)}
    artifacts = {artifact.name: artifact for artifact in defined_artifacts()}
    old, new = dict(before.inputs), dict(now.inputs)
    for name in {*old, *new} - corrections:
        if old.get(name) == new.get(name):
            continue
        if name not in artifacts or name not in old or name not in new:
            return False
        store = case.store.version(artifacts[name], old[name])
        origin = None if store is None else store.origin(artifacts[name])
        expected = status.expected.get(maker_of(artifacts[name]).name)
        if origin is None or expected is None or not _corrected(case, status, origin, expected):
            return False
    return True


def expected_seconds(case: Case, steps: Iterable[Step[Any]]) -> float:
    """How long the steps will take, s: as in the last update, or as they took when they ran."""
    try:
        last = read_baseline(case)
    except InputError:
        last = None
    known = {} if last is None else last.steps
    total = 0.0
    for step in steps:
        with suppress(MosaikError):
            stored = float(case.store.record(step.writes[0]).get("seconds", 0.0))
            total += float(known.get(step.name, stored))
    return total


@dataclass(frozen=True, slots=True)
class WaitingUpdate:
    """Titles of the steps of an update, and how long it takes, s: of corrections, and of all."""

    here: tuple[str, ...] = ()
    here_s: float = 0.0
    everything: tuple[str, ...] = ()
    everything_s: float = 0.0


def waiting_update(case: Case, status: CaseStatus) -> WaitingUpdate:
    """What there is to update in a case."""
    here, everything = (steps_to_update(case, status, everything=which) for which in (False, True))
    return WaitingUpdate(
        tuple(step.title for step in here),
        expected_seconds(case, here),
        tuple(step.title for step in everything),
        expected_seconds(case, everything),
    )


def update(
    case: Case, recipe: Recipe | None = None, *, everything: bool = False
) -> Generator[tuple[Step[Any], Progress], None, LastUpdate]:
    """Run the stale steps that `steps_to_update` names; what was stored before is kept to compare.

    May be closed at any `Progress`; the next update goes on.

    Raises
    ------
    InputError
        A step cannot use its input; the others have run.
    """
    recipe = recipe or read_recipe(case.root)
    began = time.monotonic()
    looked: Looked = {}
    status = case_status(case, recipe, looked=looked)
    todo = steps_to_update(case, status, everything=everything)
    with case.writing():
        record = take_baseline(case, datetime.now(UTC).isoformat(timespec="milliseconds"))
        if not todo and not record.steps:
            return record
        record.write(case)
    for artifact, step in ((one, maker_of(one)) for one in COMPARED):
        known = record.before.get(artifact.name)  # of a step that ended as the last update did
        if known is not None and artifact == step.writes[0] and step.name not in record.steps:
            record = _noted(case, record, step, {step.name: (known, {})}, 0.0)
    earlier, before = record.seconds, {step.name: _stored(case, step) for step in todo}
    asked = status, looked  # each step asks again, but looks only at files that are new
    work = run_until(case, recipe, only=[*before], repair=everything, known=asked)
    running: Step[Any] | None = None
    since, whole = began, False
    try:
        for step, progress in work:
            if running is not None and step is not running:
                record = _noted(case, record, running, before, time.monotonic() - since)
                since = time.monotonic()
            running = step
            yield step, progress
        whole = True
    finally:
        work.close()
        if running is not None:
            record = _noted(case, record, running, before, time.monotonic() - since)
        seconds = round(earlier + time.monotonic() - began, 3)
        record = replace(record, seconds=seconds, done=whole)
        with case.writing():
            record.write(case)
            case.store.prune([*pinned(case)])
    return record


def _stored(case: Case, step: Step[Any]) -> tuple[str, dict[str, Any]]:
    """Digest of the origin of a stored result, and its record; empty where there is none."""
    with suppress(CorruptArtifact):
        origin = case.store.origin(step.writes[0])
        if origin is not None:
            return origin.digest(), case.store.record(step.writes[0])
    return "", {}


def _noted(
    case: Case,
    record: LastUpdate,
    step: Step[Any],
    before: Mapping[str, tuple[str, dict[str, Any]]],
    seconds: float,
) -> LastUpdate:
    """The record of the update with a step that has ended, if it stored anything, written."""
    digest, stored = _stored(case, step)
    if digest in ("", before[step.name][0]):
        return record
    tiles = dict(record.tiles)
    if RECOMPUTED in stored:  # a result that was kept has the record that it had
        n_tiles = 0 if stored == before[step.name][1] else int(stored[RECOMPUTED])
        tiles[step.name] = max(tiles.get(step.name, 0), n_tiles)
    record = replace(
        record,
        steps={**record.steps, step.name: round(seconds, 3)},
        tiles=tiles,
        n_tiles=tiles.get(maker_of(PARAMETERS).name, 0),
    )
    with case.writing():
        record.write(case)
    return record
