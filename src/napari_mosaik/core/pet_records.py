"""Records shared by several packages: the injection, and the header of a PET image."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mosaik.core.raster import Raster

__all__ = ["HALF_LIFE_H", "InjectionRecord", "PetHeader", "PetImage", "PetUnit"]

HALF_LIFE_H = {"Zr-89": 78.41, "Lu-177": 159.528, "Ac-225": 238.1, "F-18": 1.8295}
"""Physical half-lives of the known nuclides, h."""

DecayCorrection = Literal["START", "ADMIN", "NONE"]
PetUnit = Literal["Bq/mL", "g/mL", "cm²/mL"]
"""Units of a PET image: activity concentration, or SUV by weight or by body surface area."""


class InjectionRecord(BaseModel):
    """The injection, the patient, and the reference time of the image.

    Nothing is guessed: a missing item stays None, and the step that needs it stops with a message.
    Times are local times of the hospital unless they carry a zone; within one record all or none
    carry one.  ``scanned``, ``decay_correction`` and ``frame_duration_s`` normally come from the
    PET's header.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nuclide: str = Field("Zr-89", description="nuclide, element and mass number")
    half_life_h: float | None = Field(None, gt=0, description="physical half-life, h")
    dose_mbq: float | None = Field(None, gt=0, description="injected activity, MBq")
    residual_mbq: float = Field(0.0, ge=0, description="activity left in the syringe, MBq")
    injected: datetime | None = Field(None, description="date and time of injection")
    excised: datetime | None = Field(None, description="date and time of excision")
    weight_kg: float | None = Field(None, gt=0, description="the patient's weight, kg")
    height_cm: float | None = Field(None, gt=0, description="the patient's height, cm")
    sex: Literal["M", "F"] | None = Field(None, description="sex, for lean body mass")
    antibody_mass_mg: float | None = Field(None, gt=0, description="mass of antibody, mg")
    scanned: datetime | None = Field(None, description="start of the scan")
    decay_correction: DecayCorrection | None = Field(
        None, description="reference time of the decay correction: START, ADMIN or NONE"
    )
    frame_duration_s: float | None = Field(None, gt=0, description="duration of the frame, s")


class PetHeader(BaseModel):
    """Header of a PET image, without anything that identifies the patient.

    ``unit`` is "Bq/mL" or, for images that are SUV already, "g/mL" or "cm²/mL" together with
    ``suv_kind``; None means that the file does not say and the user must (``unit_given``).
    ``source`` is where the values stand: in the file's own "header" or in a "sidecar" beside it.
    ``injected_clock`` is the injection's time of day where the file states no date;
    ``decay_factor`` what the file says that the frame was multiplied by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str
    unit: str | None
    unit_given: bool = False
    source: Literal["header", "sidecar"] = "header"
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None
    decay_correction: DecayCorrection | None = None
    decay_factor: float | None = None
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
    sex: Literal["M", "F"] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PetImage:
    """One PET slice (frame "pet") with its header; raster and header have the same unit."""

    raster: Raster
    header: PetHeader
