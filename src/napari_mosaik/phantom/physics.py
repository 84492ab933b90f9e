"""The uptake law of the sample and the scanner that images it.

The law (all terms are fields of the specimen, see ``sample_data/README.md``)::

    delivery  q = AUC · P · S_perfused · exp(-beta · pressure)
    binding   k = kappa · A
    uptake    U = living · (u0 + q · k / (q + k))

``S_perfused`` is the outer perimeter of *perfused* vessels per area (1/µm), ``A`` the antigen
(fraction of nests x fraction of positive cells x antigen per positive cell), ``AUC`` the integral
of the patient's plasma curve up to excision, ``pressure`` rises from the edge of the specimen to
its middle.  Delivery and binding act in series, so that each saturates the other.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.pet_records import HALF_LIFE_H
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.anatomy import Anatomy
from napari_mosaik.phantom.fields import interpolate
from napari_mosaik.phantom.objects import VesselTubes
from napari_mosaik.phantom.presets import CasePlan, Patient, random_generator

__all__ = [
    "ScannerLaw",
    "UptakeLaw",
    "delivered_fraction",
    "patient_activity",
    "perfused_surface",
    "pet_pose",
    "simulate_scan",
    "true_uptake",
]


@dataclass(frozen=True, slots=True)
class UptakeLaw:
    """Constants of the uptake law; uptake is in g/mL (activity over injected activity per mass)."""

    spacing_um: float = 40.0
    delivery: float = 2800.0
    binding: float = 70.0
    background: float = 2.0
    necrotic_background: float = 0.9
    pressure_beta: float = 0.55
    pressure_depth_um: float = 900.0
    diffusion_um: float = 90.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ScannerLaw:
    """The microPET: voxels, point spread, noise and the frame."""

    voxel_um: float = 400.0
    fwhm_um: float = 1500.0
    fine_um: float = 100.0
    noise_share: float = 0.03
    noise_length_um: float = 900.0
    frame_s: float = 3600.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def delivered_fraction(patient: Patient) -> float:
    """Integral of the plasma curve from injection to excision, relative to a common reference.

    The curve is ``f exp(-a t) + (1 - f) exp(-b t)`` with the patient's half-lives; the reference
    of 70 h is close to the mean of both patients, so the value is about 1.
    """
    hours = _hours(patient.injected, datetime.fromisoformat(patient.excised))
    total = 0.0
    for share, half in zip(
        (patient.plasma_share, 1 - patient.plasma_share), patient.plasma_half_h, strict=True
    ):
        rate = math.log(2) / half
        total += share * (1 - math.exp(-rate * hours)) / rate
    return total / 75.0


def _hours(first: str, last: datetime) -> float:
    return (last - datetime.fromisoformat(first)).total_seconds() / 3600.0


def patient_activity(plan: CasePlan) -> float:
    """Activity concentration in Bq/mL at scan start where the uptake is 1 g/mL (SUVbw = 1)."""
    patient = plan.patient
    net_bq = (patient.dose_mbq - patient.residual_mbq) * 1e6
    left = 2.0 ** (-_hours(patient.injected, plan.scanned) / HALF_LIFE_H["Zr-89"])
    return float(net_bq * left / (patient.weight_kg * 1000.0))


def perfused_surface(anatomy: Anatomy, vessels: VesselTubes, law: UptakeLaw) -> FloatArray:
    """Perimeter of perfused vessels per area (rows, columns), 1/µm, after diffusion."""
    lattice = anatomy.lattice(law.spacing_um)
    line = vessels.line_um[vessels.perfused]
    share = np.repeat(vessels.perimeter_um[vessels.perfused] / line.shape[1], line.shape[1])
    index = np.clip(
        (line.reshape(-1, 2) / law.spacing_um).astype(int), 0, np.asarray(lattice.shape) - 1
    )
    total = np.zeros(lattice.shape)
    np.add.at(total, tuple(index.T), share)
    surface = ndimage.gaussian_filter(total, law.diffusion_um / law.spacing_um, mode="constant")
    return np.asarray(surface / law.spacing_um**2, float)


def true_uptake(
    anatomy: Anatomy, vessels: VesselTubes, patient: Patient, law: UptakeLaw | None = None
) -> Raster:
    """Uptake (rows, columns) of the specimen before the scanner's blur, g/mL; 0 off the tissue."""
    law = law or UptakeLaw()
    surface = perfused_surface(anatomy, vessels, law)
    fine = anatomy.sampled("nest", law.spacing_um / 4)
    nests = _block_mean((fine > 0).astype(float), 4, surface.shape)
    necrosis = anatomy.sampled("necrosis", law.spacing_um)
    antigen = nests * anatomy.sampled("caix_fraction", law.spacing_um)
    antigen = antigen * anatomy.sampled("caix_level", law.spacing_um) * (1 - necrosis)
    depth = np.maximum(anatomy.sampled("outline", law.spacing_um), 0.0)
    pressure = 1.0 - np.exp(-depth / law.pressure_depth_um)
    delivery = delivered_fraction(patient) * law.delivery * surface
    delivery = delivery * np.exp(-law.pressure_beta * pressure)
    binding = law.binding * antigen
    bound = delivery * binding / (delivery + binding + 1e-12)
    background = law.background + (law.necrotic_background - law.background) * necrosis
    living = np.clip(0.5 + anatomy.sampled("tissue", law.spacing_um) / law.spacing_um, 0.0, 1.0)
    return Raster(living * (background + bound), anatomy.lattice(law.spacing_um), "g/mL")


