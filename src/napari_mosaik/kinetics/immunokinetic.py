"""The patient's antibody over time: free, bound to the antigen, and internalised."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

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
    "to_sbml",
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


_SBML = "http://www.sbml.org/sbml/level3/version2/core"
_MATHML = "http://www.w3.org/1998/Math/MathML"
_UNITS = {
    "hour": (("second", 1, 0, "3600"),),
    "micromole": (("mole", 1, -6, "1"),),
    "per_hour": (("second", -1, 0, "3600"),),
    "micromolar": (("mole", 1, -6, "1"), ("litre", -1, 0, "1")),
    "per_micromolar_hour": (
        ("mole", -1, -6, "1"), ("litre", 1, 0, "1"), ("second", -1, 0, "3600"),
    ),
}  # fmt: skip
"""Units by name: kind, exponent, scale and multiplier of their parts."""


def to_sbml(params: ImmunokineticParams | None = None) -> str:
    """The immunokinetic model as SBML Level 3 Version 2 core, for other simulators.

    Species ``free``, ``bound`` and ``internalised`` with initial concentrations in µM, time in h,
    reactions ``binding``, ``internalisation`` and ``loss``; one compartment of 1 L.

    Parameters
    ----------
    params
        Rates and initial concentrations; Table 2 of the paper if None.

    Returns
    -------
    str
        An XML document, UTF-8 when it is written.

    Raises
    ------
    InputError
        If more antibody is bound at injection than there is antigen.
    """
    params = params or ImmunokineticParams()
    kinetic_rows(immunokinetic_columns(params))
    root = ElementTree.Element("sbml", xmlns=_SBML, level="3", version="2")
    model = ElementTree.SubElement(
        root, "model", id="immunokinetics", name="Immunokinetic model",
        substanceUnits="micromole", timeUnits="hour", volumeUnits="litre", extentUnits="micromole",
    )  # fmt: skip
    units = ElementTree.SubElement(model, "listOfUnitDefinitions")
    for name, parts in _UNITS.items():
        definition = ElementTree.SubElement(units, "unitDefinition", id=name)
        listed = ElementTree.SubElement(definition, "listOfUnits")
        for kind, exponent, scale, multiplier in parts:
            ElementTree.SubElement(
                listed, "unit", kind=kind, exponent=str(exponent), scale=str(scale),
                multiplier=multiplier,
            )  # fmt: skip
    compartments = ElementTree.SubElement(model, "listOfCompartments")
    ElementTree.SubElement(
        compartments, "compartment", id="tissue", spatialDimensions="3", size="1", units="litre",
        constant="true",
    )  # fmt: skip
    _add_sbml_amounts(model, params)
    _add_sbml_reactions(model, params.recycling)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _add_sbml_amounts(model: ElementTree.Element, params: ImmunokineticParams) -> None:
    """The lists of species and parameters."""
    start = {
        "free": params.free_0_um,
        "bound": params.bound_0_um,
        "internalised": params.internalised_0_um,
    }
    species = ElementTree.SubElement(model, "listOfSpecies")
    for name, value in start.items():
        ElementTree.SubElement(
            species, "species", id=name, compartment="tissue", initialConcentration=repr(value),
            substanceUnits="micromole", hasOnlySubstanceUnits="false", boundaryCondition="false",
            constant="false",
        )  # fmt: skip
    values = {
        "k_a": (params.k_a_per_um_h, "per_micromolar_hour"),
        "antigen": (params.antigen_um, "micromolar"),
        "k32": (params.k32_per_h, "per_hour"),
        "k03": (params.k03_per_h, "per_hour"),
    }
    if not params.recycling:
        # each site binds once: free sites are sites_0 + free
        sites = params.antigen_um - params.bound_0_um - params.free_0_um
        values["sites_0"] = (sites, "micromolar")
    listed = ElementTree.SubElement(model, "listOfParameters")
    for name, (value, unit) in values.items():
        ElementTree.SubElement(
            listed, "parameter", id=name, value=repr(value), units=unit, constant="true"
        )


def _add_sbml_reactions(model: ElementTree.Element, recycling: bool) -> None:
    sites = ("minus", "antigen", "bound") if recycling else ("plus", "sites_0", "free")
    rates: dict[str, tuple[str, str, tuple[str | tuple[str, str, str], ...]]] = {
        "binding": ("free", "bound", ("tissue", "k_a", sites, "free")),
        "internalisation": ("bound", "internalised", ("tissue", "k32", "bound")),
        "loss": ("internalised", "", ("tissue", "k03", "internalised")),
    }
    listed = ElementTree.SubElement(model, "listOfReactions")
    for name, (source, target, factors) in rates.items():
        reaction = ElementTree.SubElement(listed, "reaction", id=name, reversible="false")
        for kind, species in (("Reactants", source), ("Products", target)):
            if species:
                side = ElementTree.SubElement(reaction, f"listOf{kind}")
                ElementTree.SubElement(
                    side, "speciesReference", species=species, stoichiometry="1", constant="true"
                )
        law = ElementTree.SubElement(reaction, "kineticLaw")
        math = ElementTree.SubElement(law, "math", xmlns=_MATHML)
        _add_apply(math, ("times", *factors))


def _add_apply(parent: ElementTree.Element, terms: tuple[str | tuple[str, str, str], ...]) -> None:
    """An operator and what it is applied to, as MathML."""
    apply = ElementTree.SubElement(parent, "apply")
    ElementTree.SubElement(apply, str(terms[0]))
    for term in terms[1:]:
        if isinstance(term, tuple):
            _add_apply(apply, term)
        else:
            ElementTree.SubElement(apply, "ci").text = f" {term} "
