"""Long computations are generators that can be stopped at any `yield`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

__all__ = ["run_to_end", "subprogress"]

T = TypeVar("T")


def run_to_end(work: Generator[Any, None, T]) -> T:
    """Run a generator to its end without looking at what it yields, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def subprogress(
    work: Generator[float, None, T], start: float, stop: float
) -> Generator[float, None, T]:
    """The same computation as a part of a longer one: its fractions lie between two of that."""
    while True:
        try:
            yield start + (stop - start) * next(work)
        except StopIteration as end:
            result: T = end.value
            return result
