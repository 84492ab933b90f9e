"""Run the steps of a case: plan those that are stale or missing, compute and commit them."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

import napari_mosaik
from napari_mosaik.core.artifact import Artifact, Origin, Progress
from napari_mosaik.core.errors import Blocked, CorruptArtifact, InputError
from napari_mosaik.core.params import Params
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.case_status import CaseStatus, case_status
from napari_mosaik.workflow.parallel import one_blas_thread
from napari_mosaik.workflow.recipe import Recipe, read_recipe
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named

__all__ = ["plan", "run", "run_until"]


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

    Raises
    ------
    Blocked
        An input is missing, or an earlier step has to run first.
    """
    recipe = {**(recipe or read_recipe(case.root)), step.name: params}
    # The lock comes before the status: another writer may commit a step in between, and this run
    # would then record an origin that its inputs no longer have.
    with case.writing():
        status = case_status(case, recipe)
        _ready(status, step)
        if status.states[step.name].word == "done" and not force:
            yield Progress(1, 1, "already done")
            return
        origin = status.expected[step.name]
        scratch = case.root / "scratch" / f"{step.name}-{origin.digest()[:16]}"
        known = None if force else origin
        inputs = StepContext(case, step, scratch, scheduler, status.unavailable[step.name], known)
        if force:
            inputs.clear()
        began = time.monotonic()
        yield Progress(0, 1, step.title)
        with one_blas_thread():
            results = yield from step.body(inputs, params)
        seconds = time.monotonic() - began
        _commit(case, step, origin, params, results, {**inputs.notes, "seconds": round(seconds, 3)})
        # Only after the commit: until then the finished blocks are what a restart resumes from.
        inputs.clear()
    yield Progress(1, 1, step.title)


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


def _commit(
    case: Case,
    step: Step[Any],
    origin: Origin,
    params: Params,
    results: Mapping[Artifact[Any], object],
    notes: Mapping[str, Any],
) -> None:
    if set(results) != set(step.writes):
        raise KeyError(f"step '{step.name}' did not return exactly the artifacts that it declares")
    record = {
        "version": napari_mosaik.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params.model_dump(mode="json"),
        **notes,
    }
    case.store.commit(origin, results, record)
    case.log("step", step=step.name, seconds=notes["seconds"], origin=origin.digest())


def run_until(
    case: Case, recipe: Recipe, until: str = "", *, scheduler: str = ""
) -> Generator[tuple[Step[Any], Progress], None, None]:
    """Run the stale and missing steps that *until* needs (or all that can run), in order.

    Without *until*, a step that cannot use its input does not stop the steps that do not depend on
    it; the failed steps are reported at the end.

    Raises
    ------
    Blocked
        *until* cannot run.
    InputError
        A step cannot use its input.
    """
    failed: dict[str, str] = {}
    skipped: set[str] = set()
    for step in plan(case_status(case, recipe), until):
        if _makers(step) & skipped:
            skipped.add(step.name)
            continue
        try:
            params = recipe[step.name]
            for progress in run(case, step, params, recipe=recipe, scheduler=scheduler):
                yield step, progress
        except (InputError, CorruptArtifact) as error:
            if until:
                raise
            failed[step.title] = str(error)
            skipped.add(step.name)
    if failed:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in failed.items())
        raise InputError(f"case {case.name}: some steps failed. {reasons}")


def _makers(step: Step[Any]) -> set[str]:
    """Names of the steps whose artifacts a step reads."""
    entries = (*step.reads, *step.may_read)
    return {maker_of(entry).name for entry in entries if isinstance(entry, Artifact)}
