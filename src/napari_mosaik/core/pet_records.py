"""Records shared by several packages: the injection, and the header of a PET image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_mosaik.core.raster import Raster
from napari_mosaik.core.text import validation_words

__all__ = [
    "BASE_UNITS",
    "HALF_LIFE_H",
    "InjectionRecord",
    "PetHeader",
    "PetImage",
    "PetUnit",
    "canonical_nuclide",
    "record_problem",
    "record_unit",
    "renamed_items",
]

HALF_LIFE_H = {
    "Zr-89": 78.41, "Lu-177": 159.528, "Ac-225": 238.1, "F-18": 1.8295, "C-11": 0.33940,
    "N-13": 0.16608, "O-15": 0.033956, "Ga-68": 1.1285, "Cu-64": 12.701, "Sc-44": 4.042,
    "Y-86": 14.74, "I-124": 100.224, "I-131": 192.6, "Y-90": 64.05, "In-111": 67.31,
}  # fmt: skip
"""Physical half-lives of the known nuclides, h (NNDC NuDat 3)."""

_ELEMENTS = {
    "zirconium": "Zr", "fluorine": "F", "lutetium": "Lu", "actinium": "Ac", "gallium": "Ga",
    "copper": "Cu", "carbon": "C", "iodine": "I", "oxygen": "O", "nitrogen": "N", "yttrium": "Y",
    "scandium": "Sc", "indium": "In", "technetium": "Tc", "rubidium": "Rb", "terbium": "Tb",
    "zirkonium": "Zr", "zirconio": "Zr", "fluor": "F", "fluoro": "F", "kohlenstoff": "C",
    "kupfer": "Cu", "cuivre": "Cu", "rame": "Cu", "galio": "Ga", "gallio": "Ga",
    "iod": "I", "iode": "I", "sauerstoff": "O", "stickstoff": "N", "azote": "N",
}  # fmt: skip

DecayCorrection = Literal["START", "ADMIN", "NONE"]
PetUnit = Literal["Bq/mL", "kBq/mL", "MBq/mL", "nCi/mL", "µCi/mL", "g/mL", "cm²/mL"]
"""Units of a PET image: activity concentration, or SUV by weight or by body surface area."""
BASE_UNITS: dict[str, tuple[PetUnit, float]] = {
    "kBq/mL": ("Bq/mL", 1e3), "MBq/mL": ("Bq/mL", 1e6), "nCi/mL": ("Bq/mL", 37.0),
    "µCi/mL": ("Bq/mL", 3.7e4),
}  # fmt: skip
"""The unit in which the program computes, and the factor to it; others are their own."""


def _amount(title: str, description: str) -> Any:
    return Field(None, gt=0, allow_inf_nan=False, title=title, description=description)


def canonical_nuclide(name: str) -> str:
    """The nuclide as "Zr-89", from "89Zr", "^89^Zirconium", "[89Zr]Zr-DFO"...; else unchanged."""
    pairs = re.findall(r"(?<!\d)(\d{1,3}m?)[\s^\]-]*([A-Za-z]+)", name)
    pairs += [pair[::-1] for pair in re.findall(r"([A-Za-z]+)[\s^\[-]*(\d{1,3}m?)(?!\d)", name)]
    symbols = {*_ELEMENTS.values(), *(known.partition("-")[0] for known in HALF_LIFE_H)}
    elements = [(_ELEMENTS.get(word.lower(), word.capitalize()), mass) for mass, word in pairs]
    found = {f"{element}-{mass}" for element, mass in elements if element in symbols}
    if len(found := found & set(HALF_LIFE_H) or found) == 1:  # "89Zr-C225" is not carbon
        return found.pop()
    letters = "".join(re.findall(r"[A-Za-z]+", name)).capitalize()
    digits = "".join(re.findall(r"\d+", name))
    return f"{letters}-{digits}" if letters and digits else name


class InjectionRecord(BaseModel):
    """The injection, the patient, and the reference time of the image.

    Nothing is guessed: a missing item stays None, and the step that needs it stops with a message.
    Times are local times of the hospital unless they carry a zone; within one record all or none
    carry one.  ``scanned``, ``decay_correction`` and ``frame_duration_s`` normally come from the
    PET's header.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nuclide: str = Field("Zr-89", title="Nuclide", description="nuclide, element and mass number")
    half_life_h: float | None = _amount("Half-life", "physical half-life, h")
    dose_mbq: float | None = _amount("Injected activity", "injected activity, MBq")
    residual_mbq: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        title="Left in the syringe",
        description="activity left in the syringe, MBq",
    )
    injected: datetime | None = Field(
        None, title="Time of injection", description="date and time of injection"
    )
    excised: datetime | None = Field(
        None, title="Time of excision", description="date and time of excision"
    )
    weight_kg: float | None = _amount("Body weight", "the patient's weight, kg")
    height_cm: float | None = _amount("Height", "the patient's height, cm")
    sex: Literal["M", "F", "O"] | None = Field(
        None, title="Sex", description="sex, for lean body mass; O: other, the mean of M and F"
    )
    antibody_mass_mg: float | None = _amount("Antibody mass", "mass of antibody, mg")
    scanned: datetime | None = Field(
        None, title="Start of the scan", description="start of the scan"
    )
    decay_correction: DecayCorrection | None = Field(
        None,
        title="Decay correction",
        description="reference time of the decay correction: START, ADMIN or NONE",
    )
    frame_duration_s: float | None = _amount("Frame duration", "duration of the frame, s")

    @field_validator("injected", "excised", "scanned", mode="before")
    @classmethod
    def _with_time_of_day(cls, value: Any) -> Any:
        """A date alone would be taken as midnight, and a number as seconds since 1970."""
        is_moment = value is None or isinstance(value, datetime)
        if is_moment or re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:?\d\d.*", str(value).strip()):
            return value
        raise ValueError("give date and time, for example 2024-05-13T11:10")


