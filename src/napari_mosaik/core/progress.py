"""Long computations are generators: each `yield` reports progress and is a place to stop.

result = yield from subprogress(part(), 0.2, 0.5)       a part of a longer computation
result = run_to_end(whole(), report)                    the caller that drives it
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["blocking", "map_progress", "run_to_end", "subprogress"]

T = TypeVar("T")
P = TypeVar("P")
Q = TypeVar("Q")
Args = ParamSpec("Args")


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
