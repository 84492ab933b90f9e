"""Body measures for the SUV: surface area and lean mass from weight, height and sex."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from napari_mosaik.core.errors import InputError

__all__ = ["LeanFormula", "du_bois_bsa_m2", "lean_mass_kg", "suv_weight_factor"]

LeanFormula = Literal["janmahasatian", "james"]

_WEIGHT_RANGE_KG = (0.005, 500.0)
_HEIGHT_RANGE_CM = (20.0, 272.0)


def checked_weight_kg(weight_kg: float) -> float:
    """The weight, kg; an implausible one raises `InputError`."""
    low, high = _WEIGHT_RANGE_KG
    if not (math.isfinite(weight_kg) and low <= weight_kg <= high):
        meant = f"; did you mean {weight_kg / 1000:g} kg" if weight_kg > high else ""
        raise InputError(
            f"a body weight of {weight_kg:g} kg is implausible ({low:g} to {high:g} kg){meant}? "
            "Give weight_kg in kilogrammes, not in grammes"
        )
    return float(weight_kg)


def checked_height_cm(height_cm: float) -> float:
    """The height, cm; an implausible one raises `InputError`."""
    low, high = _HEIGHT_RANGE_CM
    if not (math.isfinite(height_cm) and low <= height_cm <= high):
        raise InputError(
            f"a body height of {height_cm:g} cm is implausible ({low:g} to {high:g} cm); did you "
            f"mean {height_cm * 100:g} cm? Give height_cm in centimetres, not in metres"
        )
    return float(height_cm)


def du_bois_bsa_m2(weight_kg: float, height_cm: float) -> float:
    """Body surface area in m² by the formula of Du Bois.

    ``0.007184 * weight_kg**0.425 * height_cm**0.725``

    Parameters
    ----------
    weight_kg
        Body weight, kg.
    height_cm
        Body height, cm.

    Raises
    ------
    InputError
        If weight or height is implausible (wrong unit, zero, NaN).

    References
    ----------
    Du Bois and Du Bois 1916, Arch Intern Med.
    """
    weight, height = checked_weight_kg(weight_kg), checked_height_cm(height_cm)
    return float(0.007184 * weight**0.425 * height**0.725)


def lean_mass_kg(
    weight_kg: float,
    height_cm: float,
    sex: Literal["M", "F", "O"],
    formula: LeanFormula = "janmahasatian",
) -> float:
    """Lean body mass in kg.

    Janmahasatian: M ``9270 W / (6680 + 216 BMI)``, F ``9270 W / (8780 + 244 BMI)``.
    James: M ``1.10 W - 128 (W/H)²``, F ``1.07 W - 148 (W/H)²``; H in cm.

    Parameters
    ----------
    weight_kg, height_cm
        Body weight, kg, and height, cm.
    sex
        "M", "F", or "O" (DICOM's *other*): the mean of the two.
    formula
        The formula; that of James fails (decreases) in severe obesity.

    Raises
    ------
    InputError
        If a value is implausible, the sex is none of these, or the result is not positive.

    References
    ----------
    Janmahasatian et al. 2005, Clin Pharmacokinet; James 1976.
    """
    weight, height = checked_weight_kg(weight_kg), checked_height_cm(height_cm)
    if sex == "O":
        both = [lean_mass_kg(weight, height, one, formula) for one in ("M", "F")]
        return sum(both) / 2
    if sex not in ("M", "F"):
        raise InputError(f"lean body mass needs sex 'M', 'F' or 'O' (other), not {sex!r}")
    male = sex == "M"
    if formula == "janmahasatian":
        bmi = weight / (height / 100) ** 2
        lean = 9270 * weight / (6680 + 216 * bmi if male else 8780 + 244 * bmi)
    else:
        ratio = (weight / height) ** 2
        lean = 1.10 * weight - 128 * ratio if male else 1.07 * weight - 148 * ratio
    if lean <= 0:
        raise InputError(
            f"the formula of James gives a lean mass of {lean:.1f} kg for {weight:g} kg and "
            f"{height:g} cm; use lean_formula 'janmahasatian'"
        )
    return float(lean)


def suv_weight_factor(kind: str, terms: Mapping[str, Any], factor: float) -> float:
    """What a body weight that differs by a factor does to an SUV of a kind, dimensionless.

    *terms* are those of the SUV by name; the lean mass is Janmahasatian's, and without height and
    sex the SUV by lean mass changes as the weight does.
    """
    if kind == "bsa":
        return float(factor**0.425)  # Du Bois
    weight, height, sex = (terms.get(name) for name in ("weight_kg", "height_cm", "sex"))
    if kind != "lbm" or not (weight and height and sex in ("M", "F", "O")):
        return factor
    return lean_mass_kg(weight * factor, height, sex) / lean_mass_kg(weight, height, sex)
