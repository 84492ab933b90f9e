"""Many sets of kinetic parameters at once: the equations of free, bound and internalised antibody.

Each row is integrated alone by a stiff method of order 4 (RODAS) in machine code, so its
numbers depend neither on the other rows nor on the number of threads that share the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.errors import SolverError
from napari_mosaik.core.progress import checkpoint

__all__ = [
    "ROW",
    "checked_times",
    "equal_steps",
    "integrate_rows",
    "kinetic_rows",
    "solve_in_steps",
    "solve_rows",
]

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
    return np.asarray(equal_steps(np.ascontiguousarray(row, float), float(end_h), n_steps))


def checked_times(time_h: ArrayLike) -> FloatArray:
    """The times (t,) as an array; `InputError` unless finite, ascending and at least 0 h."""
    times = np.atleast_1d(np.asarray(time_h, float))
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise InputError("times must be a list of finite numbers of hours")
    if times[0] < 0 or (np.diff(times) < 0).any():
        shown = ", ".join(f"{time:g}" for time in times[:5])
        raise InputError(f"times must ascend from 0 h, not {shown} h")
    return times


# --- one row: RODAS -------------------------------------------------------------------------------
_ABSOLUTE_UM = 1e-12
_MAX_STEPS = 1_000_000
_FIRST_H, _GROWTH = 1e-7, 8.0
_GAMMA = 0.25
_A21, _A31, _A32 = 1.544, 0.9466785280815826, 0.2557011698983284
_A41, _A42, _A43 = 3.314825187068521, 2.896124015972201, 0.9986419139977817
_A51, _A52, _A53, _A54 = 1.221224509226641, 6.019134481288629, 12.53708332932087, -0.687886036105895
_C21, _C31, _C32 = -5.6688, -2.430093356833875, -0.2063599157091915
_C41, _C42, _C43 = -0.1073529058151375, -9.594562251023355, -20.47028614809616
_C51, _C52, _C53, _C54 = 7.496443313967647, -10.24680431464352, -33.99990352819905, 11.7089089320616
_C61, _C62, _C63, _C64, _C65 = (
    8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054
)  # fmt: skip
_T2, _T3, _T4 = 0.386, 0.21, 0.63
_D1, _D2, _D3, _D4 = 0.25, -0.1043, 0.1035, -0.0362
"""Coefficients of RODAS: Rosenbrock, order 4, L-stable (Hairer and Wanner 1996, IV.7)."""


@compiled_unchecked
def _terms(
    p: FloatArray, sites_0: float, wash: float, t: float, free: float, bound: float
) -> tuple[float, float, float]:
    """Supply from plasma, binding and loss to plasma, µM/h."""
    supply = 0.0
    if p[4] > 0:
        supply = p[4] * (p[6] * np.exp(-p[7] * t) + p[8] * np.exp(-p[9] * t))
    sites = p[1] - bound if p[13] else sites_0 + free
    return supply, p[0] * sites * free, wash * free


@compiled_unchecked
def _step(
    p: FloatArray, t: float, h: float, y: FloatArray, new: FloatArray, error: FloatArray
) -> None:
    """One step: the state after it, *new* (4,), and its estimated error, *error* (3,), µM.

    The matrix of the stages is that of free and bound antibody; the rest follows from those two.
    """
    free, bound, inside = y[0], y[1], y[2]
    wash, scale, by_step = p[4] / p[5], 1 / (h * _GAMMA), 1 / h
    sites_0 = p[1] - p[11] - p[10]
    if p[13]:
        by_free, by_bound = p[0] * (p[1] - bound), p[0] * free
    else:
        by_free, by_bound = p[0] * (sites_0 + 2 * free), 0.0
    m00, m01, m11 = scale + wash + by_free, -by_bound, scale + by_bound + p[2]
    det = 1 / (m00 * m11 + m01 * by_free)
    if not det > 0:  # rates beyond the range of numbers
        error[:] = np.nan
        return
    m00, m01, m10, m11 = m00 * det, m01 * det, -by_free * det, m11 * det
    inner, outer = 1 / (scale + p[3]), 1 / scale
    drift = 0.0
    if p[4] > 0:
        fast, slow = p[6] * np.exp(-p[7] * t), p[8] * np.exp(-p[9] * t)
        drift = -h * p[4] * (p[7] * fast + p[9] * slow)
    x, z, w = free, bound, inside
    supply, binding, lost = _terms(p, sites_0, wash, t, x, z)
    r0 = supply - lost - binding + _D1 * drift
    r1 = binding - p[2] * z
    r2 = p[2] * z - p[3] * w
    r3 = p[3] * w + lost - supply - _D1 * drift
    f1, b1 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i1 = (r2 + p[2] * b1) * inner
    q1 = (r3 + p[3] * i1 + wash * f1) * outer
    x, z, w = (
        free + _A21 * f1,
        bound + _A21 * b1,
        inside + _A21 * i1,
    )
    supply, binding, lost = _terms(p, sites_0, wash, t + _T2 * h, x, z)
    r0 = supply - lost - binding + by_step * (_C21 * f1) + _D2 * drift
    r1 = binding - p[2] * z + by_step * (_C21 * b1)
    r2 = p[2] * z - p[3] * w + by_step * (_C21 * i1)
    r3 = p[3] * w + lost - supply + by_step * (_C21 * q1) - _D2 * drift
    f2, b2 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i2 = (r2 + p[2] * b2) * inner
    q2 = (r3 + p[3] * i2 + wash * f2) * outer
    x, z, w = (
        free + _A31 * f1 + _A32 * f2,
        bound + _A31 * b1 + _A32 * b2,
        inside + _A31 * i1 + _A32 * i2,
    )
    supply, binding, lost = _terms(p, sites_0, wash, t + _T3 * h, x, z)
    r0 = supply - lost - binding + by_step * (_C31 * f1 + _C32 * f2) + _D3 * drift
    r1 = binding - p[2] * z + by_step * (_C31 * b1 + _C32 * b2)
    r2 = p[2] * z - p[3] * w + by_step * (_C31 * i1 + _C32 * i2)
    r3 = p[3] * w + lost - supply + by_step * (_C31 * q1 + _C32 * q2) - _D3 * drift
    f3, b3 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i3 = (r2 + p[2] * b3) * inner
    q3 = (r3 + p[3] * i3 + wash * f3) * outer
    x, z, w = (
        free + _A41 * f1 + _A42 * f2 + _A43 * f3,
        bound + _A41 * b1 + _A42 * b2 + _A43 * b3,
        inside + _A41 * i1 + _A42 * i2 + _A43 * i3,
    )
    supply, binding, lost = _terms(p, sites_0, wash, t + _T4 * h, x, z)
    r0 = supply - lost - binding + by_step * (_C41 * f1 + _C42 * f2 + _C43 * f3) + _D4 * drift
    r1 = binding - p[2] * z + by_step * (_C41 * b1 + _C42 * b2 + _C43 * b3)
    r2 = p[2] * z - p[3] * w + by_step * (_C41 * i1 + _C42 * i2 + _C43 * i3)
    r3 = p[3] * w + lost - supply + by_step * (_C41 * q1 + _C42 * q2 + _C43 * q3) - _D4 * drift
    f4, b4 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i4 = (r2 + p[2] * b4) * inner
    q4 = (r3 + p[3] * i4 + wash * f4) * outer
    x, z, w = (
        free + _A51 * f1 + _A52 * f2 + _A53 * f3 + _A54 * f4,
        bound + _A51 * b1 + _A52 * b2 + _A53 * b3 + _A54 * b4,
        inside + _A51 * i1 + _A52 * i2 + _A53 * i3 + _A54 * i4,
    )
    supply, binding, lost = _terms(p, sites_0, wash, t + h, x, z)
    r0 = supply - lost - binding + by_step * (_C51 * f1 + _C52 * f2 + _C53 * f3 + _C54 * f4)
    r1 = binding - p[2] * z + by_step * (_C51 * b1 + _C52 * b2 + _C53 * b3 + _C54 * b4)
    r2 = p[2] * z - p[3] * w + by_step * (_C51 * i1 + _C52 * i2 + _C53 * i3 + _C54 * i4)
    r3 = p[3] * w + lost - supply + by_step * (_C51 * q1 + _C52 * q2 + _C53 * q3 + _C54 * q4)
    f5, b5 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i5 = (r2 + p[2] * b5) * inner
    q5 = (r3 + p[3] * i5 + wash * f5) * outer
    x, z, w = (
        free + _A51 * f1 + _A52 * f2 + _A53 * f3 + _A54 * f4 + f5,
        bound + _A51 * b1 + _A52 * b2 + _A53 * b3 + _A54 * b4 + b5,
        inside + _A51 * i1 + _A52 * i2 + _A53 * i3 + _A54 * i4 + i5,
    )
    supply, binding, lost = _terms(p, sites_0, wash, t + h, x, z)
    r0 = (
        supply
        - lost
        - binding
        + by_step * (_C61 * f1 + _C62 * f2 + _C63 * f3 + _C64 * f4 + _C65 * f5)
    )
    r1 = binding - p[2] * z + by_step * (_C61 * b1 + _C62 * b2 + _C63 * b3 + _C64 * b4 + _C65 * b5)
    r2 = p[2] * z - p[3] * w + by_step * (_C61 * i1 + _C62 * i2 + _C63 * i3 + _C64 * i4 + _C65 * i5)
    r3 = (
        p[3] * w
        + lost
        - supply
        + by_step * (_C61 * q1 + _C62 * q2 + _C63 * q3 + _C64 * q4 + _C65 * q5)
    )
    f6, b6 = m11 * r0 - m01 * r1, m00 * r1 - m10 * r0
    i6 = (r2 + p[2] * b6) * inner
    q6 = (r3 + p[3] * i6 + wash * f6) * outer
    new[0], new[1], new[2] = x + f6, z + b6, w + i6
    new[3] = y[3] + _A51 * q1 + _A52 * q2 + _A53 * q3 + _A54 * q4 + q5 + q6
    error[0], error[1], error[2] = f6, b6, i6


@compiled_unchecked
def _weighted(
    p: FloatArray, y: FloatArray, new: FloatArray, error: FloatArray, tolerance: float, floor: float
) -> float:
    """The error of a step in units of the tolerance; 16 for a state that cannot be.

    Beyond the point where free antibody runs out the equations have a second, impossible solution,
    which an estimate of the error does not see.
    """
    size = 0.0
    for a in range(3):
        size += (error[a] / (floor + tolerance * abs(y[a]))) ** 2
    size = (size / 3) ** 0.5
    if new[0] < -4 * (floor + tolerance * abs(y[0])):
        return float(max(size, 16.0))
    if new[1] > p[1] * (1 + tolerance) + 4 * floor:
        return float(max(size, 16.0))
    return float(size)


@compiled_unchecked
def _integrate(p: FloatArray, times: FloatArray, tolerance: float, out: FloatArray) -> bool:
    """Integrate one row with steps of controlled error; whether it reached the last time."""
    y, new, error = np.array([p[10], p[11], p[12], 0.0]), np.empty(4), np.empty(3)
    amount = p[10] + p[11] + p[12] + p[4] * (p[6] + p[8])
    floor = min(_ABSOLUTE_UM, 1e-11 * amount) + 1e-300
    t, h, grow, tries = 0.0, _FIRST_H, _GROWTH, 0
    for k in range(times.size):
        while t < times[k]:
            tries += 1
            left = times[k] - t
            full = h >= left * (1 - 1e-9)
            step = left if full else h
            if tries > _MAX_STEPS or step <= 1e-15 * t:
                return False
            _step(p, t, step, y, new, error)
            size = _weighted(p, y, new, error, tolerance, floor)
            if not size <= 1:
                h = step * (max(0.2, 0.9 * size**-0.25) if np.isfinite(size) else 0.1)
                grow = 1.0
                continue
            wider = step * min(grow, 0.9 * max(size, 1e-6) ** -0.25)
            h = max(h, wider) if full else wider
            t, grow = times[k] if full else t + step, _GROWTH
            y[:] = new
        out[k] = y
    return True


@compiled_unchecked
def integrate_rows(rows: FloatArray, times: FloatArray, tolerance: float, out: FloatArray) -> int:
    """Integrate rows (n, 14) to times (t,), h, into (n, t, 4), µM; index of a failed one, or -1."""
    for r in range(rows.shape[0]):
        if not _integrate(rows[r], times, tolerance, out[r]):
            return r
    return -1


@compiled_unchecked
def equal_steps(p: FloatArray, end: float, n_steps: int) -> FloatArray:
    """The state (4,), µM, at *end*, h, of a row (14,) after equal steps."""
    y, new, error = np.array([p[10], p[11], p[12], 0.0]), np.empty(4), np.empty(3)
    for k in range(n_steps):
        _step(p, k * end / n_steps, end / n_steps, y, new, error)
        y[:] = new
    return y
