"""Compile a loop over pixels to machine code, once per machine.

numba takes a third of a second to load, so it is loaded by the first call of a compiled function,
not by the import of the file that holds one: a command that computes nothing starts without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from importlib.metadata import version
from threading import RLock
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

__all__ = ["compiled", "compiled_unchecked", "processor_record"]

F = TypeVar("F", bound=Callable[..., object])
_ONE_AT_A_TIME = RLock()


def processor_record() -> dict[str, str]:
    """Device, precision and versions of what compiled loops compute, for a record."""
    packages = {name: version(name) for name in ("numpy", "numba")}
    return {"device": "CPU", "precision": "32 bit", **packages}


class _Compiled:
    """A function that numba takes over when it is first called."""

    def __init__(self, function: FunctionType, **options: Any) -> None:
        update_wrapper(self, function)
        self._function, self._options = function, options
        self._made: Any = None
        self._ready: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._ready or self.taken_over())(*arguments)

    def taken_over(self) -> Any:
        """Numba's own object; the compiled functions that this one calls are replaced, too.

        numba looks those up by their names in the file, where it must find objects of its own.
        """
        with _ONE_AT_A_TIME:
            if self._made is None:
                import numba

                # Made before the others, because a function may call itself; ready after them,
                # because another thread that finds it ready calls it, and numba then looks them up.
                self._made = numba.njit(cache=True, nogil=True, **self._options)(self._function)
                names, known = _names(self._function.__code__), self._function.__globals__
                files = [known[name] for name in names if isinstance(known.get(name), ModuleType)]
                for place in [known, *(file.__dict__ for file in files)]:
                    for name in names:
                        if isinstance(place.get(name), _Compiled):
                            place[name] = place[name].taken_over()
                self._ready = self._made
            return self._made


def _names(code: CodeType) -> set[str]:
    """Names that a function looks up in its file, within inner functions, too."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def compiled(function: F) -> F:
    """The function compiled by numba, cached on disk and without the interpreter lock.

    Loops run on one core: blocks of a slide are processed side by side, and numba's fallback
    threading layer ends the process when two threads enter a parallel loop at once.  Division by
    zero raises `ZeroDivisionError`, as in Python: a measurement must not become infinite unseen.
    """
    return cast(F, _Compiled(cast(FunctionType, function)))


def compiled_unchecked(function: F) -> F:
    """As `compiled`, but division by zero gives infinity or NaN, which lets loops be vectorised.

    For painting the sample cohort, whose formulas have no zero divisor.
    """
    return cast(F, _Compiled(cast(FunctionType, function), error_model="numpy"))
