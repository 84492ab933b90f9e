"""Long computations are generators: each `yield` reports progress and is a place to stop.

result = yield from subprogress(part(), 0.2, 0.5)       a part of a longer computation
result = run_to_end(whole(), report)                    the caller that drives it

Between two reports a computation may take long, on several threads.  Whoever can be asked to stop
says so with `cancellable`; loops call `checkpoint`, which raises `Cancelled` on the threads of a
computation that is asked to stop.  Nothing else is interrupted: what is stored stays whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import local
from typing import Any, ParamSpec, TypeVar, final

from napari_mosaik.core.errors import Cancelled

__all__ = [
    "TimeLeft",
    "blocking",
    "cancellable",
    "checkpoint",
    "map_progress",
    "of_this_item",
    "reach_of_item",
    "run_to_end",
    "stop_asked",
    "subprogress",
]

T = TypeVar("T")
P = TypeVar("P")
Q = TypeVar("Q")
Args = ParamSpec("Args")


_THREAD = local()


def _never() -> bool:
    return False


def stop_asked() -> Callable[[], bool]:
    """What tells whether the computation of this thread is asked to stop; for its other threads."""
    asked: Callable[[], bool] = getattr(_THREAD, "asked", _never)
    return asked


@contextmanager
def cancellable(asked: Callable[[], bool]) -> Iterator[None]:
    """Let `checkpoint` on this thread stop the computation inside as soon as *asked* says so.

    An outer `cancellable` goes on to count, too.
    """
    outer = stop_asked()
    _THREAD.asked = lambda: asked() or outer()
    try:
        yield
    finally:
        _THREAD.asked = outer


def checkpoint() -> None:
    """Raise `Cancelled` if the computation of this thread is asked to stop; takes a microsecond."""
    if stop_asked()():
        raise Cancelled("stopped; nothing was changed")


@contextmanager
def of_this_item(tell: Callable[[float], object]) -> Iterator[None]:
    """Let `reach_of_item` on this thread tell what is done of the item of work inside."""
    _THREAD.tell = tell
    try:
        yield
    finally:
        del _THREAD.tell


def reach_of_item(share: float) -> None:
    """Tell that this share (fraction of 1) of the item that this thread works on is done."""
    tell: Callable[[float], object] | None = getattr(_THREAD, "tell", None)
    if tell is not None:
        tell(share)


def run_to_end(work: Generator[P, None, T], report: Callable[[P], object] | None = None) -> T:
    """Run a computation and return its result.

    Parameters
    ----------
    work
        The computation; it is closed also when *report* raises.
    report
        Called with everything that the computation yields.
    """
    try:
        while True:
            try:
                progress = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            if report is not None:
                report(progress)
    finally:
        work.close()


def blocking(function: Callable[Args, Generator[Any, None, T]]) -> Callable[Args, T]:
    """The function that runs the computation of *function* to its end and returns the result."""

    @wraps(function)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> T:
        return run_to_end(function(*args, **kwargs))

    run.__name__ = run.__qualname__ = function.__name__.removeprefix("iter_")
    return run


def map_progress(work: Generator[P, None, T], convert: Callable[[P], Q]) -> Generator[Q, None, T]:
    """The same computation with every progress report converted."""
    try:
        while True:
            try:
                progress = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            yield convert(progress)
    finally:
        work.close()


def subprogress(
    work: Generator[float, None, T], start: float, stop: float
) -> Generator[float, None, T]:
    """The same computation as a part of a longer one: fractions between *start* and *stop*."""
    return map_progress(work, lambda share: start + (stop - start) * share)


_MIN_SHARE, _MIN_S = 0.005, 1.0
"""Share and time, s, from which a pace can be told."""
_ROUNDING = 1e-9
"""A share that is smaller by less has the same value."""
_OWN_SHARE = 0.05
"""A part that has gained so much of the whole tells the pace of the rest by itself."""


@final
class TimeLeft:
    """Estimates how long a computation still takes, from the share of it that is done.

    The shares of its parts are rarely those of their times.  So the pace is that of the part in
    work, and that of the parts before it the less, the more the part in work has gained.

    Parameters
    ----------
    share
        Fraction of the computation that is done already.
    """

    def __init__(self, share: float = 0.0) -> None:
        self._part, self._share = "", share
        self._begin(share)

    def _begin(self, share: float) -> None:
        self._began, self._start = time.monotonic(), share
        self._gained_before = self._spent_before = 0.0

    def reach(self, share: float, found: bool = False, part: str = "") -> None:
        """Tell that this share (fraction of 1) is done now, in which part of the computation.

        What was *found* finished took no time and says nothing about the rest.
        """
        if share < self._share - _ROUNDING or found:
            self._begin(share)
        elif part != self._part:
            now = time.monotonic()
            self._gained_before += share - self._start
            self._spent_before += now - self._began
            self._began, self._start = now, share
        self._share, self._part = share, part

    def seconds(self) -> float | None:
        """How long the rest takes at the pace so far, s; None until that can be told."""
        gained, spent = self._share - self._start, time.monotonic() - self._began
        all_gained, all_spent = gained + self._gained_before, spent + self._spent_before
        if all_gained < _MIN_SHARE or all_spent < _MIN_S or self._share >= 1:
            return None
        weight = max(0.0, 1.0 - gained / _OWN_SHARE)
        spent, gained = spent + weight * self._spent_before, gained + weight * self._gained_before
        return (1.0 - self._share) * spent / gained
