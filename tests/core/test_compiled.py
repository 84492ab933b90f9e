"""Compiled loops divide as Python does; those that paint the sample cohort as NumPy does."""

import math
import subprocess
import sys

import pytest

from napari_mosaik.core.compiled import _Compiled, compiled, compiled_unchecked


@compiled
def half(value):
    return value / 2


@compiled
def quarter(value):
    return half(half(value))


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


def test_numba_is_loaded_by_the_first_call_not_by_the_import_and_finds_functions_of_other_files():
    code = (
        "import sys\n"
        "from napari_mosaik.phantom import paint, render\n"
        "from napari_mosaik.segment import run_length\n"
        "print('numba' in sys.modules, end=' ')\n"
        "import numpy as np\n"
        "print(run_length.find_runs(np.eye(3, dtype=bool)).n_objects, 'numba' in sys.modules)\n"
        "render._empty(0.0, 0.0, 1.0, np.eye(3), np.ones((1, 4, 4), np.float32))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.split() == ["False", "1", "True"], found.stderr
    assert found.returncode == 0, found.stderr


def test_no_thread_calls_a_function_before_those_that_it_calls_are_taken_over(monkeypatch):
    outer, inner, plain, seen = quarter, half, _Compiled.taken_over, []

    def watched(self):
        if self is inner:
            seen.append(outer._ready)
        return plain(self)

    monkeypatch.setattr(_Compiled, "taken_over", watched)
    assert quarter(8.0) == 2.0
    assert seen == [None]
    assert outer._ready is not None
    assert half is not inner
