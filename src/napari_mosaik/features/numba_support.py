"""Compile a loop over pixels to machine code, once per machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function compiled by numba without Python objects; the code is kept on disk.

    Loops run on one core: blocks of a slide are worked side by side, and numba's fallback thread
    layer ends the process when two threads enter a parallel loop at once.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))
