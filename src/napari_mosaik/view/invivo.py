"""Values in vivo and their measurement as texts and pictures; no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.pet_volume import PetVolume
from napari_mosaik.uptake import VoiMeasurement
from napari_mosaik.view.formatting import count, number

__all__ = ["SliceView", "invivo_line", "invivo_rows", "measured_lines"]

SHOWN_MM = 60.0
"""A picture shows so much on each side of the sphere, mm: never the whole body."""


def invivo_rows(values: Sequence[InvivoValue]) -> list[tuple[str, ...]]:
    """Time, region, mean, standard error and volume of each value, as a table shows them."""
    return [
        (
            number(one.time_h, "h", digits=4),
            one.region,
            number(one.mean),
            f"± {number(one.sd, digits=2)}",
            number(one.volume_ml, "mL", missing=""),
        )
        for one in values
    ]


def invivo_line(values: Sequence[InvivoValue]) -> str:
    """How many values of how many scans there are, and their unit."""
    if not values:
        return "no scan of the patient yet"
    scans = len({one.time_h for one in values})
    return f"{count(len(values), 'value')} of {count(scans, 'scan')} · {values[0].unit}"


def measured_lines(found: VoiMeasurement) -> list[str]:
    """A measurement in words: value, error, recovery."""
    value = found.value
    applied = "the value was divided by it" if found.recovered else "not applied"
    return [
        f"{value.label}: {number(value.mean)} ± {number(value.sd, digits=2)} {value.unit}",
        f"{count(found.n_voxels, 'voxel')}, {number(value.volume_ml, 'mL')}; spread of the voxels "
        f"{number(value.voxel_sd, digits=2)}; noise of the mean {number(found.noise, digits=2)}",
        f"A uniform sphere of {number(found.radius_mm, 'mm')} radius is recovered by "
        f"{found.recovery_mean:.0%} (its centre by {found.recovery_centre:.0%}): {applied}",
    ]


@dataclass(slots=True, eq=False)
class SliceView:
    """A transaxial slice of a volume, cropped around a sphere, as a grey picture.

    Parameters
    ----------
    volume
        The series.
    centre
        Slice, row and column of the centre of the sphere; fractions count.
    radius_mm
        Radius of the sphere, mm.
    mask
        Voxels (slices, rows, columns) of a mask that takes the place of the sphere, if any.
    """

    volume: PetVolume
    centre: tuple[float, float, float]
    radius_mm: float = 10.0
    top: float = 1.0
    mask: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, volume: PetVolume) -> SliceView:
        """The middle of a volume."""
        slices, rows, columns = volume.grid.shape
        view = cls(volume, (slices // 2, rows // 2, columns // 2))
        parts = [np.asarray(image.raster.values)[::2, ::2] for image in volume.images[::2]]
        view.top = float(np.nanpercentile(np.concatenate([np.ravel(one) for one in parts]), 99.8))
        return view

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that are shown."""
        _, high, wide = self.volume.grid.spacing_mm
        _, rows, columns = self.volume.grid.shape
        out = []
        for middle, size_mm, total in zip(
            self.centre[1:], (high, wide), (rows, columns), strict=True
        ):
            half = (SHOWN_MM + self.radius_mm) / size_mm
            out.append(slice(max(round(middle - half), 0), min(round(middle + half) + 1, total)))
        return out[0], out[1]

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        """Centre of the sphere in the patient, mm."""
        (found,) = self.volume.grid.positions_mm(np.asarray([self.centre]))
        return float(found[0]), float(found[1]), float(found[2])

    def grey(self) -> NDArray[np.uint8]:
        """Grey levels (rows, columns) of the slice, 0 to 255: dark where the SUV is high."""
        values: FloatArray = np.asarray(
            self.volume.images[round(self.centre[0])].raster.values, float
        )[self.window]
        share = np.clip(np.nan_to_num(values) / max(self.top, 1e-30), 0, 1)
        return np.asarray(255 - np.rint(255 * share), np.uint8)

    def masked(self) -> NDArray[np.bool_] | None:
        """Pixels (rows, columns) of the picture on the edge of the mask; None without a mask."""
        if self.mask is None:
            return None
        from scipy.ndimage import binary_erosion

        inside = self.mask[round(self.centre[0])]
        return np.asarray((inside & ~binary_erosion(inside))[self.window], bool)

    def show_mask(self, mask: NDArray[np.bool_]) -> None:
        """Let a mask (s, r, c) of voxels take the place of the sphere, and look at its middle."""
        self.mask = mask
        places = np.argwhere(mask)
        middle = places.mean(axis=0)
        sizes = np.ptp(places[:, 1:], axis=0) * self.volume.grid.spacing_mm[1:] / 2
        self.radius_mm = float(np.clip(sizes.max(), 0.1, SHOWN_MM))  # never the whole body
        self.centre = (float(round(middle[0])), float(middle[1]), float(middle[2]))

    def circle(self) -> tuple[float, float, float, float]:
        """Centre (row, column) and half axes of the sphere's cut in pixels of the picture."""
        _, high, wide = self.volume.grid.spacing_mm
        rows, columns = self.window
        return (
            self.centre[1] - rows.start + 0.5,
            self.centre[2] - columns.start + 0.5,
            self.radius_mm / high,
            self.radius_mm / wide,
        )

    def moved(self, row: float, column: float) -> None:
        """Put the centre to a place of the picture, in its pixels."""
        rows, columns = self.window
        _, last_row, last_column = (size - 1 for size in self.volume.grid.shape)
        self.centre = (
            self.centre[0],
            float(np.clip(rows.start + row - 0.5, 0, last_row)),
            float(np.clip(columns.start + column - 0.5, 0, last_column)),
        )
