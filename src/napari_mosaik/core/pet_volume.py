"""A PET volume: its slices with their headers, and where the voxels lie in the patient."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.pet_records import PetImage

__all__ = ["PetVolume", "VolumeGrid", "evenly_spaced", "one_unit"]

_SAME_VOXELS = 0.05
"""Grids that nowhere lie farther apart than this fraction of a voxel are the same."""
_HASH_ROUNDS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class VolumeGrid:
    """Voxels (slices, rows, columns) at right angles in the patient.

    Parameters
    ----------
    shape
        Numbers of slices, rows and columns.
    origin_mm
        Centre (3,) of the first voxel in mm: left, posterior, head, as in DICOM.
    steps_mm
        Steps (3, 3) in mm from a voxel to the next slice, row and column, one a row.
    in_patient
        Whether the file says how the voxels lie in the patient; otherwise the first voxel is the
        origin, and columns, rows and slices run along x, y and z.
    reference
        Identifier of the frame of reference in memory; never stored.
    """

    shape: tuple[int, int, int]
    origin_mm: FloatArray
    steps_mm: FloatArray
    in_patient: bool = True
    reference: str = field(default="", repr=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of slices, rows and columns, mm."""
        lengths = np.sqrt((self.steps_mm**2).sum(axis=1))
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(np.abs(np.linalg.det(self.steps_mm))) / 1000

    def positions_mm(self, index: FloatArray) -> FloatArray:
        """Positions (n, 3) in mm of voxel numbers (n, 3): slice, row, column."""
        return np.asarray(self.origin_mm + np.asarray(index, float) @ self.steps_mm, float)

    def index(self, positions_mm: FloatArray) -> FloatArray:
        """Voxel numbers (n, 3), slice, row, column, of positions (n, 3) in mm; fractions count."""
        apart = np.asarray(positions_mm, float) - self.origin_mm
        return np.asarray(apart @ np.linalg.inv(self.steps_mm), float)

    def is_same(self, other: VolumeGrid) -> bool:
        """Whether both have the same voxels: their corners lie at the same places."""
        if self.shape != other.shape or self.in_patient != other.in_patient:
            return False
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1)
        corners = corners.reshape(-1, 3)
        apart = self.positions_mm(corners) - other.positions_mm(corners)
        return bool(np.abs(apart).max() <= _SAME_VOXELS * min(self.spacing_mm))

    def __str__(self) -> str:
        slices, rows, columns = self.shape
        deep, high, wide = self.spacing_mm
        place = " x ".join(f"{part:.4g}" for part in self.origin_mm)
        where = f"from ({place}) mm" if self.in_patient else "of unknown position in the patient"
        return (
            f"{columns} x {rows} x {slices} voxels of {wide:.4g} x {high:.4g} x {deep:.4g} mm "
            f"{where}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class PetVolume:
    """All slices of one time frame, in order, and their grid.

    ``patient_ids`` are identifier and name of the patient as the file states them; they are
    compared in memory and never stored or shown.  ``confirmed`` tells that the user said that this
    is the patient of values with another hash.
    """

    images: tuple[PetImage, ...]
    grid: VolumeGrid
    patient_ids: tuple[str, ...] = field(default=(), repr=False)
    confirmed: bool = False

    @property
    def scanned(self) -> datetime | None:
        """Start of the scan, where the file states it."""
        return self.images[0].header.scanned

    def content(self) -> str:
        """Hash (16 digits) of voxels, grid and start of the scan; nothing of the patient."""
        found = hashlib.blake2b(f"{self.grid}{self.scanned}".encode(), digest_size=8)
        for image in self.images:
            found.update(np.ascontiguousarray(image.raster.values, np.float64).tobytes())
        return found.hexdigest()

    def is_named(self, pseudonym: str) -> bool:
        """Whether the identifier or name of the patient is the pseudonym, but for punctuation."""
        return _plain(pseudonym) in {_plain(text) for text in self.patient_ids}

    def patient_hash(self, salt: str) -> str:
        """Slow hash (12 digits) of the patient's identifier; empty if the file states none."""
        if not self.patient_ids:
            return ""
        key = _plain(self.patient_ids[0]).encode()
        return hashlib.pbkdf2_hmac("sha256", key, salt.encode(), _HASH_ROUNDS).hex()[:12]

    def source(self, salt: str) -> str:
        """What is stored of the series: "series:HASH", with "patient:HASH" if it names one."""
        patient = self.patient_hash(salt)
        named = f" patient:{patient}" + (" confirmed" if self.confirmed else "")
        return f"series:{self.content()}" + (named if patient else "")


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def one_unit(images: tuple[PetImage, ...], name: str) -> None:
    """Raise `InputError` if the slices have different units."""
    units = sorted({str(image.header.unit) for image in images})
    if len(units) > 1:
        raise InputError(f"the slices of {name} have different units: {', '.join(units)}")


def evenly_spaced(positions_mm: FloatArray, normal: FloatArray, name: str) -> FloatArray:
    """The step (3,) in mm between slices whose first voxels lie at positions (n, 3) in mm.

    Raises
    ------
    InputError
        If there is one slice only, if slices are missing, or if they are shifted sideways.
    """
    if len(positions_mm) < 2:
        raise InputError(f"{name} holds one slice; a volume needs the whole series")
    along = np.diff(positions_mm @ normal)
    usual = float(np.median(along))
    wrong = np.flatnonzero(np.abs(along - usual) > 0.02 * usual + 0.01)
    if wrong.size:
        at = int(wrong[0])
        raise InputError(
            f"{name}: slices {at + 1} and {at + 2} lie {along[at]:.4g} mm apart, the others "
            f"{usual:.4g} mm: slices are missing, or the series has gaps"
        )
    step = (positions_mm[-1] - positions_mm[0]) / (len(positions_mm) - 1)
    sideways = step - (step @ normal) * normal
    if np.abs(sideways).max() > 0.02 * usual + 0.01:
        raise InputError(
            f"{name}: each slice is shifted sideways by {np.abs(sideways).max():.3g} mm"
        )
    return np.asarray(step, float)
