"""Long work in the background: a generator run on a thread, with time left and Cancel."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.core import Cancelled, MosaikError, Progress
from napari_mosaik.core.progress import TimeLeft, cancellable, run_to_end
from napari_mosaik.core.thread_priority import COMPUTING, step_back

__all__ = ["Job", "Problem", "Report", "Task", "problem_of"]

Steps = Generator[tuple[str, Progress], None, Any]
"""The work of a job: yields (step name, progress) and returns its result."""

_POLL_MS = 80
_PAUSED_S = 0.2
"""How often a paused job looks whether it is cancelled, s."""


@dataclass(frozen=True, slots=True)
class Report:
    """Progress of a job: step name, text, fraction in [0, 1] and seconds left.

    ``left_s`` is None until it can be estimated; ``losses`` are those of a training so far.
    """

    part: str
    text: str
    fraction: float
    left_s: float | None
    losses: tuple[tuple[float, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """An error for the banner: one sentence, and details for a bug report.

    ``action`` names the step or action that failed; ``internal`` marks an error of the program.
    """

    action: str
    sentence: str
    details: str = ""
    internal: bool = False


def problem_of(action: str, error: BaseException) -> Problem:
    """An error as a message for the user; the traceback goes into the details only."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, MosaikError):
        return Problem(action, str(error), details)
    if isinstance(error, MemoryError):
        sentence = "Not enough memory. Close other programs and run it again."
        return Problem(action, sentence, details)
    kind = type(error).__name__
    sentence = f"Internal error (please report): {kind}: {error}. Nothing was changed."
    return Problem(action, sentence, details, internal=True)


class _Thread(QObject):
    """Runs one function on its own thread; ``ended`` is received on the GUI thread."""

    ended = Signal()

    def __init__(self, work: Callable[[], object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._work = work
        self.value: object = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._drive, name="mosaik-job", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the thread to end; returns whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """Let go of the function and of what it returned: they may hold a case."""
        self._work, self.value, self.error = lambda: None, None, None

    def _drive(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:  # noqa: BLE001 - every error must reach the window
            self.error = error
        try:
            self.ended.emit()
        except RuntimeError:  # the window was closed meanwhile, and this object with it
            return


class Job(QObject):
    """Runs a generator in the background, reports its progress and can be cancelled.

    The generator is advanced and closed on the same background thread, so that the thread that
    acquired a lock also releases it.  All signals are emitted on the GUI thread.

    Parameters
    ----------
    title
        Title for the progress bar.
    steps
        Returns the generator; called on the background thread.
    """

    progressed = Signal(object)
    cancelling = Signal()
    paused = Signal(bool)
    done = Signal(object)
    cancelled = Signal()
    failed = Signal(object)
    ended = Signal()

    def __init__(
        self, title: str, steps: Callable[[], Steps], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.title = title
        self.stopping = False
        self.parts: list[str] = []  # in the order of their start
        self._steps = steps
        self._stop = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._waiting = False
        self._latest: tuple[str, Progress] = (title, Progress(0, 1, ""))
        self._left, self._left_of = TimeLeft(), title
        self._poll = QTimer(self)
        self._poll.setInterval(_POLL_MS)
        self._poll.timeout.connect(self._emit_progress)
        self._thread = _Thread(self._drive, self)
        self._thread.ended.connect(self._finish)

    def start(self) -> None:
        """Start."""
        self._poll.start()
        self._thread.start()

    def cancel(self) -> None:
        """Stop at the next checkpoint; ``cancelling`` is emitted at once."""
        if not self.stopping:
            self.stopping = True
            self._stop.set()
            self._going.set()  # a paused job ends at once
            self.cancelling.emit()

    @property
    def is_paused(self) -> bool:
        """Whether the job waits before it goes on."""
        return not self._going.is_set()

    def set_paused(self, paused: bool) -> None:
        """Wait at the next report of progress, or go on; ``paused`` is emitted at once."""
        if self.stopping or paused == self.is_paused:
            return
        if paused:
            self._going.clear()
        else:
            self._left_of = ""  # the pause tells nothing about the time that is left
            self._going.set()
        self.paused.emit(paused)

    @property
    def is_waiting(self) -> bool:
        """Whether a paused job has come to its next report, and waits there."""
        return self.is_paused and self._waiting

    def wait(self, timeout_s: float) -> bool:
        """Block until the work has stopped (for closing the window); returns whether it has."""
        return self._thread.wait(timeout_s)

    def report(self) -> Report:
        """Current progress."""
        part, progress = self._latest
        left = self._left.seconds()
        return Report(part, progress.text, progress.fraction, left, progress.losses)

    def _drive(self) -> object:
        step_back(COMPUTING)
        generator = self._steps()
        self._check()
        with cancellable(self._stop.is_set):
            return run_to_end(generator, self._take)

    def _take(self, latest: tuple[str, Progress]) -> None:
        self._latest = part, progress = latest
        if part not in self.parts:
            self.parts.append(part)
        if part != self._left_of:
            self._left, self._left_of = TimeLeft(progress.fraction), part
        self._left.reach(progress.fraction, progress.found, progress.text)
        self._waiting = True
        while not self._going.wait(_PAUSED_S):
            self._check()
        self._waiting = False
        self._check()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled(f"{self.title} was cancelled; nothing was changed")

    def _emit_progress(self) -> None:
        self.progressed.emit(self.report())

    def _finish(self) -> None:
        self._poll.stop()
        error = self._thread.error
        if error is None:
            self.done.emit(self._thread.value)
        elif isinstance(error, Cancelled):
            self.cancelled.emit()
        else:
            self.failed.emit(problem_of(self._latest[0] or self.title, error))
        self.ended.emit()


class Task(QObject):
    """Calls one short function in the background; it cannot be cancelled."""

    done = Signal(object)
    failed = Signal(object)

    def __init__(
        self, action: str, work: Callable[[], object], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._action = action
        self._thread = _Thread(work, self)
        self._thread.ended.connect(self._finish)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Block until the function has returned; returns whether it has."""
        return self._thread.wait(timeout_s)

    def _finish(self) -> None:
        if self._thread.error is None:
            self.done.emit(self._thread.value)
        else:
            self.failed.emit(problem_of(self._action, self._thread.error))
        self._thread.forget()
