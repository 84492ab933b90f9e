"""Run the steps of a case: plan those that are stale or missing, compute and commit them."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

import napari_mosaik
from napari_mosaik.core.artifact import Artifact, Origin, Progress, Source, defined_artifacts
from napari_mosaik.core.catalogue import STAINING, WARNINGS
from napari_mosaik.core.errors import (
    Blocked,
    Cancelled,
    CorruptArtifact,
    InputError,
    MosaikError,
)
from napari_mosaik.core.params import Params
from napari_mosaik.core.progress import repeated
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import remove_tree
from napari_mosaik.workflow.baseline import pinned
from napari_mosaik.workflow.block_work import DiskWork
from napari_mosaik.workflow.case_status import CaseStatus, Looked, case_status
from napari_mosaik.workflow.parallel import give_back_memory, one_blas_thread
from napari_mosaik.workflow.recipe import Recipe, read_recipe
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import CaseInputs
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named

if TYPE_CHECKING:
    from napari_mosaik.core.window import Slices
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.io.store import CaseStore

__all__ = ["CaseContext", "changed_inputs", "plan", "run", "run_until"]

T = TypeVar("T")
_LARGE_TABLE = 1 << 24
"""Values (count) of a table that is read again rather than kept beside another."""


@final
class CaseContext(CaseInputs, DiskWork):
    """A `StepContext` of a stored case; finished blocks stay on the disk for a restart.

    Parameters
    ----------
    case, step
        What runs.
    scratch
        Folder for finished blocks, named by the step's origin; removed after the commit.
    scheduler
        Address of a dask.distributed scheduler; empty for threads.
    unavailable
        Names of the step's optional inputs that are not available.
    origin
        The origin that the results will have; None if nothing of an earlier run may be used.
    """

    def __init__(
        self,
        case: Case,
        step: Step[Any],
        scratch: Path,
        scheduler: str = "",
        unavailable: Collection[str] = (),
        origin: Origin | None = None,
    ) -> None:
        CaseInputs.__init__(self, case, step.name, (*step.reads, *step.may_read), unavailable)
        DiskWork.__init__(self, scratch, step.name, scheduler)
        self._origin = origin
        self._read: dict[tuple[Path, str], Any] = {}

    def read(self, artifact: Artifact[T]) -> T:
        """A result of an earlier step."""
        self.check(artifact)
        return self._once(self.case.store, artifact)

    def _once(self, store: CaseStore, artifact: Artifact[T]) -> T:
        """A stored value, read once in a step; pictures, which take room, each time.

        Of tables of millions of rows only the latest stays.
        """
        key = (store.root, artifact.name)
        if key not in self._read:
            for other, kept in list(self._read.items()):
                if isinstance(kept, Table) and len(kept) * len(kept.columns) > _LARGE_TABLE:
                    del self._read[other]
            value = store.read(artifact)
            if not isinstance(value, Table | TileGrid | LabelImage):
                return value
            self._read[key] = value
        found: T = self._read[key]
        return found

    def slide(self, stain: str) -> Slide:
        """One slide, opened; the caller closes it."""
        return self.opened(stain)

    def previous_result(self, artifact: Artifact[T], *besides: Artifact[Any] | Source) -> T | None:
        """What this step stored before, if only the given inputs have changed since."""
        if self._origin is None:
            return None
        with suppress(CorruptArtifact):
            stored = self.case.store.origin(artifact)
            names = {entry.name for entry in besides}
            if stored is not None and not changed_inputs(self.case, stored, self._origin, names):
                return self._once(self.case.store, artifact)
        return None

    def previous_input(self, artifact: Artifact[T]) -> T | None:
        """An input as it was when the previous result was computed; None where it is not kept."""
        store = self._version(artifact)
        with suppress(CorruptArtifact, InputError):
            return None if store is None else self._once(store, artifact)
        return None

    def _version(self, artifact: Artifact[Any]) -> CaseStore | None:
        """The store with the version of an input that the previous result was computed from."""
        self.check(artifact)
        stored = self.case.store.origin(step_named(self.step).writes[0])
        digest = dict(stored.inputs).get(artifact.name) if stored is not None else None
        return None if digest is None else self.case.store.version(artifact, digest)

    def is_unchanged(self, artifact: Artifact[Any]) -> bool:
        """Whether an input equals its `previous_input`, without reading either."""
        self.check(artifact)
        stored = self.case.store.origin(step_named(self.step).writes[0])
        if stored is None or self._origin is None:
            return False
        besides = {name for name, _ in (*stored.inputs, *self._origin.inputs)} - {artifact.name}
        return not changed_inputs(self.case, stored, self._origin, besides)

    def previous_record(self) -> dict[str, Any]:
        """The record of the previous result, with the notes of its step."""
        return self.case.store.record(step_named(self.step).writes[0])

    def changed_windows(self, artifact: Artifact[LabelImage]) -> list[Slices] | None:
        """Where a label image (rows, columns) differs from its `previous_input`, in pixels."""
        from napari_mosaik.io.ome_labels import changed_windows

        before, store = self.previous_input(artifact), self._version(artifact)
        if before is None or store is None:
            return None
        files = store.files(artifact), self.case.store.files(artifact)
        return changed_windows(before, files[0], self.read(artifact), files[1])

    def rewrite_labels(
        self,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[tuple[slice, slice]],
        text: str,
        earlier: Artifact[LabelImage] | None = None,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) that differ from stored ones within some windows only.

        What equals the *earlier* result of this step is not written again either.
        """
        from napari_mosaik.io.ome_labels import differing_windows

        self.check(before)
        store, known = self.case.store, None
        if earlier is not None:
            files = store.files(before), store.files(earlier)
            was = self._once(store, earlier)
            known = (
                store.folder(earlier),
                differing_windows(labels, windows, files[0], was, files[1]),
            )
        place = store.folder(before)
        return (yield from self.rewritten(place, labels, windows, text, known))