def _block_mean(values: FloatArray, factor: int, shape: tuple[int, ...]) -> FloatArray:
    padded = np.pad(
        values, [(0, n * factor - v) for n, v in zip(shape, values.shape, strict=True)], mode="edge"
    )
    blocks = padded.reshape(shape[0], factor, shape[1], factor)
    return np.asarray(blocks.mean(axis=(1, 3)), float)


def pet_pose(plan: CasePlan, anatomy: Anatomy, scanner: ScannerLaw) -> tuple[Lattice, Transform]:
    """The voxels of the PET and the true transform from the PET to the CD34 section.

    PET is acquired of unfixed tissue, which is larger than the section.
    """
    pose = plan.poses["pet"]
    room = max(anatomy.extent_um) / pose.scale + 6.0 * scanner.fwhm_um / 2.3548 - 1000.0
    count = math.ceil(room / scanner.voxel_um)
    lattice = Lattice("pet", (count, count), (scanner.voxel_um, scanner.voxel_um))
    middle = np.asarray(lattice.extent_um) / 2 + np.array([0.6, -0.8]) * scanner.voxel_um
    target = anatomy.outline_um.mean(axis=0)
    transform = Transform.similarity(
        "pet",
        "cd34",
        angle_deg=pose.angle_deg,
        scale=pose.scale,
        shift_um=tuple(target - middle),
        about_um=tuple(middle),
    )
    return lattice, transform


def simulate_scan(
    uptake: Raster,
    lattice: Lattice,
    transform: Transform,
    plan: CasePlan,
    seed: int,
    scanner: ScannerLaw | None = None,
) -> tuple[Raster, NDArray[np.float64]]:
    """The PET image (rows, columns) of a true uptake, Bq/mL at scan start, and its noise."""
    scanner = scanner or ScannerLaw()
    factor = round(scanner.voxel_um / scanner.fine_um)
    fine = lattice.resized(scanner.fine_um)
    points = transform.apply(fine.centres_um()).reshape(-1, 2)
    spacing = uptake.lattice.spacing_um[0]
    sampled = interpolate(np.pad(uptake.values, 1), spacing, points + spacing).reshape(fine.shape)
    sigma = scanner.fwhm_um / (2.0 * math.sqrt(2.0 * math.log(2.0))) / scanner.fine_um
    blurred = ndimage.gaussian_filter(sampled, sigma, mode="constant", truncate=5.0)
    voxels = _block_mean(blurred, factor, lattice.shape) * patient_activity(plan)
    noise = _noise(plan, seed, voxels, scanner)
    return Raster(np.maximum(voxels + noise, 0.0), lattice, "Bq/mL"), noise


def _noise(plan: CasePlan, seed: int, voxels: FloatArray, scanner: ScannerLaw) -> FloatArray:
    """Noise of a reconstructed image: correlated, its variance growing with the signal."""
    rng = random_generator(seed, plan.name, 9)
    sigma = scanner.noise_length_um / 2.3548 / scanner.voxel_um
    white = ndimage.gaussian_filter(rng.standard_normal(voxels.shape), sigma, mode="wrap")
    white = white / white.std()
    top = float(np.percentile(voxels, 99))
    return np.asarray(scanner.noise_share * np.sqrt(np.maximum(voxels, 0) * top) * white, float)
