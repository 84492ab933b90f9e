"""Uptake of a volume of interest in a PET of the patient: mean, its error, and what the scanner
recovers of a uniform sphere.

The standard error of the mean has two parts, which add in squares: the calibration of the scanner
(a fraction of the mean, the same for all voxels) and the noise.  Noise of neighbouring voxels is
correlated: a Gaussian of the width s of the scanner (or of the given noise) makes as many voxels
independent as volumes of ``(4 pi)^(3/2) s^3`` fit into the volume of interest, at least one.  The
spread of the voxels, which holds true differences too, stands for the noise of one of them, so
the error is rather too large than too small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.pet_records import InjectionRecord, PetImage
from napari_mosaik.core.pet_volume import PetVolume, VolumeGrid
from napari_mosaik.uptake.suv import SuvKind
from napari_mosaik.uptake.terms import SuvTerms, combine_terms

__all__ = [
    "INVIVO_FWHM_MM",
    "VoiMeasurement",
    "error_of_the_mean",
    "measure_volume",
    "sphere_recovery",
    "sphere_voxels",
]

INVIVO_FWHM_MM = 4.6
"""Resolution of a clinical scanner for 89Zr, full width at half maximum, mm."""
CALIBRATION = 0.05
SIGMAS_PER_FWHM = 2 * math.sqrt(2 * math.log(2))
SMALL_IN_FWHM = 3.0
"""A sphere whose diameter is below so many FWHM loses much of its uptake."""
_UNITS = {"bw": "SUVbw", "bsa": "SUVbsa", "lbm": "SUVlbm"}


def sphere_recovery(radius_mm: float, fwhm_mm: float = INVIVO_FWHM_MM) -> tuple[float, float]:
    """What a Gaussian point spread leaves of a uniform sphere without background.

    Parameters
    ----------
    radius_mm
        Radius of the sphere, mm.
    fwhm_mm
        Full width at half maximum of the point spread, mm.

    Returns
    -------
    tuple
        Fractions of the true value at the centre, and of the mean inside the sphere, both 0 to 1.

    Raises
    ------
    InputError
        If a length is not positive.
    """
    for name, value in (("radius_mm", radius_mm), ("fwhm_mm", fwhm_mm)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value:g}; give a length above 0 mm")
    ratio = radius_mm / fwhm_mm * SIGMAS_PER_FWHM
    centre = math.erf(ratio / math.sqrt(2)) - math.sqrt(2 / math.pi) * ratio * math.exp(
        -(ratio**2) / 2
    )
    # Overlap of two spheres of radius R at distance r: 1 - 3r/4R + r^3/16R^3; 12 s hold all.
    node, weight = _nodes()
    end = min(2 * ratio, 12.0)
    r = (node + 1) * end / 2
    spread = np.exp(-(r**2) / 2) * (2 * math.pi) ** -1.5 * 4 * math.pi * r**2
    overlap = 1 - 3 * r / (4 * ratio) + r**3 / (16 * ratio**3)
    return centre, float((spread * overlap) @ weight) * end / 2


@cache
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes (n,) and weights (n,) of Gauss and Legendre on -1 to 1, without unit."""
    return np.polynomial.legendre.leggauss(64)