def changed_inputs(
    case: Case, before: Origin, now: Origin, besides: Collection[str] = ()
) -> list[str]:
    """Names of the inputs, but some, of which two origins of one step have different contents.

    An input whose content is not known counts as different; so does every one where the settings or
    the revision of the step differ, and an artifact that was there at one time only.
    """
    if (before.step, before.revision, before.params) != (now.step, now.revision, now.params):
        return [name for name, _ in now.inputs] or [now.step]
    artifacts = {artifact.name: artifact for artifact in defined_artifacts()}
    old, new = dict(before.inputs), dict(now.inputs)
    return [
        name
        for name in dict.fromkeys((*new, *old))
        if old.get(name) != new.get(name)
        and not (name in besides and (name not in artifacts or (name in old and name in new)))
        and not (
            name in old
            and name in new
            and name in artifacts
            and case.store.same_content(artifacts[name], old[name], new[name])
        )
    ]


def plan(status: CaseStatus, until: str = "") -> list[Step[Any]]:
    """The steps to run, in order, to bring *until* (or every step that can run) up to date."""
    todo = [step for step in STEPS if status.states[step.name].word in ("stale", "missing")]
    if not until:
        return todo
    target = step_named(until)
    if status.states[until].word == "blocked":
        raise Blocked(f"{target.title} cannot run: {status.states[until].reason}")
    needed: set[str] = set()
    pending = [target]
    while pending:
        step = pending.pop()
        if step.name not in needed:
            needed.add(step.name)
            pending += [step_named(name) for name in sorted(_makers(step))]
    return [step for step in todo if step.name in needed]


