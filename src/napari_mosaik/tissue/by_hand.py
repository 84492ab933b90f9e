"""The tissue mask with what a reader has added to it and cut from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.painting import rasterise
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = ["mask_by_hand"]

_CODES = {"add": 1, "cut": 2}


def mask_by_hand(
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
