"""Many sets of kinetic parameters at once: the equations of free, bound and internalised antibody.

Each row is integrated alone by a stiff method of order 4 (RODAS) in machine code, so its
numbers depend neither on the other rows nor on the number of threads that share the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.errors import SolverError
from napari_mosaik.core.progress import checkpoint

__all__ = ["ROW", "checked_times", "kinetic_rows", "solve_in_steps", "solve_rows"]

ROW = (
    "k_a_per_um_h",
    "antigen_um",
    "k32_per_h",
    "k03_per_h",
    "transfer_per_h",
    "interstitial_fraction",
    "plasma_1_um",
    "plasma_1_per_h",
    "plasma_2_um",
    "plasma_2_per_h",
    "free_0_um",
    "bound_0_um",
    "internalised_0_um",
    "recycling",
)
"""Columns of a row of parameters: rates, antigen, delivery from plasma, start, sites replaced."""
_DEFAULTS = {"interstitial_fraction": 1.0, "recycling": 1.0}
_TOLERANCE = 3e-8
"""Of a step; it keeps the curves of Table 2 within 1e-7 of the exact ones."""
_CHUNK = 64
"""Rows between two places at which the computation can be stopped."""


def kinetic_rows(values: Mapping[str, ArrayLike]) -> FloatArray:
    """Parameter sets as rows (n, 14) in the order of `ROW`, in the units of its names (µM, h).

    Numbers hold for all rows; lists have one value (n,) per row.  Columns that are not given are 0,
    the interstitial fraction and recycling 1.  `InputError` for values that no row can have.
    """
    columns = [np.asarray(values.get(name, _DEFAULTS.get(name, 0.0)), float) for name in ROW]
    try:
        rows = np.ascontiguousarray(np.stack(np.broadcast_arrays(*columns), axis=-1))
    except ValueError:
        shapes = {name: np.shape(values[name]) for name in values if np.ndim(values[name])}
        raise InputError(f"parameter lists must be of one length, not {shapes}") from None
    rows = np.atleast_2d(rows)
    for place, name in enumerate(ROW):
        wrong = ~(np.isfinite(rows[:, place]) & (rows[:, place] >= 0))
        if wrong.any():
            value = rows[np.argmax(wrong), place]
            raise InputError(f"{name} = {value:g} is not valid: give a finite number of 0 or more")
    if (rows[:, 5] <= 0).any():
        raise InputError("interstitial_fraction = 0 is not valid: give a number above 0")
    over = rows[:, 11] > rows[:, 1]
    if over.any():
        bound, antigen = rows[np.argmax(over), [11, 1]]
        raise InputError(f"{bound} µM bound at injection exceeds the antigen, {antigen} µM")
    return rows


def solve_rows(rows: FloatArray, time_h: ArrayLike, *, tolerance: float = _TOLERANCE) -> FloatArray:
    """Antibody of each parameter set over time.

    ``dF/dt = K (C_p - F / eps) - k_a S F``, ``dB/dt = k_a S F - k32 B``,
    ``dI/dt = k32 B - k03 I``; sites ``S = C_tot - B``, or each site binds once.  The fourth value
    is ``∫ k03 I + K F / eps - K C_p dt``, what has left the tissue less what entered it: the sum
    of all four stays as it was at the start.

    Parameters
    ----------
    rows
        (n, 14) parameter sets of `kinetic_rows`.
    time_h
        (t,) times after injection, h, ascending from 0 on.
    tolerance
        Relative tolerance of a step; the absolute one is 1e-12 µM or less.

    Returns
    -------
    numpy.ndarray
        (n, t, 4) free, bound, internalised, and left less entered, µM; the first three are not
        negative.  Equal bit by bit for any split of the rows over calls and threads.

    Raises
    ------
    InputError
        If the times are not valid.
    SolverError
        If a row could not be solved.
    """
    from napari_mosaik.kinetics.rosenbrock import integrate_rows

    times, rows = checked_times(time_h), np.ascontiguousarray(rows, float)
    out = np.empty((len(rows), times.size, 4))
    for start in range(0, len(rows), _CHUNK):
        checkpoint()
        part = slice(start, start + _CHUNK)
        failed = integrate_rows(rows[part], times, tolerance, out[part])
        if failed >= 0:
            named = ", ".join(
                f"{n} = {v:g}" for n, v in zip(ROW, rows[start + failed], strict=True)
            )
            raise SolverError(
                f"the kinetics could not be solved for {named}; check rates and concentrations"
            )
    np.maximum(out[..., :3], 0.0, out=out[..., :3])
    return out


def solve_in_steps(row: FloatArray, end_h: float, n_steps: int) -> FloatArray:
    """The four values (4,) of `solve_rows`, µM, of one row at *end_h* after equal steps.

    The error is not controlled: for the observed order of convergence.
    """
    from napari_mosaik.kinetics.rosenbrock import equal_steps

    return np.asarray(equal_steps(np.ascontiguousarray(row, float), float(end_h), n_steps))


def checked_times(time_h: ArrayLike) -> FloatArray:
    """The times (t,) as an array; `InputError` unless finite, ascending and at least 0 h."""
    times = np.atleast_1d(np.asarray(time_h, float))
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise InputError("times must be a list of finite numbers of hours")
    if times[0] < 0 or (np.diff(times) < 0).any():
        raise InputError(f"times must ascend from 0 h, not {times[:5].tolist()} ...")
    return times
