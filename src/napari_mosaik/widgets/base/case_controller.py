"""Actions of the window on cases: open, create, run and cancel, each in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Signal
from superqt.utils import qdebounced

from napari_mosaik.core import InputError, MosaikError, Params
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.io.case import Case, create_case, find_cases
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.view.presentation import blind_lines, result_lines, withheld_lines
from napari_mosaik.view.tile_data import TileData, read_tile_data
from napari_mosaik.view.worth import worth_lines
from napari_mosaik.widgets.base.gc_tuning import Turns
from napari_mosaik.widgets.base.worker import Job, Problem, Report, Steps, Task, problem_of
from napari_mosaik.widgets.base.workspace import LoopChange, Workspace
from napari_mosaik.workflow.annotations import WithheldMap, withheld_class_map
from napari_mosaik.workflow.case_status import CaseStatus, case_status
from napari_mosaik.workflow.parallel import computing_on
from napari_mosaik.workflow.recipe import Recipe, read_recipe, write_recipe
from napari_mosaik.workflow.relink import relink
from napari_mosaik.workflow.review_queue import (
    blind_readers,
    has_seen,
    mark_development,
    mark_steered,
    seen_by,
)
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import step_named
from napari_mosaik.workflow.update import WaitingUpdate, update, waiting_update
from napari_mosaik.workflow.worth import worth_of

__all__ = ["CaseController", "missing_sources"]

_T = TypeVar("_T")
_CALM_MS = 300
"""The status of the steps is updated this long after the last change of a setting."""


class CaseController(QObject):
    """Acts on a workspace; every button calls one of these methods.

    At most one job runs at a time.  ``case_opened`` is emitted once a case is open and the status
    of its steps is known; ``committed`` with the name of each step that has stored its results;
    ``updated`` after an update; ``page_done`` with the names of the requested steps when all of
    them have finished.  ``case_left`` is emitted before a case is shown, when nothing of another
    one is shown any more: *leaving* tells whether something still is.
    """

    case_left = Signal()
    case_opened = Signal()
    committed = Signal(str)
    page_done = Signal(tuple)
    updated = Signal()

    def __init__(self, workspace: Workspace, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace
        self._generation = 0
        self._read_recipe: Recipe = {}  # the settings as this window last read or wrote them
        self._announced: set[str] = set()  # steps of the running job whose results were shown
        self._closed = False
        self._tasks: set[Task] = set()
        self._turns = Turns(self)
        self.leaving: Callable[[], bool] = lambda: False
        self._tile_data, self._results = TileData(), dict[str, str]()  # as if nothing was hidden
        self._blind_readers: frozenset[str] = frozenset()
        self._withheld = WithheldMap()
        self._looks = 0
        self._development = Development()
        self._beside = False  # whether the picture of the PET is on the canvas
        self._noted: set[tuple[Path, str]] = set()  # who saw what is measured, in which case
        workspace.events.blind.connect(self._blinded)
        workspace.events.withheld.connect(self._show_data)
        workspace.events.reader.connect(self._show_blindness)
        for event in (workspace.events.reader, workspace.events.blind):
            event.connect(self._show_development)
        self._refresh_soon = qdebounced(self.refresh, timeout=_CALM_MS, parent=self)

    # --- background -----------------------------------------------------------------------------
    @property
    def is_reading(self) -> bool:
        """Whether something is read in the background: a case, its slides, their layers."""
        return bool(self._tasks)

    def read(self, action: str, work: Callable[[], _T], then: Callable[[_T], None]) -> Task:
        """Call *work* in the background and pass its result to *then* on the GUI thread."""
        task = Task(action, work, self)
        self._tasks.add(task)
        task.done.connect(then)
        task.failed.connect(self._show)
        for signal in (task.done, task.failed):
            signal.connect(partial(self._forget, task))
        task.start()
        return task

    def read_for(
        self, case: Case, action: str, work: Callable[[], _T], then: Callable[[_T], None]
    ) -> Task:
        """Like `read`, but drop the result when *case* is no longer open, or the window closed."""

        def if_open(result: _T) -> None:
            if case is self.workspace.case and not self._closed:
                then(result)

        return self.read(action, work, if_open)

    def _forget(self, task: Task, _result: object) -> None:
        self._tasks.discard(task)
        task.deleteLater()

    def start(self, title: str, steps: Callable[[], Steps]) -> Job | None:
        """Start a job; returns None and shows a message if another one is running."""
        if self.workspace.job is not None:
            self.report(
                InputError(
                    f"{self.workspace.job.title} is running; wait for it to finish or cancel it"
                )
            )
            return None
        self.workspace.problem = None
        device = self.workspace.device
        job = Job(title, steps if device == "auto" else partial(_on_device, device, steps), self)
        job.progressed.connect(self._follow)
        job.failed.connect(self._show)
        job.ended.connect(self._job_ended)
        self.workspace.job = job
        self._announced.clear()
        job.start()
        return job

    def cancel(self) -> None:
        """Cancel the running job."""
        if self.workspace.job is not None:
            self.workspace.job.cancel()

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop all background work; called when the window closes."""
        self._closed = True
        self._refresh_soon.cancel()
        self._turns.stop()
        self._generation += 1
        job = self.workspace.job
        if job is not None:
            job.cancel()
            job.wait(timeout_s)
        for task in tuple(self._tasks):
            task.wait(timeout_s)

    def report(self, error: Exception, action: str = "") -> None:
        """Show an error in the banner."""
        self._show(problem_of(action, error))

    def _show(self, problem: Problem) -> None:
        if problem.action in self.workspace.states:  # a job names the step that failed
            problem = replace(problem, action=step_named(problem.action).title)
        self.workspace.problem = problem

    def _follow(self, report: Report) -> None:
        job, before = self.workspace.job, self.workspace.running
        if report.part != before and report.part in self.workspace.states:
            self.workspace.running = report.part
        if job is not None and report.part in job.parts:
            self._announce(job.parts[: job.parts.index(report.part)])

    def _announce(self, parts: Sequence[str]) -> None:
        """Emit ``committed`` once for each finished step, even if it was too short to be polled."""
        new = [p for p in parts if p in self.workspace.states and p not in self._announced]
        self._announced.update(new)
        if new:
            self.refresh()
        for step in new:
            self.committed.emit(step)

    def _job_ended(self) -> None:
        job = self.workspace.job
        self.workspace.running = ""
        self.workspace.job = None
        if job is not None:
            self._announce(job.parts)
            job.deleteLater()

    # --- opening --------------------------------------------------------------------------------
    def open(self, path: Path, prefer: str = "") -> None:
        """Open a case, or a cohort folder and its case *prefer*."""

        def work() -> tuple[tuple[Path, ...], _Opened]:
            roots = tuple(find_cases([path]))
            chosen = next((p for p in roots if p.name == prefer), roots[0])
            single = roots == (path,)
            return (() if single else roots), _open(chosen)

        self.read("Open", work, self._opened)

    def switch(self, path: Path, tile: int = -1) -> None:
        """Open another case of the cohort, at one of its tiles."""
        cohort = self.workspace.cohort

        self.read("Open", lambda: (cohort, _open(path)), partial(self._opened, tile=tile))

    def _opened(self, loaded: tuple[tuple[Path, ...], _Opened], tile: int = -1) -> None:
        self._generation += 1  # no status of the case before comes after this
        self._turns.start(self._show_opened(*loaded, tile))

    def _show_opened(self, cohort: tuple[Path, ...], opened: _Opened, tile: int) -> Iterator[None]:
        """Leave the case before and show another one, in turns of the event loop.

        In between no case is open.
        """
        workspace = self.workspace
        workspace.problem = None
        workspace.tile = -1
        workspace.change = None
        workspace.case = None
        yield
        while self.leaving():
            yield
        self.case_left.emit()
        yield
        workspace.recipe = opened.recipe
        self._read_recipe = opened.recipe
        yield
        self._results, self._tile_data = opened.results, opened.tile_data
        self._development = opened.development
        self.know_blind(opened.blind, opened.withheld)
        self._show_data()
        yield
        workspace.states, workspace.doubts = opened.states, opened.doubts
        workspace.waiting = opened.waiting
        workspace.cohort = cohort
        yield
        workspace.case = opened.case
        self._show_development()
        yield
        self.case_opened.emit()
        if 0 <= tile < workspace.tile_data.n_tiles:
            workspace.tile = tile

    def create(self, root: Path, file: CaseFile) -> None:
        """Create a case folder and open it."""

        def work() -> tuple[tuple[Path, ...], _Opened]:
            create_case(root, file)
            return (), _open(root)

        self.read("New case", work, self._opened)

    def sample(self, folder: Path, size: str = "quick", seed: int = 0) -> None:
        """Generate the sample cohort in the background, or open it if it exists already."""
        if any(folder.glob("*/case.toml")):
            self.open(folder, prefer="B11")
            return

        def steps() -> Steps:
            from napari_mosaik.phantom import sample

            for progress in sample(folder, size=size, seed=seed):
                yield "Sample cohort", progress

        job = self.start("Sample cohort", steps)
        if job is not None:
            job.done.connect(lambda _: self.open(folder, prefer="B11"))

    def update_case(self, **changes: Any) -> None:
        """Change a field of ``case.toml``: a pixel size, the injection record, a file."""
        case = self.workspace.case
        if case is None:
            return
        if self.workspace.job is not None:
            self.report(
                InputError(
                    f"{self.workspace.job.title} is running; wait for it to finish or cancel it"
                )
            )
            return
        try:
            case.update(**changes)
        except MosaikError as error:
            self.report(error, "Case")
            return
        self.workspace.problem = None
        self.workspace.events.case.emit(case, case)
        self.refresh()

    def relink(self, key: str, path: Path) -> None:
        """Let the case find a slide or its PET at another place; the files are read on a thread."""
        case = self.workspace.case
        if case is None:
            return

        def then(warnings: list[str]) -> None:
            self.workspace.problem = None
            for text in warnings:
                self.report(InputError(text), "Case")
            self.workspace.events.case.emit(case, case)
            self.refresh()

        self.read_for(case, "Case", lambda: relink(case, key, [path]), then)

    # --- status ---------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Update the status of every step in the background."""
        case, recipe = self.workspace.case, dict(self.workspace.recipe)
        if case is None:
            return
        self._refresh_soon.cancel()
        self._generation += 1
        generation = self._generation

        def then(
            answer: tuple[
                CaseStatus, dict[str, str], TileData, WaitingUpdate, frozenset[str], WithheldMap,
                Development,
            ],
        ) -> None:  # fmt: skip
            if generation == self._generation:  # neither another case nor a newer refresh
                self._know_development(answer[6])
                self.know_blind(answer[4], answer[5])
                self.workspace.waiting = answer[3]
                self.workspace.doubts = dict(answer[0].doubts)
                self.workspace.states = dict(answer[0].states)
                self._results, self._tile_data = answer[1], answer[2]
                self._show_data()

        free = self.workspace.job is None

        def work() -> tuple[
            CaseStatus, dict[str, str], TileData, WaitingUpdate, frozenset[str], WithheldMap,
            Development,
        ]:  # fmt: skip
            development = _development_of(case, compute=free)
            status = case_status(case, recipe)
            lines, data = result_lines(case, status.states), read_tile_data(case)
            waiting, withheld = waiting_update(case, status), withheld_class_map(case)
            return status, lines, data, waiting, blind_readers(case), withheld, development

        self.read("Case", work, then)

    def know_blind(self, readers: frozenset[str], withheld: WithheldMap | None = None) -> None:
        """Hide the measured uptake from some readers, and while nobody said who is reading.

        The same for the class map, from whom *withheld* says; as before if it is None.
        """
        self._blind_readers = readers
        self._withheld = self._withheld if withheld is None else withheld
        self._show_blindness()

    def look_withheld(self) -> None:
        """Ask in the background from whom the class map is hidden by now: tiles were finished."""
        case = self.workspace.case
        self._looks += 1
        number = self._looks

        def then(withheld: WithheldMap) -> None:
            if number == self._looks:
                self.know_blind(self._blind_readers, withheld)

        if case is not None:
            self.read_for(case, "Class map", partial(withheld_class_map, case), then)

    def _show_blindness(self, *_: object) -> None:
        reader, readers = self.workspace.reader, self._blind_readers
        self.workspace.blind = reader in readers or (not reader and bool(readers))
        self.workspace.withheld = self._withheld.why(reader)

    # --- what was shown -------------------------------------------------------------------------
    def saw_measured(self, what: str) -> None:
        """Note that measured uptake or errors of the open case are on the screen; see `Workspace`.

        Once for each case and reader, in the background.
        """
        space = self.workspace
        case, reader = space.case, space.reader
        known = case is None or space.blind or self._development.marked
        if case is None or known or (case.root, reader) in self._noted:
            return
        self._noted.add((case.root, reader))

        def work() -> Development:
            case.note_shown(what, reader)
            return _development_of(case, compute=False)

        self.read_for(case, "Development case", work, self._know_development)

    def show_beside(self, shown: bool) -> None:
        """Whether the picture of the PET is on the canvas, where it may steer what is drawn."""
        self._beside = shown
        self._show_development()

    def corrected(self) -> None:
        """The reader has annotated or corrected the open case: it may be a development case now."""
        space = self.workspace
        case, reader = space.case, space.reader
        seen = has_seen(self._development.seen_by, reader)
        if case is None or space.blind or self._development.marked or not (seen or self._beside):
            return
        free, beside = space.job is None, self._beside
        why = f"{reader or 'a reader'} corrected it while the PET was shown beside the slides"

        def work() -> Development:
            with suppress(MosaikError):  # the mark follows with the next correction
                if beside and not seen:
                    mark_development(case, why, compute=free)
            return _development_of(case, compute=free)

        def then(development: Development) -> None:
            self._know_development(development)
            if development.marked:
                self.refresh()

        self.read_for(case, "Development case", work, then)

    def _know_development(self, development: Development) -> None:
        self._development = development
        self._show_development()

    def _show_development(self, *_: object) -> None:
        space, known = self.workspace, self._development
        if space.case is None:
            space.development = ""
        elif known.marked:
            space.development = (
                "Development case: its PET has ranked a review or was shown before a correction; "
                "its error of prediction is called optimistic."
            )
        elif space.blind:
            space.development = ""
        elif has_seen(known.seen_by, space.reader):
            space.development = (
                "Measured uptake or errors of this case were shown: the next annotation or "
                "correction makes it a development case for good."
            )
        elif self._beside:
            space.development = (
                "The PET is shown beside the slides: an annotation or correction now makes this a "
                "development case for good. Hide the PET to keep a test case."
            )
        else:
            space.development = ""

    def _blinded(self, blind: bool, *_: object) -> None:
        if blind:
            self.workspace.change = None  # it may tell an error
        self._show_data()

    def _show_data(self, *_: object) -> None:
        """Show the results; while the window is blind not the measured uptake, nor an error."""
        tile_data, results = self._tile_data, self._results
        if self.workspace.blind:
            tile_data = tile_data.without_measured()
            results = blind_lines(results)
        if self.workspace.withheld:
            tile_data = tile_data.without_classes()
            results = withheld_lines(results, self.workspace.withheld)
        self.workspace.results, self.workspace.tile_data = results, tile_data

    def set_params(self, step: str, params: Params) -> None:
        """Set the settings of a step; its results and those that depend on it become stale."""
        if self.workspace.recipe.get(step) != params:
            self.workspace.recipe = {**self.workspace.recipe, step: params}
            self._refresh_soon()

    def take_recipe(self, recipe: Recipe) -> None:
        """Show settings that were just written to the case."""
        self._read_recipe = recipe
        self.workspace.recipe = dict(recipe)
        self.refresh()

    # --- running --------------------------------------------------------------------------------
    def run_steps(self, names: Sequence[str]) -> Job | None:
        """Run the steps of a page and everything they need; rerun them if all are finished."""
        case, states = self.workspace.case, self.workspace.states
        runnable = [name for name in names if states[name].word != "blocked"]
        if case is None or not runnable:
            return None
        recipe = self._recipe_to_run(case)
        if recipe is None:
            return None
        again = all(states[name].word == "done" for name in runnable)
        title = step_named(runnable[-1]).page
        job = self.start(title, lambda: _run(case, recipe, runnable, again=again))
        if job is not None:
            job.done.connect(lambda _: self.page_done.emit(tuple(runnable)))
        return job

    def run_missing(self) -> Job | None:
        """Run every step that has no results or stale ones and is not blocked."""
        case = self.workspace.case
        if case is None:
            return None
        recipe = self._recipe_to_run(case)
        if recipe is None:
            return None
        job = self.start("Run all missing", lambda: _run(case, recipe))
        if job is not None:  # the results of the last step are shown
            job.done.connect(lambda _: self.page_done.emit(tuple(job.parts[-1:])))
        return job

    def update(self, *, everything: bool = False) -> Job | None:
        """Recompute what corrections have changed, or everything stale; then say what changed."""
        case = self.workspace.case
        recipe = None if case is None else self._recipe_to_run(case)
        if case is None or recipe is None:
            return None
        title = "Update all" if everything else "Update here"
        job = self.start(title, lambda: _update(case, recipe, everything))
        if job is not None:
            job.done.connect(lambda _: self._updated(case))
        return job

    def _updated(self, case: Case) -> None:
        def then(lines: tuple[str, ...]) -> None:
            self.workspace.change = LoopChange(lines)
            if not blind and self._tile_data.metrics is not None:
                self.saw_measured("the error after an update")
            self.updated.emit()

        blind = self.workspace.blind
        self.read_for(case, "Change", lambda: worth_lines(worth_of(case), blind=blind), then)

    def _recipe_to_run(self, case: Case) -> Recipe | None:
        """The settings of this window, and those that others changed in the file meanwhile.

        None, with a message, if the file is not valid: nothing is written over it.
        """
        own, known = dict(self.workspace.recipe), self._read_recipe
        try:
            now = read_recipe(case.root)
        except InputError as error:
            self.report(error, "Recipe")
            return None
        recipe = {n: now[n] if own[n] == known.get(n) else own[n] for n in own}
        self._read_recipe = recipe
        if recipe != own:
            self.workspace.recipe = dict(recipe)
        return recipe


