"""Compiled loops divide as Python does; those that paint the sample cohort as NumPy does."""

import math

import pytest

from napari_mosaik.core.compiled import compiled, compiled_unchecked


def ratio(a, b):
    return a / b


def painted_ratio(a, b):
    """A function of its own: numba's cache does not tell the two ways of compiling apart."""
    return a / b


def test_a_division_by_zero_is_an_error_and_not_infinity():
    with pytest.raises(ZeroDivisionError):
        compiled(ratio)(1.0, 0.0)
    assert compiled(ratio)(1.0, 4.0) == 0.25


def test_painting_loops_are_not_checked():
    assert math.isinf(compiled_unchecked(painted_ratio)(1.0, 0.0))
