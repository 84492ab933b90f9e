"""Uptake in the living patient: one record for each scan and region, and its rules."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import nearest

__all__ = [
    "INVIVO_UNITS",
    "InvivoValue",
    "check_invivo_series",
    "patients_named",
    "region_name",
    "same_scan",
]

INVIVO_UNITS: Final = ("SUVbw", "SUVbsa", "SUVlbm", "Bq/mL", "kBq/mL")
"""Units of a value in vivo; activity concentrations are decay-corrected to injection."""
_PLAUSIBLE: Final = {
    **dict.fromkeys(INVIVO_UNITS[:3], (1e-6, 1e3)), "Bq/mL": (1e-3, 1e9), "kBq/mL": (1e-6, 1e6),
    "mL": (1e-6, 1e6),
}  # fmt: skip
"""Least and largest value of a mean, and of a volume, by unit; of a spread the largest."""
_LARGEST_CV: Final = 10.0
_SAME_S: Final = 1.0
_SAME_SHARE: Final = 2e-4
"""Times that differ by less than a second, or than this share of them (52 s on day 3), are one."""
_PATIENT: Final = re.compile(r"\bpatient:(\w+)( confirmed)?")
"""Hash of a patient in a source, and whether it was confirmed to be of the same patient."""
_MAX_TIME_H: Final = 24 * 365.0
_REGIONS: Final = {
    "tumor": "tumour", "aorta": "blood", "whole blood": "blood", "whole_blood": "blood",
    "blood pool": "blood", "bloodpool": "blood",
}  # fmt: skip


def region_name(text: str) -> str:
    """The name of a region: lower case, with the words of the program for "tumor" and "aorta".

    Raises
    ------
    InputError
        If the text is empty, or is not a short name.
    """
    name = " ".join(text.lower().split())
    if not re.fullmatch(r"[^\W_][\w .+-]{0,39}", name):
        raise InputError(
            f"region is '{text[:60]}'; give a short name in letters, for example tumour or blood"
        )
    return _REGIONS.get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvivoValue:
    """Mean uptake of one region in one scan of the living patient.

    Parameters
    ----------
    time_h
        Time after injection, h.
    region
        "tumour", "blood", "liver", ...
    mean
        Mean of the volume of interest, in *unit*; above 0.
    sd
        Standard error of the mean (calibration, noise), in *unit*; above 0.  It is not the spread
        of the voxels.
    unit
        One of `INVIVO_UNITS`.
    decay_reference
        Time to which the decay is corrected; "injection" is the only one.
    voxel_sd
        Standard deviation of the voxels of the volume of interest, in *unit*; None if unknown.
    volume_ml
        Its volume, mL; None if unknown.
    source
        Where the value is from: "typed", or a hash of a file or series.
    method
        How the volume of interest was placed and the value corrected, in words.

    Raises
    ------
    InputError
        If a value is impossible; the message names it.
    """

    time_h: float
    region: str
    mean: float
    sd: float
    unit: str
    decay_reference: str
    voxel_sd: float | None = None
    volume_ml: float | None = None
    source: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        _check_time(self.time_h)
        if region_name(self.region) != self.region:
            raise InputError(f"region is '{self.region}'; give '{region_name(self.region)}'")
        _check_unit(self.unit)
        for name in ("mean", "sd", "voxel_sd", "volume_ml"):
            unit = "mL" if name == "volume_ml" else self.unit
            _check_amount(name, getattr(self, name), self.region, unit)
        if self.sd > _LARGEST_CV * self.mean:
            raise InputError(
                f"sd of {self.region} is {self.sd:g} {self.unit}, beside a mean of {self.mean:g}; "
                "give the standard error of the mean"
            )
        _check_decay(self.decay_reference)
        for name in ("source", "method"):
            text = getattr(self, name)
            if text != text.strip() or not text.isprintable():
                raise InputError(f"{name} is {text!r}; give one line of text")

    @property
    def label(self) -> str:
        """The scan and region in words: "tumour at 72 h"."""
        return f"{self.region} at {self.time_h:g} h"


def same_scan(first: InvivoValue, second: InvivoValue) -> bool:
    """Whether two values are of one region at one time."""
    later = max(first.time_h, second.time_h)
    apart = abs(first.time_h - second.time_h)
    return first.region == second.region and apart < max(_SAME_S / 3600, _SAME_SHARE * later)


def _check_time(time_h: float) -> None:
    if not math.isfinite(time_h):
        raise InputError(f"time_h is {time_h}, which is not a number; give hours after injection")
    if time_h < 0:
        raise InputError(
            f"time_h is {time_h:g}: the scan is before the injection; give hours after injection"
        )
    if time_h > _MAX_TIME_H:
        raise InputError(
            f"time_h is {time_h:g}, more than a year after injection; give the time in hours"
        )


def _check_amount(name: str, value: float | None, region: str, unit: str) -> None:
    """Plausible in its unit, above 0 where it must be; a spread of 0 is that of a single voxel."""
    if value is None:
        return
    if not math.isfinite(value):
        raise InputError(f"{name} of {region} is {value}, which is not a number")
    if value < 0 or (value == 0 and name != "voxel_sd"):
        hint = {
            "mean": "an uptake is more than 0",
            "sd": "give the standard error of the mean, more than 0",
            "voxel_sd": "a spread is 0 or more",
            "volume_ml": "a volume of interest is larger than 0 mL",
        }[name]
        raise InputError(f"{name} of {region} is {value:g} {unit}; {hint}")
    least, largest = _PLAUSIBLE[unit]
    if value > largest or (value < least and name in ("mean", "volume_ml")):
        raise InputError(
            f"{name} of {region} is {value:g} {unit}, outside {least:g} to {largest:g} {unit}; "
            "check value and unit"
        )


def _check_unit(unit: str) -> None:
    if not unit:
        raise InputError(f"unit is missing; give one of {', '.join(INVIVO_UNITS)}")
    if unit not in INVIVO_UNITS:
        raise InputError(
            f"unit is '{unit[:40]}', which is not known; {nearest(unit, INVIVO_UNITS)}"
        )


def _check_decay(reference: str) -> None:
    if not reference:
        raise InputError(
            "decay_reference is missing; give injection if the values are decay-corrected to it"
        )
    if reference != "injection":
        raise InputError(
            f"decay_reference is '{reference[:40]}'; values are kept decay-corrected to injection: "
            "import them, which converts them"
        )


def patients_named(source: str) -> list[str]:
    """What a source tells of its patient: the hash, and whether it was confirmed."""
    return [found.group() for found in _PATIENT.finditer(source)]


def check_invivo_series(values: Iterable[InvivoValue]) -> tuple[InvivoValue, ...]:
    """The values in order of time and region.

    Raises
    ------
    InputError
        If a region has two values at one time, or the values have two units or are of two
        patients by the hashes in their sources.
    """
    ordered = sorted(values, key=lambda one: (one.region, one.time_h))
    for first, second in itertools.pairwise(ordered):
        if same_scan(first, second):
            raise InputError(
                f"there are two values of {first.label} ({first.mean:g} and {second.mean:g} "
                f"{second.unit}); keep one of them"
            )
    units = sorted({one.unit for one in ordered})
    if len(units) > 1:
        raise InputError(
            f"the values have {len(units)} units ({', '.join(units)}); convert them to one"
        )
    named = [one for value in ordered for one in _PATIENT.findall(value.source)]
    patients = sorted({own for own, _ in named} - {own for own, confirmed in named if confirmed})
    if len(patients) > 1:
        raise InputError(
            f"the values are of {len(patients)} patients (hashes {', '.join(patients)}); keep "
            "those of one"
        )
    return tuple(sorted(ordered, key=lambda one: (one.time_h, one.region)))
