"""Long computations are generators: each `yield` reports progress and is a place to stop.

result = yield from subprogress(part(), 0.2, 0.5)       a part of a longer computation
result = run_to_end(whole(), report)                    the caller that drives it

Between two reports a computation may take long, on several threads.  Whoever can be asked to stop
says so with `cancellable`; loops call `checkpoint`, which raises `Cancelled` on the threads of a
computation that is asked to stop.  Nothing else is interrupted: what is stored stays whole.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import wraps
from threading import Event, local
from typing import Any, ParamSpec, TypeVar, final

from napari_mosaik.core.errors import Cancelled

__all__ = [
    "TimeLeft",
    "blocking",
    "cancellable",
    "checkpoint",
    "map_progress",
    "of_this_item",
    "part_of_item",
    "reach_of_item",
    "repeated",
    "run_to_end",
    "side_by_side",
    "stop_asked",
    "subprogress",
]

T = TypeVar("T")
P = TypeVar("P")
Q = TypeVar("Q")
Args = ParamSpec("Args")


_THREAD = local()
_CHECK_S = 0.05
"""How often a computation that waits for its threads looks whether it is asked to stop, s."""


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
    tell = _teller()
    if tell is not None:
        tell(share)


def _teller() -> Callable[[float], object] | None:
    tell: Callable[[float], object] | None = getattr(_THREAD, "tell", None)
    return tell


@contextmanager
def part_of_item(start: float, stop: float) -> Iterator[None]:
    """Let `reach_of_item` inside tell of a part of the item: between *start* and *stop* of it."""
    outer = _teller()
    if outer is None:
        yield
        return
    _THREAD.tell = lambda share: outer(start + (stop - start) * share)
    try:
        yield
    finally:
        _THREAD.tell = outer


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


def repeated(work: Generator[P, None, T], every_s: float = 0.9) -> Generator[P, None, T]:
    """The same computation on a thread of its own, which repeats its latest report while it is
    silent for longer than *every_s*: in a long loop, while a library is loaded, or a function
    compiled for the first time.

    Between two of its reports nothing computes, as without.  Closing it waits for the next
    checkpoint.
    """
    asked, stopped = stop_asked(), Event()

    def reach() -> tuple[list[P], T | None]:
        with cancellable(stopped.is_set), cancellable(asked):
            try:
                return [next(work)], None
            except StopIteration as end:
                return [], end.value

    latest: list[P] = []
    with ThreadPoolExecutor(1, "mosaik-step") as thread:
        try:
            while True:
                going = thread.submit(reach)
                while not wait([going], every_s).done:
                    yield from latest
                latest, result = going.result()
                if not latest:
                    return result  # type: ignore[return-value]
                yield from latest
        finally:
            stopped.set()
            thread.submit(work.close).result()


def side_by_side(
    work: Callable[[P], T], items: Iterable[P], tell_s: float = 0.5
) -> Generator[float, None, list[T]]:
    """The results of *work* on each of a few items, which are computed on all cores of the process.

    Yields the fraction of the items that is done, every *tell_s* at least.  Closing it, and an item
    that fails, stop the others at their next checkpoint.  For work that no thread of its own
    speeds up, and whose results do not depend on what runs beside it.
    """
    asked, stopped = stop_asked(), Event()

    def one(item: P) -> T:
        with cancellable(stopped.is_set), cancellable(asked):
            checkpoint()
            return work(item)

    todo = list(items)
    with ThreadPoolExecutor(max(1, min(_n_cores(), len(todo))), "mosaik-part") as pool:
        parts = [pool.submit(one, item) for item in todo]
        try:
            waiting, reported = set(parts), time.monotonic()
            while waiting:
                checkpoint()
                ended, waiting = wait(waiting, _CHECK_S, FIRST_COMPLETED)
                for part in ended:
                    part.result()  # raises what the item has raised
                if ended or time.monotonic() - reported >= tell_s:
                    reported = time.monotonic()
                    yield 1 - len(waiting) / len(parts)
        finally:
            stopped.set()
    return [part.result() for part in parts]


def _n_cores() -> int:
    """Number of cores (count) that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    # not beyond by a last digit: the next part begins at *stop*, and no share goes back
    return map_progress(work, lambda share: min(stop, start + (stop - start) * share))


_MIN_SHARE, _MIN_S = 0.005, 1.0
"""Share and time, s, from which a pace can be told."""
_ROUNDING = 1e-9
"""A share that is smaller by less has the same value."""
_OWN_SHARE = 0.06
"""A part that has gained so much of the whole tells the pace of the rest by itself."""
_MEMORY = 0.15
"""What lies so much of the whole back counts e times less for the pace."""


@final
class TimeLeft:
    """Estimates how long a computation still takes, from the share of it that is done.

    The rest is expected at the pace of the latest sixth or so: a machine may become slower or
    faster on the way.  The shares of parts are rarely those of their times, so what lies before the
    part in work counts the less, the more this one has gained.  Shares come in steps: until the
    next one is told, the work goes on unseen, by no more than the largest step of its part.

    Parameters
    ----------
    share
        Fraction of the computation that is done already.
    """

    def __init__(self, share: float = 0.0) -> None:
        self._part = ""
        self._begin(share)

    def _begin(self, share: float) -> None:
        self._share, self._at = share, time.monotonic()
        self._began, self._start, self._part_start = self._at, share, share
        # Share gained and time spent, in the part in work and before it, by how much they count.
        self._gained = self._spent = self._gained_before = self._spent_before = 0.0
        self._step = 0.0

    def reach(self, share: float, found: bool = False, part: str = "") -> None:
        """Tell that this share (fraction of 1) is done now, in which part of the computation.

        What was *found* finished took no time and says nothing about the rest.
        """
        if share < self._share - _ROUNDING or found:
            self._begin(share)
        elif share > self._share or part != self._part:
            self._gain(max(0.0, share - self._share))
        if part != self._part:
            self._part, self._part_start, self._step = part, self._share, 0.0
            self._gained_before += self._gained
            self._spent_before += self._spent
            self._gained = self._spent = 0.0

    def _gain(self, gain: float) -> None:
        """So much more of the whole was done since the last step."""
        now = time.monotonic()
        left = math.exp(-gain / _MEMORY)
        counts = _MEMORY * (1 - left) / gain if gain else 1.0  # on average over this gain
        self._gained = left * self._gained + counts * gain
        self._spent = left * self._spent + counts * (now - self._at)
        self._gained_before *= left
        self._spent_before *= left
        self._step = max(self._step, gain)
        self._share, self._at = self._share + gain, now

    def seconds(self) -> float | None:
        """How long the rest takes at the pace so far, s; None until that can be told."""
        now = time.monotonic()
        if self._share - self._start < _MIN_SHARE or now - self._began < _MIN_S or self._share >= 1:
            return None
        weight = max(0.0, 1.0 - (self._share - self._part_start) / _OWN_SHARE)
        spent = self._spent + weight * self._spent_before
        gained = self._gained + weight * self._gained_before
        silent = now - self._at
        unseen = min(self._step, silent * gained / spent) if spent > 0 else 0.0
        gained += unseen
        rest = max(0.0, 1.0 - self._share - unseen)
        return rest * (spent + silent) / gained if gained > 0 else None
