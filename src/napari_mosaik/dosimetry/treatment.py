"""Dose and effective squared dose of many time courses at once, for courses and fractions.

A time course is a sum of hat functions of its values, so dose is linear and Q = G D^2 a quadratic
form in them.  Both are computed once, by `RepairState`, and are then right for every tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.nuclides import Nuclide
from napari_mosaik.dosimetry.repair import RepairState
from napari_mosaik.dosimetry.time_integral import decayed_curve

__all__ = ["Infusions", "TimeForm", "time_form"]


@dataclass(frozen=True, slots=True, eq=False)
class Infusions:
    """Courses of one nuclide whose activity follows one kind of curve.

    Attributes
    ----------
    nuclide
        The nuclide.
    time_h
        (m,) times after each injection at which the curve is given, h, ascending from 0 on; the
        tail is physical decay.
    courses
        Start, h, and activity, MBq, of each course.
    """

    nuclide: Nuclide
    time_h: FloatArray
    courses: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class TimeForm:
    """What curves and fractions come to, as linear and quadratic forms of the curves' values.

    The b values of all curves stand in one row, nuclide after nuclide, as activity per injected
    MBq and mL, decay-corrected; the dose rate is the activity times Gy g/(MBq h) by density.

    Attributes
    ----------
    total_h
        (b,) time-integrated activity, MBq h/mL for each value, from injection to infinity.
    until_h
        (b,) the same up to the time at which survival is asked for.
    square
        (b, b) quadratic form of Q, of curves alone; h^2 MBq^2.
    cross
        (b,) half of what curves and fractions have in Q together; MBq h Gy.
    fractions_gy, fractions_gy2
        Dose, Gy, and Q, Gy^2, of the fractions alone.
    """

    total_h: FloatArray
    until_h: FloatArray
    square: FloatArray
    cross: FloatArray
    fractions_gy: float
    fractions_gy2: float


def time_form(
    infusions: Sequence[Infusions],
    fractions: Sequence[tuple[float, float]],
    repair: Sequence[tuple[float, float]],
    until_h: float = math.inf,
) -> TimeForm:
    """The forms of courses and fractions, given in any order.

    Parameters
    ----------
    infusions
        Courses by nuclide.
    fractions
        Time, h, and dose, Gy, of each fraction.
    repair
        (share, rate per h) of each component of repair.
    until_h
        Time up to which dose and damage count, h.

    Raises
    ------
    InputError
        If there is neither a course nor a fraction, or as `RepairState` and `decayed_curve`.
    """
    if not infusions and not fractions:
        raise InputError("there is neither a course nor a fraction")
    sizes = [len(one.time_h) for one in infusions]
    first, count = np.concatenate([[0], np.cumsum(sizes)]).astype(int), sum(sizes)
    pairs = [(i, j) for i in range(count + 1) for j in range(i, count + 1)]
    design = np.zeros((len(pairs), count + 1))  # the last column switches the fractions on
    for row, (i, j) in enumerate(pairs):
        design[row, i] = design[row, j] = 1.0
    state = RepairState(repair)
    total = np.zeros(count)
    for place, one in enumerate(infusions):
        own = slice(first[place], first[place + 1])
        curves = decayed_curve(one.time_h, np.eye(sizes[place]), one.nuclide.half_life_h)
        parts = np.diff(curves.time_h) * (curves.activity[:, 1:] + curves.activity[:, :-1]) / 2
        integral = parts.sum(axis=1) + curves.activity[:, -1] / curves.tail_per_h
        for start, mbq in one.courses:
            total[own] += mbq * integral
            values = mbq * design[:, own] @ curves.activity
            state.add_curve(curves.time_h + start, values, curves.tail_per_h)
    for time, dose in fractions:
        state.add_fraction(time, dose * design[:, count])
    shape = np.zeros(len(pairs))
    dose_of = shape + state.dose_gy(until_h)
    q_of = shape + state.q_gy2(until_h)
    alone = {i: row for row, (i, j) in enumerate(pairs) if i == j}
    form = np.zeros((count + 1, count + 1))
    for row, (i, j) in enumerate(pairs):
        both = q_of[row] if i == j else (q_of[row] - q_of[alone[i]] - q_of[alone[j]]) / 2
        form[i, j] = form[j, i] = both
    last = alone[count]
    return TimeForm(
        total,
        np.array([dose_of[alone[b]] for b in range(count)]),
        form[:count, :count],
        form[:count, count],
        float(dose_of[last]),
        float(q_of[last]),
    )
