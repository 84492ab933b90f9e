"""Presets of the sample cohort: cases, patients, sizes, and the pose of each section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import numpy as np

from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Transform

__all__ = [
    "CASES",
    "PATIENTS",
    "PLANS",
    "SIZES",
    "CasePlan",
    "CohortSize",
    "Patient",
    "Pose",
    "random_generator",
]

GENERATOR: Final = 1
"""Raised whenever the same size and seed would give other numbers."""


@dataclass(frozen=True, slots=True)
class CohortSize:
    """One size of the cohort.

    Parameters
    ----------
    name
        Its name.
    extent_um
        Height and width of the slide, µm.
    spacing_um
        Pixel size of the rendered slides, µm.
    cases
        Cases that are made by default.
    rendered
        Whether slides are rendered; otherwise the case is given its label images.
    group
        Edge (count) of the squares of tiles that all show the one drawn in their middle.
    """

    name: str
    extent_um: tuple[float, float]
    spacing_um: float
    cases: tuple[str, ...]
    rendered: bool = True
    group: int = 1


CASES: Final = ("A2", "A3", "A4", "A5", "B8", "B11")
"""Names of the cases: four slices of patient 1 and two of patient 2."""

SIZES: Final[Mapping[str, CohortSize]] = MappingProxyType(
    {
        "tiny": CohortSize("tiny", (2000.0, 2400.0), 1.0, ("A2", "B8", "B11")),
        "quick": CohortSize("quick", (6000.0, 8000.0), 1.0, CASES),
        "full": CohortSize("full", (18000.0, 24000.0), 0.25, ("B11",), group=8),
        "rasters": CohortSize("rasters", (16000.0, 20000.0), 4.0, CASES, rendered=False),
    }
)


@dataclass(frozen=True, slots=True)
class Pose:
    """The pose of a section or the PET relative to CD34; shifts are fractions of the slide."""

    angle_deg: float
    scale: float
    shift: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Patient:
    """One injection and the patient's plasma curve (two exponentials, sample values).

    ``plasma_share`` is the fraction of the fast component, ``plasma_half_h`` both half-lives in h.
    """

    name: str
    dose_mbq: float
    residual_mbq: float
    injected: str
    excised: str
    scanned: str
    weight_kg: float
    height_cm: float
    sex: str
    antibody_mass_mg: float
    plasma_share: float
    plasma_half_h: tuple[float, float]


@dataclass(frozen=True, slots=True)
class CasePlan:
    """One case: its patient, the poses of its sections, and the artefacts of its slides."""

    name: str
    patient: Patient
    poses: Mapping[str, Pose]
    fold: str = ""
    pen: str = ""
    annotated: bool = True

    @property
    def scanned(self) -> datetime:
        """Start of this slice's scan: a patient's slices are scanned one after the other."""
        turn = [n for n in CASES if n[0] == self.name[0]].index(self.name)
        return datetime.fromisoformat(self.patient.scanned) + timedelta(minutes=75 * turn)

    def transform(self, frame: str, extent_um: tuple[float, float]) -> Transform:
        """The true transform from *frame* ("he", "cd34" or "caix") to the CD34 section."""
        if frame == REFERENCE:
            return Transform.identity(frame, REFERENCE)
        pose = self.poses[frame]
        extent = np.asarray(extent_um)
        return Transform.similarity(
            frame,
            REFERENCE,
            angle_deg=pose.angle_deg,
            scale=pose.scale,
            shift_um=tuple(np.asarray(pose.shift) * extent),
            about_um=tuple(extent / 2),
        )


PATIENTS: Final = (
    Patient(
        "patient 1",
        dose_mbq=37.6,
        residual_mbq=0.5,
        injected="2024-03-04T10:30:00",
        excised="2024-03-18T09:20:00",
        scanned="2024-03-18T14:05:00",
        weight_kg=82.0,
        height_cm=178.0,
        sex="M",
        antibody_mass_mg=10.0,
        plasma_share=0.40,
        plasma_half_h=(12.0, 90.0),
    ),
    Patient(
        "patient 2",
        dose_mbq=36.2,
        residual_mbq=0.7,
        injected="2024-05-13T11:10:00",
        excised="2024-05-27T08:45:00",
        scanned="2024-05-27T13:40:00",
        weight_kg=69.0,
        height_cm=166.0,
        sex="F",
        antibody_mass_mg=10.0,
        plasma_share=0.43,
        plasma_half_h=(11.0, 85.0),
    ),
)


def _plan(
    name: str,
    patient: int,
    he: Pose,
    caix: Pose,
    pet: Pose,
    *,
    fold: str = "",
    pen: str = "",
) -> CasePlan:
    poses = {"he": he, "caix": caix, "pet": pet}
    return CasePlan(name, PATIENTS[patient], poses, fold, pen, annotated=name != "B11")


PLANS: Final[Mapping[str, CasePlan]] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            _plan(
                "A2",
                0,
                Pose(14.0, 1.012, (0.010, -0.012)),
                Pose(-9.0, 0.985, (-0.012, 0.008)),
                Pose(31.0, 0.935, (0.0, 0.0)),
                fold="caix",
            ),
            _plan(
                "A3",
                0,
                Pose(-21.0, 0.991, (-0.008, 0.010)),
                Pose(17.0, 1.008, (0.006, 0.012)),
                Pose(-18.0, 0.925, (0.0, 0.0)),
                pen="caix",
            ),
            _plan(
                "A4",
                0,
                Pose(24.0, 1.004, (0.006, 0.014)),
                Pose(-15.0, 1.015, (0.010, -0.006)),
                Pose(52.0, 0.945, (0.0, 0.0)),
                fold="he",
            ),
            _plan(
                "A5",
                0,
                Pose(-11.0, 1.018, (0.012, 0.004)),
                Pose(22.0, 0.994, (-0.006, -0.010)),
                Pose(-40.0, 0.930, (0.0, 0.0)),
                fold="cd34",
            ),
            _plan(
                "B8",
                1,
                Pose(173.0, 0.996, (0.004, -0.010)),
                Pose(12.0, 1.010, (-0.010, -0.008)),
                Pose(24.0, 0.920, (0.0, 0.0)),
                pen="he",
            ),
            _plan(
                "B11",
                1,
                Pose(-17.0, 1.009, (-0.010, 0.008)),
                Pose(19.0, 0.990, (0.008, 0.010)),
                Pose(-27.0, 0.940, (0.0, 0.0)),
                fold="he",
            ),
        )
    }
)


def random_generator(seed: int, case: str, *purpose: int) -> np.random.Generator:
    """An independent random generator for one purpose within one case of one cohort."""
    if case not in CASES:
        raise InputError(f"the sample cohort has no case '{case}'; use one of: {', '.join(CASES)}")
    return np.random.default_rng(np.random.SeedSequence([seed, CASES.index(case), *purpose]))
