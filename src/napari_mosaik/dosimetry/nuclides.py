"""Energy per decay of therapeutic and imaging nuclides, and the dose that it gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry.checks import within_limits

__all__ = ["GY_G_PER_MBQ_H_MEV", "NUCLIDES", "Nuclide", "dose_per_activity_gy", "nuclide"]

GY_G_PER_MBQ_H_MEV = 1.602176634e-13 * 3.6e9 * 1e3
"""Dose, Gy, by 1 MeV absorbed per decay and 1 MBq h per g (3.6e12 decays per kg): 0.576784."""

_UNKNOWN = float("nan")
_ICRP_107 = "ICRP Publication 107 (2008), Ann. ICRP 38(3)"


@dataclass(frozen=True, slots=True)
class Nuclide:
    """Half-life and mean energy per decay of the parent, daughters included.

    Attributes
    ----------
    name
        Element and mass number, such as "Lu-177".
    half_life_h
        Physical half-life, h.
    electron_kev
        All electrons, keV per decay.
    beta_kev, conversion_kev, auger_kev
        Its parts: beta particles, conversion electrons, Auger and Coster-Kronig electrons, keV per
        decay; NaN where the source gives the sum alone.
    alpha_kev, recoil_kev
        Alpha particles and the nuclei that recoil from them, keV per decay.
    photon_kev
        X and gamma rays, keV per decay.  They are not absorbed locally and enter no dose here.
    source
        Where the numbers come from.
    """

    name: str
    half_life_h: float
    electron_kev: float
    beta_kev: float
    conversion_kev: float
    auger_kev: float
    alpha_kev: float
    recoil_kev: float
    photon_kev: float
    source: str


def _table() -> dict[str, Nuclide]:
    u = _UNKNOWN
    newer = f"{_ICRP_107}; half-life of newer evaluations (ICRP 107: 240 h); daughters included"
    rows = (
        ("Zr-89", 78.41, 101.9, 89.9, 7.6, 4.4, 0.0, 0.0, 1158.0, f"{_ICRP_107}; Y-89m included"),
        ("Y-90", 64.10, 933.1, 932.9, 0.2, 0.0, 0.0, 0.0, 0.0, _ICRP_107),
        ("I-131", 192.5, 191.8, 181.9, 9.6, 0.4, 0.0, 0.0, 383.0, _ICRP_107),
        ("Tb-161", 165.7, 202.5, 154.3, 39.3, 8.9, 0.0, 0.0, 37.0, _ICRP_107),
        ("Lu-177", 159.5, 147.9, 133.3, 13.5, 1.1, 0.0, 0.0, 35.0, _ICRP_107),
        ("At-211", 7.214, 6.0, u, u, u, 6780.0, 130.0, 41.0, f"{_ICRP_107}; Po-211 included"),
        ("Ac-225", 238.1, 690.0, u, u, u, 27480.0, 510.0, 219.0, newer),
    )
    return {row[0]: Nuclide(*row) for row in rows}


NUCLIDES: Mapping[str, Nuclide] = MappingProxyType(_table())
"""The nuclides by name; energies in keV per decay of the parent, half-lives in h."""

_STAYS_KEV = {"Ac-225": {"electron": 33.8, "alpha": 19159.0 + 354.0}}
"""Energy, keV per decay, that stays where a parent decays if Bi-213 and what follows leave."""


def nuclide(name: str) -> Nuclide:
    """The nuclide of a name such as 'Lu-177' or '177Lu'; upper or lower case.

    Raises
    ------
    InputError
        For a name that is not in `NUCLIDES`; it names those that are.
    """
    text = str(name).strip()
    match = re.fullmatch(r"([A-Za-z]{1,2})[-\s]?(\d{1,3})|(\d{1,3})[-\s]?([A-Za-z]{1,2})", text)
    if match:
        element, mass = match[1] or match[4], match[2] or match[3]
        found = NUCLIDES.get(f"{element.capitalize()}-{mass}")
        if found:
            return found
    raise InputError(f"the nuclide {text!r} is not known; one of: {', '.join(NUCLIDES)}")


def as_nuclide(given: Nuclide | str) -> Nuclide:
    """The nuclide itself, or that of the name; energies in keV per decay."""
    return given if isinstance(given, Nuclide) else nuclide(given)


def dose_per_activity_gy(
    nuclide: Nuclide | str,
    *,
    part: Literal["electron", "alpha", "all"] = "electron",
    retained: float = 1.0,
) -> float:
    """Dose by one MBq h in each g where all of the energy is absorbed where it is released.

    Parameters
    ----------
    nuclide
        A nuclide or its name.
    part
        'electron': all electrons; 'alpha': alpha particles and recoiling nuclei; 'all': their sum.
        Photons are in none of them.
    retained
        Share, in [0, 1], of Bi-213 and what follows it that stays where Ac-225 has decayed; without
        effect for nuclides without a daughter that can leave.

    Returns
    -------
    float
        Dose, Gy g/(MBq h).

    Raises
    ------
    InputError
        For an unknown nuclide or part, or a share outside [0, 1].
    """
    own = as_nuclide(nuclide)
    whole = {"electron": own.electron_kev, "alpha": own.alpha_kev + own.recoil_kev}
    if part not in ("all", *whole):
        raise InputError(f"the part {part!r} of the energy is not 'electron', 'alpha' or 'all'")
    share = within_limits("the retained share of the daughters", retained, 0, 1)
    if share.ndim or share != share:
        raise InputError("the retained share of the daughters must be one number in [0, 1]")
    stays = _STAYS_KEV.get(own.name, whole)
    kev = {name: stays[name] + float(share) * (whole[name] - stays[name]) for name in whole}
    return GY_G_PER_MBQ_H_MEV * 1e-3 * (sum(kev.values()) if part == "all" else kev[part])
