"""Long computations are generators that can be stopped at any `yield`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

__all__ = ["finish"]

T = TypeVar("T")


def finish(work: Generator[Any, None, T]) -> T:
    """Run a generator to its end without looking at what it yields, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
