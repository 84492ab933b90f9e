"""Stain vectors picked from the CD34 slide of a case, as settings of the vessel step.

place on the slide ─► its pixels ─► `segment.stain_vectors` ─► settings with stains="manual"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.catalogue import STAINING, VESSELS
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.segment import VesselParams
from napari_mosaik.segment.stain_vectors import (
    HDabStain,
    PickedStain,
    StainVector,
    check_apart,
    pick_stain,
    ruifrok_stains,
    stain_colour,
)

__all__ = [
    "CLICK_UM",
    "MOST_UM",
    "UNTIL_RUN",
    "Picked",
    "VesselParams",
    "pick_vessel_stain",
    "stain_colour",
    "stains_in_use",
]

UNTIL_RUN: Final = "the usual ones until the vessels were run"
CLICK_UM: Final = 5.0
"""Edge of the square that a click stands for, about the size of a nucleus or a wall."""
MOST_UM: Final = 500.0
"""A place that is larger along either axis is no pure place any more."""
_LEAST_PX: Final = 5
_MOST_PX: Final = 1024
_DECIMALS: Final = 3
"""As the form shows a vector; 0.0005 is 0.03 degrees."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A stain that was picked, the settings that follow, and where the other stain comes from."""

    params: VesselParams
    picked: PickedStain
    other: str


def pick_vessel_stain(
    case: Case, stain: HDabStain, place_um: ArrayLike, params: VesselParams
) -> Picked:
    """Settings of the vessels in which one stain has the colour of a place on the CD34 slide.

    Parameters
    ----------
    case
        The case.
    stain
        "haematoxylin" or "dab".
    place_um
        (n, 2) row and column in µm of the CD34 slide: a path around the place, or one position,
        which stands for a square of `CLICK_UM` around it.
    params
        The present settings.

    Returns
    -------
    Picked
        With ``stains="manual"``.  The other vector stays as it is given; where the stains were the
        slide's own until now, it is the slide's own one of the last result.

    Raises
    ------
    InputError
        The place is too large, outside the slide, or does not show the stain (see `pick_stain`),
        or both stains would have nearly the same colour.
    """
    with case.slide("cd34") as slide:
        found = pick_stain(_pixels(slide, np.asarray(place_um, float).reshape(-1, 2)), stain)
    vectors, source = stains_in_use(case, params)
    red, green, blue = (round(float(v), _DECIMALS) for v in found.vector)
    vectors[stain] = (red, green, blue)
    check_apart(vectors["haematoxylin"], vectors["dab"])
    changed = params.model_copy(
        update={
            "stains": "manual",
            "haematoxylin_vector": vectors["haematoxylin"],
            "dab_vector": vectors["dab"],
        }
    )
    return Picked(changed, found, source)


def stains_in_use(case: Case, params: VesselParams) -> tuple[dict[str, StainVector], str]:
    """The vectors of "haematoxylin" and "dab" that settings stand for, and where they come from.

    The slide's own are those of the last result; the usual ones where there is none.
    """
    if params.stains == "manual":
        given = {"haematoxylin": params.haematoxylin_vector, "dab": params.dab_vector}
        return given, "given by hand"
    if params.stains == "slide" and case.store.origin(VESSELS) is not None:
        known = (case.store.record(VESSELS).get(STAINING) or {}).get("stains") or {}
        if known.get("source") == "slide":
            own = {name: _rounded(known[name]) for name in ("haematoxylin", "dab")}
            return own, "the slide's own"
    usual = ruifrok_stains()
    vectors = {"haematoxylin": _rounded(usual.haematoxylin), "dab": _rounded(usual.dab)}
    until_then = params.stains == "slide" and case.store.origin(VESSELS) is None
    return vectors, UNTIL_RUN if until_then else "Ruifrok and Johnston's"


def _rounded(vector: ArrayLike) -> StainVector:
    red, green, blue = (round(float(v), _DECIMALS) for v in np.asarray(vector, float))
    return red, green, blue


def _pixels(slide: Slide, path_um: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The pixels within a path on the slide, (n, 3)."""
    import shapely

    native = max(slide.lattice.spacing_um)
    if len(path_um) < 3:
        half = max(CLICK_UM, _LEAST_PX * native) / 2
        (row, column), area = path_um[0], None
        low, size = np.array([row - half, column - half]), np.array([2 * half, 2 * half])
    else:
        area = shapely.make_valid(shapely.Polygon(path_um[:, ::-1]))
        low, size = path_um.min(axis=0), np.ptp(path_um, axis=0)
    if size.max() > MOST_UM:
        raise InputError(
            f"this place is {size.max():.0f} µm wide; drag around a pure place of at most "
            f"{MOST_UM:.0f} µm, such as one nucleus or one piece of wall"
        )
    spacing_um = max(native, float(size.max()) / _MOST_PX)
    size = np.maximum(size, spacing_um)
    read = slide.read((float(low[0]), float(low[1])), (float(size[0]), float(size[1])), spacing_um)
    rgb = np.asarray(read.values, np.uint8)
    if area is None:
        return rgb.reshape(-1, 3)
    parts = [part for part in shapely.get_parts(area) if isinstance(part, shapely.Polygon)]
    shapes = [AnnotatedShape(str(i), "place", part) for i, part in enumerate(parts)]
    return rgb[rasterise(shapes, read.lattice, {"place": 1}) > 0]
