"""The patient's antibody over time: free, bound to the antigen, and internalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.kinetics.batched import ROW, checked_times, kinetic_rows, solve_rows

__all__ = [
    "EX_VIVO_TIME_H",
    "IN_VIVO_TIMES_H",
    "ImmunokineticParams",
    "TimeActivity",
    "immunokinetic_columns",
    "solve_immunokinetic",
]

IN_VIVO_TIMES_H = (72.0, 120.0, 168.0)
"""Times of the in vivo scans after injection, h."""
EX_VIVO_TIME_H = 336.0
"""Time of surgery and ex vivo scan after injection, h."""


class ImmunokineticParams(Params):
    """Settings of the immunokinetic model; the defaults are the paper's Table 2 (patient 1)."""

    k_a_per_um_h: float = setting(
        3.5e4, "Association rate; 3.5e10 per h and M.", unit="1/(µM h)", label="kₐ", ge=0
    )
    antigen_um: float = setting(0.3662, "Total surface antigen.", unit="µM", label="C_tot", ge=0)
    k32_per_h: float = setting(0.2, "Rate of internalisation.", unit="1/h", label="k₃₂", ge=0)
    k03_per_h: float = setting(
        8.33e-4, "Rate of loss of internalised antibody.", unit="1/h", label="k₀₃", ge=0
    )
    free_0_um: float = setting(
        7.32e-2, "Free antibody at injection.", unit="µM", label="C_free at 0", ge=0
    )
    bound_0_um: float = setting(
        0.0, "Bound antibody at injection.", unit="µM", label="C_bound at 0", ge=0, advanced=True
    )
    internalised_0_um: float = setting(
        0.0,
        "Internalised antibody at injection.",
        label="C_internalised at 0",
        unit="µM",
        ge=0,
        advanced=True,
    )
    molar_mass_g_per_mol: float = setting(
        150e3, "Molar mass of the antibody.", label="Molar mass", unit="g/mol", gt=0, advanced=True
    )
    mass_mg: float = setting(
        0.1, "Injected mass of antibody.", label="Antibody mass", unit="mg", gt=0
    )
    recycling: bool = setting(
        True,
        "Internalised binding sites are replaced on the surface at once (equation 4 of the paper); "
        "otherwise each site binds once.",
        label="Antigen recycling",
        advanced=True,
    )


@dataclass(frozen=True, slots=True, eq=False)
class TimeActivity:
    """Concentrations over time; decay-corrected, so the nuclide's decay is not in them.

    Attributes
    ----------
    time_h
        (t,) times after injection, h.
    free_um, bound_um, internalised_um
        (t,) concentrations, µM (micromolar).
    """

    time_h: FloatArray
    free_um: FloatArray
    bound_um: FloatArray
    internalised_um: FloatArray

    @property
    def retained_um(self) -> FloatArray:
        """(t,) bound plus internalised antibody, µM."""
        return self.bound_um + self.internalised_um

    def stack(self) -> FloatArray:
        """(t, 3) free, bound and internalised, µM."""
        return np.stack([self.free_um, self.bound_um, self.internalised_um], axis=1)

    def normalised(self, reference_um: float) -> FloatArray:
        """(t, 3) the curves over the free antibody at injection in µM; dimensionless."""
        if not reference_um > 0:
            raise InputError(
                f"curves cannot be normalised by {reference_um} µM; give the free antibody at "
                "injection, above 0"
            )
        return self.stack() / reference_um


def solve_immunokinetic(
    params: ImmunokineticParams | None = None, time_h: ArrayLike | None = None
) -> TimeActivity:
    """Solve the immunokinetic model of the paper (equations 1 to 4).

    ``dC_free/dt = -k21 C_free``, ``dC_bound/dt = k21 C_free - k32 C_bound``,
    ``dC_int/dt = k32 C_bound - k03 C_int``, ``k21 = k_a (C_tot - C_bound)``.  Dissociation is
    neglected.  Without *recycling* the free sites are those that have never bound.

    Parameters
    ----------
    params
        Rates and initial concentrations; Table 2 of the paper if None.
    time_h
        (t,) times after injection, h, ascending from 0; hourly to the ex vivo scan if None.

    Returns
    -------
    TimeActivity
        Concentrations in µM at the times; not negative.

    Raises
    ------
    InputError
        If the times are not finite, ascending and at least 0, if more antibody is bound at
        injection than there is antigen.
    SolverError
        If the solver fails.

    References
    ----------
    Cheal et al. 2014, Eur J Nucl Med Mol Imaging 41:985-994.
    """
    params = params or ImmunokineticParams()
    times = checked_times(np.arange(EX_VIVO_TIME_H + 1) if time_h is None else time_h)
    curves = solve_rows(kinetic_rows(immunokinetic_columns(params)), times)[0, :, :3]
    return TimeActivity(times, *np.ascontiguousarray(curves.T))


def immunokinetic_columns(params: ImmunokineticParams) -> dict[str, float]:
    """The settings of the model as columns of `kinetic_rows`, in its units (µM, h)."""
    return {name: float(getattr(params, name)) for name in ROW if hasattr(params, name)}