def _on_device(device: str, steps: Callable[[], Steps]) -> Steps:
    """The steps of a job with their networks on a device."""
    with computing_on(device), closing(steps()) as work:
        return (yield from work)


@dataclass(frozen=True, slots=True)
class Development:
    """Whether a case is a development case, and to whom its measured uptake was shown."""

    marked: bool = False
    seen_by: frozenset[str] = frozenset()


def _development_of(case: Case, *, compute: bool) -> Development:
    """Mark a case whose PET has steered corrections, and tell what is known."""
    mark_steered(case, compute=compute)
    return Development(case.is_development, frozenset(seen_by(case.root)))


class _Opened:
    """A case and all that the window shows of it, read in the background."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.recipe: Recipe = read_recipe(case.root)
        self.development = _development_of(case, compute=True)
        status = case_status(case, self.recipe)
        self.states, self.doubts = dict(status.states), dict(status.doubts)
        self.waiting = waiting_update(case, status)
        self.results = result_lines(case, self.states)
        self.tile_data = read_tile_data(case)
        self.blind = blind_readers(case)
        self.withheld = withheld_class_map(case)


def _open(path: Path) -> _Opened:
    return _Opened(Case(path))


def _run(case: Case, recipe: Recipe, names: Sequence[str] = ("",), *, again: bool = False) -> Steps:
    """Run up to each of the named steps ("" for all that can be run)."""
    with case.writing():
        write_recipe(case.root, recipe)
    for name in names:
        if again:
            with closing(run(case, step_named(name), recipe[name], force=True)) as one:
                for progress in one:
                    yield name, progress
        else:
            with closing(run_until(case, recipe, name, repair=True)) as several:
                for step, progress in several:
                    yield step.name, progress


def _update(case: Case, recipe: Recipe, everything: bool) -> Steps:
    with case.writing():
        write_recipe(case.root, recipe)
    with closing(update(case, recipe, everything=everything)) as work:
        for step, progress in work:
            yield step.name, progress


def missing_sources(case: Case) -> list[tuple[str, str, str]]:
    """Checklist of the sources: (title, key, reason why it is missing, "" if it is there)."""
    from napari_mosaik.core.catalogue import INJECTION, PET, SLIDES

    rows = [(STAIN_TITLES[stain], stain, case.missing_reason(SLIDES[stain])) for stain in SLIDES]
    rows.append(("PET", "pet", case.missing_reason(PET)))
    rows.append(("injection", "injection", case.missing_reason(INJECTION)))
    return rows
