"""The same square of tissue in each stain, turned into the reference section's frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import Lattice, MosaikError, Raster, Transform
from napari_mosaik.core.catalogue import REFERENCE, STAINS
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import transform_to_reference

__all__ = ["CROP_PX", "crop_of", "crops_of"]

CROP_PX = 200


def crops_of(
    case: Case, centre_um: tuple[float, float], size_um: float
) -> dict[str, NDArray[Any] | None]:
    """Pixels (`CROP_PX`, `CROP_PX`, 3) of each stain around a position on the reference section.

    None for a stain that is missing, cannot be read, or is not aligned yet.
    """
    return {stain: crop_of(case, stain, centre_um, size_um) for stain in STAINS}


def crop_of(
    case: Case, stain: str, centre_um: tuple[float, float], size_um: float
) -> NDArray[Any] | None:
    """The crop of one stain."""
    if stain not in case.file.slides:
        return None
    try:
        transform = transform_to_reference(case, stain)
        if transform is None:
            if stain != REFERENCE:
                return None
            transform = Transform.identity(stain, REFERENCE)
        return _read(case, stain, transform, centre_um, size_um)
    except MosaikError:
        return None


def _read(
    case: Case, stain: str, transform: Transform, centre_um: tuple[float, float], size_um: float
) -> NDArray[Any]:
    spacing = size_um / CROP_PX
    top_left = (centre_um[0] - size_um / 2, centre_um[1] - size_um / 2)
    lattice = Lattice(REFERENCE, (CROP_PX, CROP_PX), (spacing, spacing), top_left)
    half = size_um / 2
    corners = [(centre_um[0] + r, centre_um[1] + c) for r in (-half, half) for c in (-half, half)]
    there = transform.inverse().apply(corners)
    low, high = there.min(axis=0), there.max(axis=0)
    with case.slide(stain) as slide:
        finest = max(slide.lattice.spacing_um)
        wanted = max(finest, spacing / transform.scale)
        size = (float(high[0] - low[0]), float(high[1] - low[1]))
        raster: Raster = slide.read((float(low[0]), float(low[1])), size, wanted)
    turned = raster.onto(lattice, transform, outside=255.0)
    return np.asarray(np.clip(turned.values, 0, 255), np.uint8)
