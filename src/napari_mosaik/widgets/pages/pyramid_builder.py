"""Builds missing pyramid levels of a case's slides in the background, one slide at a time."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.core.thread_priority import COMPUTING, step_back
from napari_mosaik.workflow.pyramids import build_missing_levels

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["PyramidBuilder"]


class PyramidBuilder(QObject):
    """Builds the missing pyramid levels; ``message_changed`` reports progress in one line.

    Displayed slides use the levels as soon as they are stored.  The work pauses while a job runs
    and stops when another case is opened or the window is closed.
    """

    message_changed = Signal(str)

    def __init__(self, controller: CaseController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._stopped = threading.Event()
        self._may_run = threading.Event()
        self._may_run.set()
        controller.workspace.events.case.connect(self.start)
        self._last = ""
        controller.workspace.events.job.connect(self._pause_for_job)

    def start(self, *_: object) -> None:
        """Start with the open case; work on another one stops."""
        self.stop()
        case = self._controller.workspace.case
        if case is None:
            return
        self._stopped = threading.Event()
        work = partial(self._complete, case, self._stopped)
        self._controller.read("Pyramid levels", work, self._done)

    def stop(self) -> None:
        """Stop at the next tile; unfinished levels are not stored."""
        self._stopped.set()
        self._may_run.set()

    def _pause_for_job(self, *_: object) -> None:
        if self._controller.workspace.job is None:
            self._may_run.set()
        else:
            self._may_run.clear()

    def _complete(self, case: Case, stopped: threading.Event) -> str:
        """Runs in the background; returns the first error message, empty if all went well."""
        step_back(COMPUTING)
        with contextlib.closing(build_missing_levels(case, threads=1)) as work:
            while True:
                self._may_run.wait()
                if stopped.is_set():
                    return ""
                try:
                    stain, progress = next(work)
                except StopIteration as end:
                    return next(iter(end.value), "")
                title = f"{STAIN_TITLES[stain]}: building missing pyramid levels"
                self._report(f"{title}, {100 * progress.fraction:.0f} %")

    def _report(self, text: str) -> None:
        """Emit a changed message only; a signal for every tile would flood the GUI thread."""
        if text == self._last:
            return
        self._last = text
        with contextlib.suppress(RuntimeError):  # the window was closed meanwhile
            self.message_changed.emit(text)

    def _done(self, problem: str) -> None:
        self._last = f"⚠ {problem}" if problem else ""
        self.message_changed.emit(self._last)
