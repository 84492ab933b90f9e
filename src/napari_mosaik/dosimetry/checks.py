"""What every function of the dosimetry asks of its numbers, in one sentence each."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError

__all__ = ["above_zero", "as_numbers", "at_least_zero", "not_negative", "within_limits"]


def as_numbers(name: str, values: ArrayLike) -> FloatArray:
    """*values* of any shape as numbers, in Gy, h or any unit; else `InputError`."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be numbers of one shape") from None


def above_zero(name: str, value: float, unit: str = "", *, infinite: bool = False) -> float:
    """One number above 0 in *unit*, also infinity where *infinite*; else `InputError`."""
    number = _one_number(name, value)
    if not number > 0 or (math.isinf(number) and not infinite):
        raise InputError(f"{name} must be a number above 0, not {number:g} {unit}".rstrip())
    return number


def at_least_zero(name: str, value: float, unit: str = "", *, infinite: bool = False) -> float:
    """One number of 0 or more in *unit*, also infinity where *infinite*; else `InputError`."""
    number = _one_number(name, value)
    if not number >= 0 or (math.isinf(number) and not infinite):
        raise InputError(f"{name} must be a number of 0 or more, not {number:g} {unit}".rstrip())
    return number


def _one_number(name: str, value: float) -> float:
    numbers = as_numbers(name, value)
    if numbers.ndim:
        raise InputError(f"{name} must be one number, not {numbers.size}")
    return float(numbers)


def not_negative(name: str, values: ArrayLike, unit: str = "") -> FloatArray:
    """Values of any shape, 0 or more in *unit* (Gy, h ...), or NaN; else `InputError`."""
    numbers = as_numbers(name, values)
    if (numbers < 0).any() or np.isinf(numbers).any():
        worst = np.nanmin(numbers) if (numbers < 0).any() else np.inf
        raise InputError(f"{name} must be 0 or more and finite, not {worst:g} {unit}".rstrip())
    return numbers


def within_limits(name: str, values: ArrayLike, low: float, high: float) -> FloatArray:
    """Values of any shape within [low, high], dimensionless, or NaN; else `InputError`."""
    numbers = as_numbers(name, values)
    wrong = numbers[(numbers < low) | (numbers > high)]
    if wrong.size:
        raise InputError(f"{name} must lie in [{low:g}, {high:g}], not at {wrong.flat[0]:g}")
    return numbers
