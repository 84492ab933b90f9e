"""Every term of an SUV with its value, its source and what was assumed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.records import HALF_LIFE_H, InjectionRecord, PetHeader, PetImage
from napari_mosaik.uptake.body import LeanFormula
from napari_mosaik.uptake.suv import (
    SUV_UNITS,
    SuvKind,
    body_measure,
    decay_terms,
    elapsed_h,
    frame_factor,
    half_life_of,
    net_dose_bq,
    suv_factor,
)

__all__ = ["SuvTerm", "SuvTerms", "combine", "to_suv"]

Origin = Literal["case", "header", "default table", "missing"]

_ITEMS: tuple[tuple[str, str, str], ...] = (
    ("dose_mbq", "injected activity", "MBq"),
    ("residual_mbq", "residual activity", "MBq"),
    ("injected", "time of injection", ""),
    ("excised", "time of excision", ""),
    ("scanned", "start of the scan", ""),
    ("decay_correction", "image decay-corrected to", ""),
    ("frame_duration_s", "duration of the frame", "s"),
    ("nuclide", "nuclide", ""),
    ("half_life_h", "half-life", "h"),
    ("weight_kg", "weight", "kg"),
    ("height_cm", "height", "cm"),
    ("sex", "sex", ""),
)
_ELEMENTS = {"zirconium": "Zr", "fluorine": "F", "lutetium": "Lu", "actinium": "Ac"}
_SCALED = {"g/mL", "cm²/mL"}


@dataclass(frozen=True, slots=True)
class SuvTerm:
    """One term: its name in the record, the words for it, value, unit and where it comes from."""

    name: str
    label: str
    value: float | str | datetime | None
    unit: str
    source: Origin

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
    """All terms of an SUV: case and header combined.

    Parameters
    ----------
    record
        The merged record; `suv_factor` takes it.
    header
        What the PET file says.
    terms
        Every term with its source.
    assumptions
        What was assumed, in plain sentences.
    warnings
        What should be looked at: disagreements and missing corrections.
    dynamic
        Whether the scan began before the injection.
    """

    record: InjectionRecord
    header: PetHeader
    terms: tuple[SuvTerm, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    dynamic: bool = False

    @property
    def already_suv(self) -> bool:
        """Whether the file's values are SUV and must not be scaled again."""
        return self.header.unit in _SCALED

    def kind(self, wanted: SuvKind) -> SuvKind:
        """The kind of SUV that `to_suv` gives: the file's own when its values are SUV already."""
        if not self.already_suv:
            return wanted
        return self.header.suv_kind or ("bsa" if self.header.unit == "cm²/mL" else "bw")

    def factor(self, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian") -> float:
        """What the file's values are multiplied by; 1 when they are SUV already."""
        if self.already_suv:
            return 1.0
        return suv_factor(self.record, kind, lean_formula=lean_formula, dynamic=self.dynamic)

    def formula(self, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian") -> str:
        """The formula with the numbers in it, one line."""
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
            "already_suv": self.already_suv,
            "dynamic": self.dynamic,
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
        }


def canonical_nuclide(name: str) -> str:
    """A nuclide's name as "Zr-89", from "89Zr", "^89^Zirconium", "zr89"; else unchanged."""
    letters = "".join(re.findall(r"[A-Za-z]+", name)).lower()
    digits = "".join(re.findall(r"\d+", name))
    element = _ELEMENTS.get(letters, letters.capitalize())
    return f"{element}-{digits}" if element and digits else name


def _header_values(header: PetHeader) -> dict[str, Any]:
    """The header's items under the record's names and in its units."""
    half_life = None if not header.half_life_s else header.half_life_s / 3600.0
    return {
        "dose_mbq": None if header.dose_bq is None else header.dose_bq / 1e6,
        "injected": header.injected,
        "scanned": header.scanned,
        "decay_correction": header.decay_correction,
        "frame_duration_s": header.frame_duration_s,
        "nuclide": canonical_nuclide(header.nuclide) if header.nuclide else None,
        "half_life_h": half_life,
        "weight_kg": header.weight_kg or None,
        "height_cm": header.height_cm or None,
        "sex": header.sex,
    }


def _differ(ours: object, theirs: object) -> bool:
    """Whether two values of one item disagree (times by over 1 s, numbers by over 0.5 %)."""
    if isinstance(ours, datetime) and isinstance(theirs, datetime):
        if (ours.tzinfo is None) != (theirs.tzinfo is None):
            return False
        return abs((ours - theirs).total_seconds()) > 1.0
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return abs(ours - theirs) > 0.005 * max(abs(ours), abs(theirs))
    return ours != theirs


def _say(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else f"{value}"


def _merge(
    record: InjectionRecord, header: PetHeader
) -> tuple[dict[str, Any], dict[str, Origin], list[str]]:
    """Case before header, item by item: values, sources and stated disagreements."""
    theirs = _header_values(header)
    values: dict[str, Any] = {}
    sources: dict[str, Origin] = {}
    warnings: list[str] = []
    for name, label, unit in _ITEMS:
        ours = getattr(record, name)
        if name == "nuclide" and "nuclide" not in record.model_fields_set and theirs["nuclide"]:
            ours = None
        other = theirs.get(name)
        values[name] = other if ours is None else ours
        sources[name] = "case" if ours is not None else "header" if other is not None else "missing"
        if ours is not None and other is not None and _differ(ours, other):
            warnings.append(
                f"{label}: the case says {_say(ours)} {unit}".rstrip()
                + f", the file says {_say(other)} {unit}".rstrip()
                + "; the case's value is used"
            )
    values["nuclide"] = canonical_nuclide(values["nuclide"])
    return values, sources, warnings


def _settle_half_life(
    values: dict[str, Any], sources: dict[str, Origin], warnings: list[str]
) -> None:
    """The half-life: the case's, else the file's if it fits the nuclide, else the table's."""
    table = HALF_LIFE_H.get(values["nuclide"])
    if table is None or sources["half_life_h"] == "case":
        return
    given = values["half_life_h"]
    if given is not None and abs(given / table - 1) <= 0.02:
        return
    if given is not None:
        warnings.append(
            f"the file's half-life ({given:.4g} h) does not belong to {values['nuclide']} "
            f"({table:g} h); the table's value is used"
        )
    values["half_life_h"], sources["half_life_h"] = table, "default table"


def _check_times(values: dict[str, Any]) -> None:
    """Times must be all with or all without a zone, and in order."""
    times = {n: values[n] for n in ("injected", "excised", "scanned") if values[n] is not None}
    zoned = {name: time.tzinfo is not None for name, time in times.items()}
    if len(set(zoned.values())) > 1:
        listed = ", ".join(f"{name} = {time.isoformat()}" for name, time in times.items())
        raise InputError(
            f"some times have a zone and others have none ({listed}); they cannot be compared: "
            "give all with their zone, or all as local times"
        )
    if "injected" in times and "excised" in times and times["excised"] < times["injected"]:
        raise InputError(
            f"the excision ({times['excised'].isoformat()}) lies before the injection "
            f"({times['injected'].isoformat()}); correct the dates"
        )


def _check_corrections(header: PetHeader, source: Origin, warnings: list[str]) -> None:
    """Attenuation and decay corrections that the file names."""
    if not header.corrected or header.unit in _SCALED:
        return
    if "ATTN" not in header.corrected:
        warnings.append(
            "the file does not name attenuation correction (ATTN); its values are too low"
        )
    if "DECY" not in header.corrected and header.decay_correction in ("START", "ADMIN"):
        if source != "case":
            raise InputError(
                f"the PET says that it is decay-corrected to {header.decay_correction}, but DECY "
                f"is not among its corrections ({', '.join(header.corrected)}); say which holds: "
                "give decay_correction as START, ADMIN or NONE"
            )
        warnings.append("DECY is not among the file's corrections; the case's word is used")


def _is_dynamic(values: dict[str, Any], header: PetHeader) -> bool:
    """Whether the scan began before the injection and its frame lies after it."""
    injected, scanned = values["injected"], values["scanned"]
    if injected is None or scanned is None or injected <= scanned:
        return False
    if header.frame_reference_s is None:
        return False
    return bool(scanned + timedelta(seconds=header.frame_reference_s) > injected)


def _frame_start(record: InjectionRecord, header: PetHeader) -> tuple[InjectionRecord, list[str]]:
    """For an uncorrected image: the start of its frame from the file's frame reference time."""
    if record.decay_correction != "NONE" or header.frame_reference_s is None:
        return record, []
    if record.scanned is None or record.frame_duration_s is None:
        return record, []
    half_life = half_life_of(record)
    mean_s = half_life * 3600 * np.log2(frame_factor(half_life, record.frame_duration_s))
    offset_s = max(0.0, header.frame_reference_s - float(mean_s))
    if offset_s < 1e-6:
        return record, []
    text = f"The frame starts {offset_s:.1f} s after the scan (from the file's frame time)."
    start = record.scanned + timedelta(seconds=offset_s)
    return record.model_copy(update={"scanned": start}), [text]


def _decay_sentence(record: InjectionRecord, dynamic: bool) -> list[str]:
    mode = record.decay_correction
    if mode == "ADMIN":
        return ["The image refers to the injection; the dose is not decayed."]
    if mode is None or record.injected is None or record.scanned is None:
        return []
    hours = elapsed_h(record, dynamic=dynamic)
    remaining, on_image = decay_terms(record, dynamic=dynamic)
    text = f"The dose is decayed over {hours:.3f} h to the scan: {remaining:.6f} is left."
    if mode == "START":
        return [f"The image refers to the start of the scan. {text}"]
    return [f"The image is not decay-corrected; its frame's factor is {on_image:.6f}. {text}"]


def _assumptions(
    record: InjectionRecord, dynamic: bool, sources: dict[str, Origin], residual_given: bool
) -> list[str]:
    said = _decay_sentence(record, dynamic)
    if dynamic:
        said.append("The scan was started before the injection (dynamic acquisition).")
    if not residual_given and record.residual_mbq == 0:
        said.append("No residual activity in the syringe was given; it is taken as 0.")
    if sources["half_life_h"] == "default table":
        said.append(f"The half-life of {record.nuclide} is the program's table value.")
    if record.excised and record.scanned and record.excised <= record.scanned:
        said.append(
            "Ex vivo: activity decays until the scan, the distribution is that at the excision."
        )
    return said


def _check_unit(header: PetHeader) -> None:
    if header.unit is None:
        raise InputError(
            f"the PET ({header.reader}) does not say the unit of its values; "
            "give it: Bq/mL, g/mL (SUV by weight) or cm²/mL (SUV by body surface)"
        )
    if header.unit != "Bq/mL" and header.unit not in _SCALED:
        raise InputError(
            f"PET values in '{header.unit}' cannot become SUV; Bq/mL, g/mL or cm²/mL is needed"
        )


def combine(record: InjectionRecord, header: PetHeader) -> SuvTerms:
    """Put the case's injection record and the PET file's header together.

    The case's values win; the file's fill the gaps; a half-life that neither gives comes from the
    table of nuclides.  A specimen scanned ex vivo has the specimen's weight and dose in its file,
    so disagreement is stated as a warning and the case's (patient's) values are used.  A missing
    item is no error here: `SuvTerms.factor` names it when it needs it.

    Raises
    ------
    InputError
        If the unit is missing or cannot become SUV, if times with and without a zone are mixed or
        out of order, or if the file contradicts itself about decay correction.
    """
    _check_unit(header)
    values, sources, warnings = _merge(record, header)
    if header.unit not in _SCALED:
        _check_times(values)
        _settle_half_life(values, sources, warnings)
    _check_corrections(header, sources["decay_correction"], warnings)
    merged = record.model_copy(update=values)
    dynamic = _is_dynamic(values, header)
    said: list[str] = []
    if header.unit == "Bq/mL":
        merged, said = _frame_start(merged, header)
        given = "residual_mbq" in record.model_fields_set
        said += _assumptions(merged, dynamic, sources, given)
    else:
        said = ["The file's values are SUV already; they are not scaled again."]
    terms = tuple(
        SuvTerm(name, label, values[name], unit, sources[name]) for name, label, unit in _ITEMS
    )
    return SuvTerms(merged, header, terms, tuple(said), tuple(warnings), dynamic)


def to_suv(
    pet: PetImage,
    terms: SuvTerms,
    kind: SuvKind = "bsa",
    lean_formula: LeanFormula = "janmahasatian",
) -> Raster:
    """SUV on the PET's own voxels.

    Parameters
    ----------
    pet
        The slice; NaN voxels stay NaN.
    terms
        See `combine`.
    kind
        "bsa" gives cm²/mL, "bw" and "lbm" give g/mL.  Values that are SUV in the file keep the
        file's kind and unit whatever is asked; compare ``terms.kind(kind)``.

    Raises
    ------
    InputError
        If a term that the kind needs is missing or not plausible.
    """
    values = np.asarray(pet.raster.values, float) * terms.factor(kind, lean_formula)
    if terms.already_suv:
        return replace(pet.raster, values=values, unit=str(terms.header.unit))
    return replace(pet.raster, values=values, unit=SUV_UNITS[kind])