def sphere_voxels(
    grid: VolumeGrid, centre_mm: Sequence[float], radius_mm: float
) -> NDArray[np.bool_]:
    """Voxels (slices, rows, columns) whose centre lies in a sphere.

    Parameters
    ----------
    grid
        The voxels.
    centre_mm
        Centre (3,) in mm: left, posterior, head, as in DICOM.
    radius_mm
        Radius, mm.

    Raises
    ------
    InputError
        If the sphere reaches beyond the volume or holds no voxel.
    """
    centre = np.asarray(centre_mm, float)
    if centre.shape != (3,) or not np.isfinite(centre).all():
        raise InputError("the centre of the sphere needs three numbers in mm: x, y, z")
    if not (math.isfinite(radius_mm) and radius_mm > 0):
        raise InputError(f"the radius of the sphere is {radius_mm:g} mm; give more than 0")
    middle = grid.index(centre[None])[0]
    reach = radius_mm / np.asarray(grid.spacing_mm)
    sizes = np.asarray(grid.shape)
    if (middle - reach < -0.5).any() or (middle + reach > sizes - 0.5).any():
        where = " x ".join(f"{part:.4g}" for part in centre)
        raise InputError(
            f"the sphere of {radius_mm:g} mm at ({where}) mm reaches beyond the PET ({grid}); move "
            "it, or give a smaller radius"
        )
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach) + 1, sizes).astype(int)
    axes = [np.arange(first, end) for first, end in zip(low, high, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    apart = ((index - middle) @ grid.steps_mm) ** 2
    inside = np.zeros(grid.shape, bool)
    window = tuple(slice(first, end) for first, end in zip(low, high, strict=True))
    inside[window] = apart.sum(axis=-1) <= radius_mm**2
    if not inside.any():
        raise InputError(
            f"the sphere of {radius_mm:g} mm holds no centre of a voxel; give a larger radius"
        )
    return inside


def error_of_the_mean(
    mean: float,
    voxel_sd: float,
    volume_ml: float,
    *,
    calibration: float = CALIBRATION,
    noise_fwhm_mm: float = INVIVO_FWHM_MM,
) -> tuple[float, float, float]:
    """Standard error of the mean of a volume of interest, in the unit of the mean.

    Parameters
    ----------
    mean, voxel_sd
        Mean and standard deviation of the voxels, in one unit.
    volume_ml
        Volume, mL.
    calibration
        Standard error of the calibration as a fraction of the mean.
    noise_fwhm_mm
        Full width at half maximum of the correlation of the noise, mm.

    Returns
    -------
    tuple
        The error, its part from the noise, and the number of independent volumes (1 or more).

    Raises
    ------
    InputError
        If the calibration is negative, or the error would be 0.
    """
    if not 0 <= calibration < 1:
        raise InputError(f"calibration is {calibration:g}; give a fraction from 0 to below 1")
    if not (math.isfinite(noise_fwhm_mm) and noise_fwhm_mm > 0):
        raise InputError(f"the FWHM is {noise_fwhm_mm:g} mm; give more than 0")
    sigma_cm = noise_fwhm_mm / SIGMAS_PER_FWHM / 10
    count = max(1.0, volume_ml / ((4 * math.pi) ** 1.5 * sigma_cm**3))
    noise = voxel_sd / math.sqrt(count)
    error = math.hypot(noise, calibration * mean)
    if not error > 0:
        raise InputError("the error of the mean is 0: all voxels are equal; give calibration")
    return error, noise, count


@dataclass(frozen=True, slots=True, eq=False)
class VoiMeasurement:
    """A measured volume of interest: the value, its parts, and how the SUV came about.

    Parameters
    ----------
    value
        What is stored.
    n_voxels
        Number of voxels.
    noise
        Part of the standard error that is noise, in the unit of the value.
    independent
        Number of independent volumes in the volume of interest.
    radius_mm
        Radius of the sphere of the same volume, mm.
    recovery_centre, recovery_mean
        Fractions that the scanner recovers of such a sphere.
    recovered
        Whether the value was divided by the recovery of its mean.
    terms
        Terms of the SUV of the first slice.
    warnings
        Doubts, one sentence each.
    """

    value: InvivoValue
    n_voxels: int
    noise: float
    independent: float
    radius_mm: float
    recovery_centre: float
    recovery_mean: float
    recovered: bool
    terms: SuvTerms
    warnings: tuple[str, ...]


def measure_volume(
    volume: PetVolume,
    record: InjectionRecord,
    voxels: NDArray[np.bool_],
    *,
    region: str,
    method: str,
    source: str,
    kind: SuvKind = "bw",
    fwhm_mm: float = INVIVO_FWHM_MM,
    recovery: Literal["none", "mean"] = "none",
    calibration: float = CALIBRATION,
) -> VoiMeasurement:
    """The uptake of a volume of interest as SUV, by the rules of the SUV of a slice.

    Parameters
    ----------
    volume
        The PET; NaN voxels have no value.
    record
        Injection record of the case; the headers of the slices fill its gaps.
    voxels
        Voxels of the volume of interest, shape (slices, rows, columns).
    region, method, source
        Stored with the value.
    kind
        Kind of SUV; images that are SUV already keep theirs.
    fwhm_mm
        Resolution of the scanner, mm, for the recovery and the correlation of the noise.
    recovery
        "mean" divides mean and error by the recovery of a uniform sphere of the same volume.
    calibration
        Standard error of the calibration as a fraction of the mean.

    Raises
    ------
    InputError
        If the volume of interest is empty, has voxels without a value, or a term of the SUV or the
        time is missing or impossible.
    """
    if voxels.shape != volume.grid.shape:
        raise InputError(f"the mask has {voxels.shape} voxels, the PET {volume.grid.shape}")
    places = np.flatnonzero(voxels.any(axis=(1, 2)))
    if not places.size:
        raise InputError("the volume of interest is empty: it holds no voxel")
    terms = [combine_terms(record, volume.images[place].header) for place in places]
    parts = [
        np.asarray(volume.images[place].raster.values, float)[voxels[place]] * term.factor(kind)
        for place, term in zip(places, terms, strict=True)
    ]
    values = np.concatenate(parts)
    absent = int(np.count_nonzero(~np.isfinite(values)))
    if absent:
        raise InputError(
            f"{absent} of {values.size} voxels of the volume of interest have no value: it reaches "
            "beyond the field of view"
        )
    if values.size < 2:
        raise InputError("the volume of interest holds one voxel, too few for an error of its mean")
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    volume_ml = values.size * volume.grid.voxel_ml
    radius_mm = 10 * (3 * volume_ml / (4 * math.pi)) ** (1 / 3)
    of_centre, of_mean = sphere_recovery(radius_mm, fwhm_mm)
    factor = 1 / of_mean if recovery == "mean" else 1.0
    error, noise, count = error_of_the_mean(
        mean, spread, volume_ml, calibration=calibration, noise_fwhm_mm=fwhm_mm
    )
    kinds = {term.kind(kind) for term in terms}
    if len(kinds) > 1:
        raise InputError(f"the slices hold different kinds of SUV: {', '.join(sorted(kinds))}")
    value = InvivoValue(
        time_h=_time_h(volume, places, terms),
        region=region,
        mean=mean * factor,
        sd=error * factor,
        voxel_sd=spread,
        volume_ml=volume_ml,
        unit=_UNITS[kinds.pop()],
        decay_reference="injection",
        source=source,
        method=method
        + (
            f", divided by the recovery {of_mean:.3f} (FWHM {fwhm_mm:g} mm)"
            if recovery == "mean"
            else ""
        ),
    )
    warnings = list(dict.fromkeys(text for term in terms for text in term.warnings))
    if 2 * radius_mm < SMALL_IN_FWHM * fwhm_mm:
        warnings.append(
            f"{region}: a sphere of {volume_ml:.3g} mL has a diameter of {2 * radius_mm:.3g} mm, "
            f"below {SMALL_IN_FWHM:g} FWHM ({SMALL_IN_FWHM * fwhm_mm:.3g} mm): of a whole object "
            f"of this size the scanner recovers {of_mean:.0%}, and its neighbourhood counts"
        )
    return VoiMeasurement(
        value, int(values.size), noise * factor, count, radius_mm, of_centre, of_mean,
        recovery == "mean", terms[0], tuple(warnings),
    )  # fmt: skip


def _time_h(volume: PetVolume, places: NDArray[Any], terms: Sequence[SuvTerms]) -> float:
    """Hours from the injection to the middle of the frames of the slices."""
    hours = []
    for place, term in zip(places, terms, strict=True):
        moments = {one.name: one.value for one in term.terms}
        injected, scanned = moments["injected"], moments["scanned"]
        if not isinstance(injected, datetime) or not isinstance(scanned, datetime):
            lacking = "scanned" if isinstance(injected, datetime) else "injected"
            raise InputError(
                f"the time after injection is unknown: give {lacking} with date and time"
            )
        start = (scanned - injected).total_seconds() / 3600
        hours.append(start + _middle_s(volume.images[place], moments) / 3600)
    found = round(float(np.mean(hours)), 4)  # 0.4 s: one number for all regions of a scan
    if found < 0:
        raise InputError(
            f"the scan is {-found:.4g} h before the injection; correct injected or scanned"
        )
    return found


def _middle_s(image: PetImage, moments: dict[str, Any]) -> float:
    """Seconds from the start of the scan to the middle of a frame; 0 if the file does not say."""
    stated = image.header.frame_reference_s
    if stated:
        return stated
    duration = moments["frame_duration_s"]
    return float(duration) / 2 if duration else 0.0