def run(
    case: Case,
    step: Step[Any],
    params: Params,
    *,
    recipe: Recipe | None = None,
    scheduler: str = "",
    force: bool = False,
    looked: Looked | None = None,
) -> Generator[Progress, None, None]:
    """Run one step and commit its results.

    The caller may close the generator at any `Progress`: that cancels the run, and nothing is
    committed.  Finished blocks stay in the case's scratch folder; the next run with the same
    inputs resumes from them.

    Parameters
    ----------
    case, step, params
        What is run, with which settings.
    recipe
        Settings of the other steps; the case's own if None.
    scheduler
        Address of a dask.distributed scheduler; threads of this process if empty.
    force
        Recompute, even if the step is done, and without anything of an earlier run.
    looked
        Results that were found undamaged when the steps before this one ran (`case_status`).

    Raises
    ------
    Blocked
        An input is missing, or an earlier step has to run first.
    """
    recipe = {**(recipe or read_recipe(case.root)), step.name: params}
    # The lock comes before the status: another writer may commit a step in between, and this run
    # would then record an origin that its inputs no longer have.
    with case.writing():
        looked = {} if looked is None else looked
        status = case_status(case, recipe, step, looked)
        _ready(status, step)
        if force and status.expected[step.name].is_given:
            raise InputError(
                f"'{step.title}' is {status.expected[step.name].is_given} and cannot be computed: "
                f"case {case.name} has no slide for it; run it without --force"
            )
        if status.states[step.name].damaged and not force:
            raise CorruptArtifact(status.states[step.name].reason)
        if status.states[step.name].word == "done" and not force:
            _clear_scratch(case, step)
            yield Progress(1, 1, "already done")
            return
        origin = status.expected[step.name]
        scratch = case.root / "scratch" / f"{step.name}-{origin.digest()[:16]}"
        unavailable, known = _reasons(status, step, recipe), None if force else origin
        context = CaseContext(case, step, scratch, scheduler, unavailable, known)
        if force:
            context.clear()
        began = time.monotonic()
        yield Progress(0, 1, step.title)
        if known is not None and _restated(case, step, origin):
            yield Progress(1, 1, f"{step.title}: its inputs are as before")
            return
        with one_blas_thread(), _logged_failure(case, step, began):
            results = yield from repeated(step.body(context, params))
            seconds = time.monotonic() - began
            _commit(
                case, step, origin, params, results, {**context.notes, "seconds": round(seconds, 3)}
            )
            looked.update({artifact.name: case.store.stamp(artifact) for artifact in step.writes})
        # Only after the commit: until then the finished blocks are what a restart resumes from.
        _clear_scratch(case, step)
        case.store.prune([*pinned(case)])
    give_back_memory()
    yield Progress(1, 1, step.title)


def _reasons(status: CaseStatus, step: Step[Any], recipe: Recipe) -> dict[str, str]:
    """The optional inputs that are not available; why, where a model of theirs was chosen."""
    found = dict.fromkeys(status.unavailable[step.name], "")
    for entry in step.may_read:
        if entry.name in found and isinstance(entry, Artifact):
            maker = maker_of(entry)
            if maker.needs_model and getattr(recipe[maker.name], maker.needs_model):
                found[entry.name] = status.states[maker.name].reason
    return found


def _clear_scratch(case: Case, step: Step[Any]) -> None:
    """Remove all unfinished work of a step that is done, that of other settings as well."""
    for folder in (case.root / "scratch").glob(f"{step.name}-*"):
        if folder.is_dir():
            remove_tree(folder)


def _restated(case: Case, step: Step[Any], origin: Origin) -> bool:
    """Keep the stored results under a new origin if the contents of all inputs are equal."""
    stored = [case.store.origin(artifact) for artifact in step.writes]
    first = stored[0]
    if first is None or any(one != first for one in stored) or changed_inputs(case, first, origin):
        return False
    with suppress(CorruptArtifact):
        for artifact in step.writes:
            case.store.glance(artifact)
        case.store.restate(origin, step.writes)
        case.store.prune([*pinned(case)])
        case.log("step", step=step.name, seconds=0.0, origin=origin.digest())
        return True
    return False


def _ready(status: CaseStatus, step: Step[Any]) -> None:
    if status.states[step.name].word == "blocked":
        raise Blocked(f"{step.title} cannot run: {status.states[step.name].reason}")
    for entry in (*step.reads, *step.may_read):
        if isinstance(entry, Artifact):
            maker = maker_of(entry)
            word = status.states[maker.name].word
            if word in ("missing", "stale"):
                raise Blocked(
                    f"{step.title} needs '{maker.title}', which is {word}; run it first, or use "
                    f"--until {step.name}"
                )


