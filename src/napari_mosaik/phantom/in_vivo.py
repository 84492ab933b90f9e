"""The sample's PET of the living patient on days 3, 5 and 7, and its truth.

The law (shares no code with ``kinetics/`` or ``twin/``; uptake in g/mL, decay-corrected)::

    plasma   C = C0 (f 2^(-t/T1) + (1 - f) 2^(-t/T2))         blood  (1 - Hct) C
    bound    dB/dt = delivery C (1 - (B + I) / capacity) - k32 B
    inside   dI/dt = k32 B - k03 I                            tumour (1 - v) (B + I) + v blood
    liver    dL/dt = 0.020 C - 0.030 L                        liver  0.8 L + 0.2 blood

Antigen is finite, so that the tumour saturates.  Tumour, aorta and liver lie in soft tissue; a
Gaussian of 4.6 mm and correlated noise that grows with the decay make the images, and each scan
has an error of its calibration.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import ndimage

from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.pet_records import HALF_LIFE_H, InjectionRecord
from napari_mosaik.phantom.pet_files import PetFile, frame_middle_s
from napari_mosaik.phantom.presets import CASES, CasePlan, Patient, random_generator

__all__ = ["SERIES_FOLDER", "InVivoLaw", "in_vivo_curves", "write_in_vivo"]

SERIES_FOLDER: Final = "invivo"
DAYS: Final = (3, 5, 7)
SHAPE: Final = (26, 32, 32)
"""Slices, rows and columns of the images; the series is cropped to the kidneys."""
VOXEL_MM: Final = 4.0
ORIGIN_MM: Final = (-62.0, -150.0, 240.0)
"""Centre of the first voxel in the patient: left, posterior, head."""
PARTS: Final = 2
"""Parts of a voxel along each axis on which the objects are drawn."""
STEP_H: Final = 0.25
PER_FWHM: Final = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True, slots=True)
class InVivoLaw:
    """Constants of one patient; lengths in mm, rates in 1/h, uptake in g/mL."""

    plasma_start: float
    plasma_share: float
    plasma_half_h: tuple[float, float]
    haematocrit: float
    blood_fraction: float
    delivery_per_h: float
    capacity: float
    k32_per_h: float
    k03_per_h: float
    tumour_radius_mm: float
    fwhm_mm: float = 4.6
    noise_share: float = 0.08
    noise_fwhm_mm: float = 5.0
    frame_s: float = 1200.0


def _law(patient: Patient, rng: np.random.Generator) -> InVivoLaw:
    def around(middle: float, spread: float) -> float:
        return float(f"{middle * math.exp(spread * rng.standard_normal()):.6g}")

    return InVivoLaw(
        plasma_start=around(25.0, 0.06),  # 40 mL of plasma a kilogramme
        plasma_share=patient.plasma_share,
        plasma_half_h=patient.plasma_half_h,
        haematocrit=0.40 if patient.sex == "F" else 0.44,
        blood_fraction=0.05,
        delivery_per_h=around(0.0050, 0.08),
        capacity=around(30.0, 0.10),
        k32_per_h=around(0.03, 0.10),
        k03_per_h=around(8.33e-4, 0.20),
        tumour_radius_mm=around(24.0, 0.05),
    )


def in_vivo_curves(law: InVivoLaw, hours: FloatArray) -> dict[str, FloatArray]:
    """True uptake (n,) of plasma, blood, tumour, liver and soft tissue at times (n,), h; g/mL.

    Classical Runge-Kutta steps of 0.25 h, linear between them.
    """
    first, second = law.plasma_half_h

    def plasma(t: float) -> float:
        share = law.plasma_share
        return law.plasma_start * (share * 2 ** (-t / first) + (1 - share) * 2 ** (-t / second))

    def rate(t: float, state: FloatArray) -> FloatArray:
        bound, inside, liver = state
        free = 1 - (bound + inside) / law.capacity
        out = law.k32_per_h * bound
        return np.array(
            [
                law.delivery_per_h * plasma(t) * free - out,
                out - law.k03_per_h * inside,
                0.020 * plasma(t) - 0.030 * liver,
            ]
        )

    count = math.ceil(float(np.max(hours)) / STEP_H) + 1
    times, states = np.arange(count + 1) * STEP_H, [np.zeros(3)]
    for t in times[:-1]:
        now = states[-1]
        k1 = rate(t, now)
        k2 = rate(t + STEP_H / 2, now + STEP_H / 2 * k1)
        k3 = rate(t + STEP_H / 2, now + STEP_H / 2 * k2)
        k4 = rate(t + STEP_H, now + STEP_H * k3)
        states.append(now + STEP_H / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    bound, inside, liver = (np.interp(hours, times, one) for one in np.array(states).T)
    in_plasma = np.array([plasma(float(t)) for t in np.ravel(hours)])
    blood = (1 - law.haematocrit) * in_plasma
    return {
        "plasma": in_plasma,
        "blood": blood,
        "tumour": (1 - law.blood_fraction) * (bound + inside) + law.blood_fraction * blood,
        "liver": 0.8 * liver + 0.2 * blood,
        "soft tissue": 0.3 + 0.08 * blood,
    }


# --- the images -----------------------------------------------------------------------------------
def _places(law: InVivoLaw) -> dict[str, dict[str, Any]]:
    """Centre (x, y, z) and radius in mm of the objects, and of the spheres that are measured."""
    middle = np.asarray(ORIGIN_MM) + VOXEL_MM * (np.asarray(SHAPE[::-1]) - 1) / 2
    tumour, aorta, liver = (np.add(middle, by) for by in ([24, 6, 0], [-2, -10, 4], [-40, 4, 6]))
    return {
        "tumour": {
            "centre_mm": tumour.tolist(),
            "radius_mm": law.tumour_radius_mm,
            "measured_radius_mm": 16.0,
        },
        "blood": {"centre_mm": aorta.tolist(), "radius_mm": 10.0, "measured_radius_mm": 6.5},
        "liver": {"centre_mm": liver.tolist(), "radius_mm": 27.0, "measured_radius_mm": 15.0},
    }


def _fractions(law: InVivoLaw) -> dict[str, FloatArray]:
    """Covered fraction (slices, rows, columns) of each object on the parts of the voxels."""
    step = VOXEL_MM / PARTS
    axes = [
        ORIGIN_MM[axis] - VOXEL_MM / 2 + step * (np.arange(SHAPE[2 - axis] * PARTS) + 0.5)
        for axis in range(3)
    ]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    out: dict[str, FloatArray] = {}
    rest = np.ones(x.shape)
    for name, place in _places(law).items():
        cx, cy, cz = place["centre_mm"]
        along = 0.0 if name == "blood" else z - cz  # the aorta runs through all slices
        apart = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + along**2)
        out[name] = np.minimum(np.clip(0.5 + (place["radius_mm"] - apart) / step, 0, 1), rest)
        rest = rest - out[name]
    out["soft tissue"] = rest
    return out


def _seen(law: InVivoLaw) -> dict[str, FloatArray]:
    """What the scanner shows of each object of uptake 1 (slices, rows, columns), g/mL."""
    sigma = law.fwhm_mm / PER_FWHM / VOXEL_MM * PARTS
    slices, rows, columns = SHAPE
    parts = (slices, PARTS, rows, PARTS, columns, PARTS)
    out = {}
    for name, share in _fractions(law).items():
        blurred = ndimage.gaussian_filter(share, sigma, mode="nearest", truncate=5.0)
        out[name] = blurred.reshape(parts).mean(axis=(1, 3, 5))
    return out


def _with_noise(
    law: InVivoLaw, shown: FloatArray, day: int, rng: np.random.Generator
) -> FloatArray:
    """An image (slices, rows, columns), g/mL, with the noise of its day."""
    sigma = law.noise_fwhm_mm / PER_FWHM / VOXEL_MM
    white = ndimage.gaussian_filter(rng.standard_normal(SHAPE), sigma, mode="wrap")
    # fewer decays on later days: the noise grows with the square root of the decay
    grown = 2.0 ** (24.0 * (day - DAYS[0]) / HALF_LIFE_H["Zr-89"] / 2)
    noise = law.noise_share * grown * np.sqrt(shown * shown.max()) * white / white.std()
    return np.asarray(np.maximum(shown + noise, 0.0), float)


def write_in_vivo(folder: Path, plan: CasePlan, seed: int) -> None:
    """Write the series of the case's patient, its truth, and ``invivo.csv`` measured from it.

    All cases of a patient have the same series.  The random stream is its own, so that everything
    else of the sample is as it was.
    """
    patient = plan.patient
    first = next(name for name in CASES if name[0] == plan.name[0])
    law = _law(patient, random_generator(seed, first, 11))
    injected = datetime.fromisoformat(patient.injected)
    starts = [injected + timedelta(days=day, minutes=20 + 5 * day) for day in DAYS]
    middle_h = frame_middle_s(law.frame_s) / 3600
    hours = np.array([(s - injected).total_seconds() / 3600 + middle_h for s in starts])
    excised_h = (datetime.fromisoformat(patient.excised) - injected).total_seconds() / 3600
    curves = in_vivo_curves(law, hours)
    at_excision = in_vivo_curves(law, np.array([excised_h]))
    calibrations, seen = [], _seen(law)
    for index, (day, start) in enumerate(zip(DAYS, starts, strict=True)):
        rng = random_generator(seed, first, 12, day)
        calibrations.append(float(f"{math.exp(0.03 * rng.standard_normal()):.6g}"))
        uptake = {name: float(values[index]) for name, values in curves.items()}
        shown = sum(share * uptake[name] for name, share in seen.items())
        image = _with_noise(law, np.asarray(shown), day, rng) * calibrations[-1]
        _write_series(folder / SERIES_FOLDER / f"day{day}", image, patient, seed, day, start, law)
    truth = {
        "law": asdict(law),
        "times_h": hours.tolist(),
        "uptake_g_ml": {name: values.tolist() for name, values in curves.items()},
        "calibration": calibrations,
        "regions": _places(law),
        "excised_h": excised_h,
        "uptake_at_excision_g_ml": {name: float(v[0]) for name, v in at_excision.items()},
    }
    (folder / "truth").mkdir(exist_ok=True)
    (folder / "truth" / "invivo.json").write_text(
        json.dumps(truth, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    _measure(folder, plan, law)


def _write_series(
    folder: Path, image: FloatArray, patient: Patient, seed: int, day: int, start: datetime,
    law: InVivoLaw,
) -> None:  # fmt: skip
    """Write the slices of one scan (slices, rows, columns), g/mL, in Bq/mL at its start."""
    injected = datetime.fromisoformat(patient.injected)
    left = 2.0 ** (-(start - injected).total_seconds() / 3600 / HALF_LIFE_H["Zr-89"])
    net_bq = (patient.dose_mbq - patient.residual_mbq) * 1e6
    factor = net_bq * left / (patient.weight_kg * 1000.0)
    x, y, z = ORIGIN_MM
    whose = (seed, patient.name, "in vivo")
    for place, values in enumerate(image):
        PetFile(
            values=values * factor,
            spacing_mm=(VOXEL_MM, VOXEL_MM),
            thickness_mm=VOXEL_MM,
            position_mm=(x, y, z + VOXEL_MM * place),
            identity=((*whose, day, place), (*whose, day), (*whose, day, "frame"),
                      (*whose, day, "study")),
            title=f"in vivo PET, day {day}, cropped (synthetic)",
            patient=patient,
            scanned=start,
            frame_s=law.frame_s,
            number=place + 1,
            count=len(image),
            body=True,
        ).write(folder / f"{place + 1:03d}.dcm")  # fmt: skip


def _measure(folder: Path, plan: CasePlan, law: InVivoLaw) -> None:
    """Fill ``invivo.csv`` from the written series by the measuring code of the program."""
    from napari_mosaik.io.invivo import write_invivo
    from napari_mosaik.io.pet import open_pet_volume
    from napari_mosaik.uptake import measure_volume, sphere_voxels

    patient = plan.patient
    record = InjectionRecord(
        nuclide="Zr-89",
        dose_mbq=patient.dose_mbq,
        residual_mbq=patient.residual_mbq,
        injected=datetime.fromisoformat(patient.injected),
        weight_kg=patient.weight_kg,
    )
    values = []
    for day in DAYS:
        volume = open_pet_volume(folder / SERIES_FOLDER / f"day{day}")
        source = volume.source(plan.name)
        for region, place in _places(law).items():
            radius = place["measured_radius_mm"]
            found = measure_volume(
                volume,
                record,
                sphere_voxels(volume.grid, place["centre_mm"], radius),
                region=region,
                method=f"sphere of {radius:g} mm",
                source=source,
                fwhm_mm=law.fwhm_mm,
            )
            values.append(found.value)
    write_invivo(folder, values)
