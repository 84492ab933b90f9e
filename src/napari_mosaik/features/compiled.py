"""Compile a loop over pixels to machine code, once per machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled", "compiled_parallel"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function compiled by numba without Python objects; the code is kept on disk."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def compiled_parallel(function: F) -> F:
    """The same with parallel loops; each element of a result must be written by one turn only."""
    return cast(F, numba.njit(cache=True, nogil=True, parallel=True)(function))
