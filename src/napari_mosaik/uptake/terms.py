"""The terms of an SUV with value and source, and the assumptions made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetHeader, PetImage
from napari_mosaik.core.raster import Raster
from napari_mosaik.uptake.body_size import LeanFormula
from napari_mosaik.uptake.suv import (
    SUV_UNITS,
    SuvKind,
    body_measure,
    decay_terms,
    net_dose_bq,
    suv_factor,
)
from napari_mosaik.uptake.suv_inputs import (
    SUV_FILE_UNITS,
    TERM_ITEMS,
    ValueSource,
    merge_injection_and_header,
)

__all__ = ["SuvTerm", "SuvTerms", "combine_terms", "to_suv"]


@dataclass(frozen=True, slots=True)
class SuvTerm:
    """One term: its name in the record, label, value, unit and source."""

    name: str
    label: str
    value: float | str | datetime | None
    unit: str
    source: ValueSource

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        return {
            "name": self.name,
            "label": self.label,
            "value": value,
            "unit": self.unit,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class SuvTerms:
    """All terms of an SUV, from injection record and PET header.

    Parameters
    ----------
    record
        The merged record; `suv_factor` takes it.
    header
        Header of the PET file.
    terms
        Every term with its source.
    assumptions
        Assumptions, one sentence each.
    warnings
        Conflicts and missing corrections.
    dynamic
        Whether the scan started before the injection.
    """

    record: InjectionRecord
    header: PetHeader
    terms: tuple[SuvTerm, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    dynamic: bool = False

    @property
    def already_suv(self) -> bool:
        """Whether the values of the file are SUV and must not be scaled again."""
        return self.header.unit in SUV_FILE_UNITS

    def kind(self, requested: SuvKind) -> SuvKind:
        """The kind of SUV of `to_suv`: that of the file if its values are SUV already."""
        if not self.already_suv:
            return requested
        return self.header.suv_kind or ("bsa" if self.header.unit == "cm²/mL" else "bw")

    def unit(self, requested: SuvKind) -> str:
        """Unit of the SUV of `to_suv`."""
        return str(self.header.unit) if self.already_suv else SUV_UNITS[requested]

    def factor(self, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian") -> float:
        """Factor from the values of the file to SUV; 1 if they are SUV already."""
        if self.already_suv:
            return 1.0
        try:
            return suv_factor(self.record, kind, lean_formula=lean_formula, dynamic=self.dynamic)
        except InputError as error:
            raise InputError(f"{error}{self._reason(str(error))}") from None

    def _reason(self, problem: str) -> str:
        """What the file states of the missing item, and why it is not used."""
        for name, reason in self.header.unclear.items():
            if f"give {name}" in problem:
                return f"; {reason}"
        if "give injected" in problem and self.header.injected_clock:
            return f"; the file states the time of day {self.header.injected_clock} without a date"
        return ""

    def formula(self, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian") -> str:
        """The formula with its numbers, one line."""
        if self.already_suv:
            return f"SUV = value in the file ({self.header.unit}), not scaled again"
        remaining, on_image = decay_terms(self.record, dynamic=self.dynamic)
        measure = body_measure(self.record, kind, lean_formula)
        unit = "cm²" if kind == "bsa" else "g"
        frame = "" if on_image == 1.0 else f" × {on_image:.6g}"
        return (
            f"SUV[{SUV_UNITS[kind]}] = C[Bq/mL]{frame} × {measure:.6g} {unit} / "
            f"({net_dose_bq(self.record):.6g} Bq × {remaining:.6g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "terms": [term.to_dict() for term in self.terms],
            "unit_of_file": self.header.unit,
            "unit_source": "user" if self.header.unit_given else self.header.source,
            "already_suv": self.already_suv,
            "dynamic": self.dynamic,
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
        }


def combine_terms(record: InjectionRecord, header: PetHeader) -> SuvTerms:
    """Merge the injection record and the header of the PET file.

    Values of the record take precedence, those of the file fill the gaps; a half-life that neither
    has comes from the table of nuclides.  The file of a specimen scanned ex vivo holds the weight
    and dose of the specimen, so conflicts give a warning and the record (of the patient) is used.
    A missing item is not an error here: `SuvTerms.factor` names it when it needs it.

    Raises
    ------
    InputError
        If the unit is missing or cannot be converted, if times with and without zone are mixed or
        out of order, or if the file contradicts itself about decay correction.
    """
    merged = merge_injection_and_header(record, header)
    terms = tuple(
        SuvTerm(name, label, merged.values[name], unit, merged.sources[name])
        for name, label, unit in TERM_ITEMS
    )
    return SuvTerms(
        merged.record, header, terms, merged.assumptions, merged.warnings, merged.dynamic
    )


def to_suv(
    pet: PetImage,
    terms: SuvTerms,
    kind: SuvKind = "bsa",
    lean_formula: LeanFormula = "janmahasatian",
) -> Raster:
    """SUV (rows, columns) on the voxels of the PET.

    Parameters
    ----------
    pet
        The slice; NaN voxels stay NaN.
    terms
        See `combine_terms`.
    kind
        "bsa" gives cm²/mL, "bw" and "lbm" give g/mL.  Values that are SUV in the file keep the
        kind and unit of the file; see ``terms.kind(kind)``.

    Raises
    ------
    InputError
        If a term that the kind needs is missing or implausible.
    """
    values = np.asarray(pet.raster.values, float) * terms.factor(kind, lean_formula)
    return replace(pet.raster, values=values, unit=terms.unit(kind))