_SUFFIX_UNITS = {"mbq": "MBq", "kg": "kg", "cm": "cm", "mg": "mg", "h": "h", "s": "s"}


def record_unit(name: str) -> str:
    """Unit of an item of the injection record; empty if it has none."""
    return _SUFFIX_UNITS.get(name.rpartition("_")[2], "")


def renamed_items(text: str, names: Mapping[str, str]) -> str:
    """A message in which items of the record have other names: those of options or of a form.

    A name that is a word, too ("injected"), is replaced only where the message asks for it.
    """
    words = "|".join(name for name in names if "_" not in name) or "(?!)"
    items = "|".join(name for name in names if "_" in name) or "(?!)"
    before = ("give ", "Give ", "orrect ", "omit the ", "one with ", r"rect \w{8} or ")
    asked = f"(?:{'|'.join(f'(?<={text})' for text in before)})"
    pattern = rf"\b(?:{items})\b|{asked}(?:{words})\b"
    return re.sub(pattern, lambda match: names[match[0]], text)


def record_problem(error: ValidationError) -> tuple[str, str]:
    """The item of an injection record that is not valid, and why: "-1 MBq is not valid ..."."""
    first = error.errors()[0]
    name, value = str(first["loc"][0]) if first["loc"] else "", first["input"]
    shown = f"{value:g}" if isinstance(value, float) else f"{value}"
    shown = f"{shown} {record_unit(name)}".strip()
    limits = first.get("ctx", {})
    if "gt" in limits:
        return name, f"{shown} is not valid; give more than {limits['gt']:g}"
    if "ge" in limits:
        return name, f"{shown} is not valid; give {limits['ge']:g} or more"
    if "expected" in limits:
        return name, f"'{value}' is not valid; give {limits['expected']}"
    if first["type"] == "value_error":
        return name, f"'{value}' is not valid; {limits['error']}"
    if first["type"] == "extra_forbidden":
        return name, "is not an item of the injection record"
    return name, f"'{value}' is not valid; {validation_words(first)}"


class PetHeader(BaseModel):
    """Header of a PET image, without anything that identifies the patient.

    ``unit`` is "Bq/mL" or, for images that are SUV already, "g/mL" or "cm²/mL" together with
    ``suv_kind``; None means that the file does not say and the user must (``unit_given``).
    ``source`` is where the values stand: in the file's own "header" or in a "sidecar" beside it.
    ``injected_clock`` is the injection's time of day where the file states it apart from the date;
    ``decay_factor`` what the file says that the frame was multiplied by; ``decay_reference`` the
    moment to which the image is corrected, where the file states a moment.  ``unclear`` says for
    items of the injection record why what the file states of them is not used; ``geometry`` who
    states the voxel size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str
    unit: str | None
    unit_given: bool = False
    source: Literal["header", "sidecar"] = "header"
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None
    decay_correction: DecayCorrection | None = None
    decay_factor: float | None = None
    decay_reference: datetime | None = None
    corrected: tuple[str, ...] = ()
    scanned: datetime | None = None
    frame_duration_s: float | None = None
    frame_reference_s: float | None = None
    half_life_s: float | None = None
    nuclide: str | None = None
    injected: datetime | None = None
    injected_clock: time | None = None
    residual_bq: float | None = None
    dose_bq: float | None = None
    weight_kg: float | None = None
    height_cm: float | None = None
    sex: Literal["M", "F", "O"] | None = None
    species: str = ""
    geometry: str = ""
    notes: tuple[str, ...] = ()
    unclear: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PetImage:
    """One PET slice (frame "pet") with its header; raster and header have the same unit."""

    raster: Raster
    header: PetHeader
