"""Makes the levels that a case's slides lack, in the background and one slide after another."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.core.thread_priority import COMPUTING, step_back
from napari_mosaik.io.slide.pyramid.build import complete_pyramid, lacks_levels

if TYPE_CHECKING:
    from napari_mosaik.io import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["PyramidBuilder"]


class PyramidBuilder(QObject):
    """``said`` tells, in one line, which levels are being made; it is empty when nothing is to do.

    The slides that are shown use the levels as soon as they are stored.  The work rests while a
    job runs, and ends when another case is opened or the window closes.
    """

    said = Signal(str)

    def __init__(self, controller: CaseController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._end = threading.Event()
        self._go = threading.Event()
        self._go.set()
        controller.workspace.events.case.connect(self.start)
        self._last = ""
        controller.workspace.events.job.connect(self._rest)

    def start(self, *_: Any) -> None:
        """Begin with the open case; what was going on for another one ends."""
        self.stop()
        case = self._controller.workspace.case
        if case is None:
            return
        self._end = threading.Event()
        work = partial(self._complete, case, self._end)
        self._controller.read("Coarse levels of the slides", work, self._done)

    def stop(self) -> None:
        """End the work at its next tile; what is not finished is not stored."""
        self._end.set()
        self._go.set()

    def _rest(self, *_: Any) -> None:
        if self._controller.workspace.job is None:
            self._go.set()
        else:
            self._go.clear()

    def _complete(self, case: Case, end: threading.Event) -> str:
        """Runs on a thread; returns what could not be done, in words."""
        step_back(COMPUTING)
        problems = []
        for stain in case.file.slides:
            try:
                self._complete_one(case, stain, end)
            except InputError:
                continue  # whoever reads the slide says what is wrong with it
            except MosaikError as error:
                problems.append(str(error))
        return problems[0] if problems else ""

    def _complete_one(self, case: Case, stain: str, end: threading.Event) -> None:
        if end.is_set():
            return
        with case.slide(stain) as slide:
            if not lacks_levels(slide):
                return
            title = f"{STAIN_TITLES[stain]}: making the coarse levels that the slide lacks"
            with contextlib.closing(complete_pyramid(slide, case.pyramids, threads=1)) as work:
                for progress in work:
                    self._go.wait()
                    if end.is_set():
                        return
                    self._say(f"{title}, {progress.fraction:.0%}".replace("%", " %"))
                self._say("")

    def _say(self, text: str) -> None:
        """Tell what has changed; a signal for every tile would flood the window."""
        if text == self._last:
            return
        self._last = text
        with contextlib.suppress(RuntimeError):  # the window was closed meanwhile
            self.said.emit(text)

    def _done(self, problem: str) -> None:
        self._last = f"⚠ {problem}" if problem else ""
        self.said.emit(self._last)
