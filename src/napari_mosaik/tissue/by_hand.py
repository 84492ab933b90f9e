"""Tissue and quality mask with what a reader has changed in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.tissue.artefacts import ARTEFACT_NAMES

__all__ = ["ManualArtefacts", "apply_artefact_corrections", "apply_mask_corrections"]

_CODES = {"add": 1, "cut": 2}
_CLEARED = 255


@dataclass(frozen=True, slots=True, eq=False)
class ManualArtefacts:
    """A quality mask after the corrections of a reader.

    Parameters
    ----------
    mask
        Codes of `ARTEFACT_NAMES`, (rows, columns).
    flagged, cleared
        (rows, columns) True where a reader flagged a place as bad, or took a flag away.
    """

    mask: Raster
    flagged: NDArray[np.bool_]
    cleared: NDArray[np.bool_]

    def areas_mm2(self) -> dict[str, float]:
        """What a reader flagged, by kind, and what a reader cleared ("not bad"), mm²."""
        pixel_mm2 = self.mask.lattice.sample_area_um2 / 1e6
        codes = np.asarray(self.mask.values)[self.flagged]
        counts = np.bincount(codes, minlength=len(ARTEFACT_NAMES))
        areas = {name: float(counts[code] * pixel_mm2) for code, name in ARTEFACT_NAMES.items()}
        del areas[ARTEFACT_NAMES[0]]
        return {**areas, "not bad": float(self.cleared.sum() * pixel_mm2)}


def apply_artefact_corrections(
    quality: Raster, corrections: Iterable[Correction]
) -> ManualArtefacts:
    """Flag places as bad and take flags away; where areas overlap, the later one counts.

    Parameters
    ----------
    quality
        (rows, columns) codes of `ARTEFACT_NAMES`, as the program found them.
    corrections
        "flag" with the kind as its word, and "clear", each with its area in µm of the mask's
        frame, oldest first.

    Returns
    -------
    QualityByHand
        ``cleared`` holds only places that the program had flagged.

    Raises
    ------
    InputError
        An area cannot be read, or a kind is not known; the message holds it.
    """
    codes = {name: code for code, name in ARTEFACT_NAMES.items() if code} | {"": _CLEARED}
    shapes = []
    for i, one in enumerate(corrections):
        word = one.word if one.kind == "flag" else ""
        if word not in codes:
            known = ", ".join(name for name in codes if name)
            raise InputError(f"'{word}' is no kind of bad place; use one of: {known}")
        shapes.append(AnnotatedShape(str(i), word, _area(one)))
    found, drawn = np.asarray(quality.values), rasterise(shapes, quality.lattice, codes)
    cleared = drawn == _CLEARED
    values = np.where(drawn == 0, found, np.where(cleared, 0, drawn)).astype(np.uint8)
    mask = Raster(values, quality.lattice)
    return ManualArtefacts(mask, (drawn > 0) & ~cleared, cleared & (found > 0))


def apply_mask_corrections(
    mask: Raster, corrections: Iterable[Correction], sound: NDArray[np.bool_] | None = None
) -> Raster:
    """Add and cut areas; where they overlap, the later one counts.

    Parameters
    ----------
    mask
        (rows, columns) boolean; True is tissue.
    corrections
        "add" and "cut" with their area in µm of the mask's frame, oldest first.
    sound
        (rows, columns) False where the slide is damaged; nothing is tissue there, by hand or not.

    Raises
    ------
    InputError
        An area cannot be read; the message holds it.
    """
    shapes = [AnnotatedShape(str(i), c.kind, _area(c)) for i, c in enumerate(corrections)]
    codes = rasterise(shapes, mask.lattice, _CODES)
    values = np.where(codes == 0, np.asarray(mask.values, bool), codes == _CODES["add"])
    if sound is not None:
        values &= sound
    return Raster(values, mask.lattice)


def _area(correction: Correction) -> shapely.Polygon | shapely.MultiPolygon:
    try:
        area = shapely.from_wkt(correction.area_wkt)
    except shapely.GEOSException as error:
        raise InputError(f"'{correction.area_wkt[:60]}…' is no area: {error}") from error
    if not isinstance(area, shapely.Polygon | shapely.MultiPolygon):
        raise InputError(f"a {area.geom_type} is no area; take the correction back")
    return area