@contextmanager
def _logged_failure(case: Case, step: Step[Any], began: float) -> Iterator[None]:
    """One line in the journal of runs for a step that fails or is stopped."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, GeneratorExit | KeyboardInterrupt | Cancelled)
        ended = {"outcome": "stopped"} if stopped else {"outcome": "failed", "error": str(error)}
        with suppress(OSError, MosaikError):  # a full disk must not hide what failed
            case.log("step", step=step.name, seconds=round(time.monotonic() - began, 3), **ended)
        raise


def _peak_mib() -> float | None:
    """The most memory that this process has taken so far, MiB; None where the system tells none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _commit(
    case: Case,
    step: Step[Any],
    origin: Origin,
    params: Params,
    results: Mapping[Artifact[Any], object],
    notes: Mapping[str, Any],
) -> None:
    if set(results) != set(step.writes):
        raise KeyError(f"step '{step.name}' did not return exactly the results that it declares")
    doubts = _doubts(notes, results)
    record = {
        "version": napari_mosaik.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params.model_dump(mode="json"),
        **notes,
        WARNINGS: doubts,
    }
    case.store.commit(origin, results, record)
    case.log(
        "step",
        step=step.name,
        outcome="done",
        seconds=notes["seconds"],
        process_peak_mib=_peak_mib(),
        objects=max((len(one) for one in results.values() if isinstance(one, Table)), default=None),
        warnings=doubts,
        origin=origin.digest(),
    )


def _doubts(notes: Mapping[str, Any], results: Mapping[Artifact[Any], object]) -> list[str]:
    """The warnings that a step gave, those about the stain and those in its documents."""
    documents = [value for value in results.values() if isinstance(value, dict)]
    sources = (notes, notes.get(STAINING) or {}, *documents)
    return list(dict.fromkeys(str(text) for one in sources for text in one.get(WARNINGS) or ()))


def run_until(
    case: Case,
    recipe: Recipe,
    until: str = "",
    *,
    scheduler: str = "",
    repair: bool = False,
    only: Collection[str] | None = None,
    known: tuple[CaseStatus, Looked] | None = None,
) -> Generator[tuple[Step[Any], Progress], None, None]:
    """Run the stale and missing steps that *until* needs (or all that can run), in order.

    Without *until*, a step that cannot use its input does not stop the steps that do not depend on
    it; the failed steps are reported at the end.  A step with a damaged result has failed; with
    *repair* it runs again.  With *only*, no step of another name runs.  *known* is the status that
    the caller has just asked for, and what was looked at for it.

    Raises
    ------
    Blocked
        *until* cannot run.
    InputError
        A step cannot use its input.
    """
    looked: Looked = {}
    status, looked = known or (case_status(case, recipe, looked=looked), looked)
    todo = [step for step in plan(status, until) if only is None or step.name in only]
    again = {step.name for step in todo if repair and status.states[step.name].damaged}
    failed = {
        step: status.states[step.name].reason
        for step in (STEPS if not until and only is None else todo)
        if status.states[step.name].damaged and step.name not in again
    }
    if failed and until:
        raise CorruptArtifact("; ".join(failed.values()))
    skipped = {step.name for step in failed}
    for step in todo:
        if skipped & {step.name, *_makers(step)}:
            skipped.add(step.name)
            continue
        force = step.name in again
        work = run(
            case, step, recipe[step.name], recipe=recipe, scheduler=scheduler, force=force,
            looked=looked,
        )  # fmt: skip
        try:
            for progress in work:
                yield step, progress
        except (InputError, CorruptArtifact) as error:
            if until:
                raise
            failed[step] = str(error)
            skipped.add(step.name)
    if failed:
        reasons = "; ".join(f"{step.title}: {reason}" for step, reason in failed.items())
        raise InputError(f"case {case.name}: some steps failed. {reasons}")


def _makers(step: Step[Any]) -> set[str]:
    """Names of the steps whose artifacts a step reads."""
    entries = (*step.reads, *step.may_read)
    return {maker_of(entry).name for entry in entries if isinstance(entry, Artifact)}
