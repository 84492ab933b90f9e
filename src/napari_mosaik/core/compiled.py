"""Compile a loop over pixels to machine code, once per machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["compiled", "compiled_unchecked"]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function compiled by numba, cached on disk and without the interpreter lock.

    Loops run on one core: blocks of a slide are processed side by side, and numba's fallback
    threading layer ends the process when two threads enter a parallel loop at once.  Division by
    zero raises `ZeroDivisionError`, as in Python: a measurement must not become infinite unseen.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def compiled_unchecked(function: F) -> F:
    """As `compiled`, but division by zero gives infinity or NaN, which lets loops be vectorised.

    For painting the sample cohort, whose formulas have no zero divisor.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
