"""What a click or an outline on a slide picks: a stain vector, a predicted region, missed objects.

area on CD34 ─► its pixels ─► `segment.stain_vectors` ─► settings with stains="manual"
place on H&E ─► map of the tissue classes ─► connected region ─► an outline along its pixels
outline ─► preview of the step there, looser and looser ─► what no object covers ─► offered

Missed vessels or nuclei are offered as corrections; nothing is recorded before the reader accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_mosaik.annotate.brush import Area
from napari_mosaik.annotate.pixel_outline import area_of_pixels, region_of_code
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import CLASS_NAMES, CLASSES, STAINING, VESSELS
from napari_mosaik.core.corrections import OBJECT_SIZES_UM2, Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.segment import NucleiParams, VesselParams
from napari_mosaik.segment.label_editing import ObjectEditor
from napari_mosaik.segment.nuclei_params import NETWORK_PROBABILITY
from napari_mosaik.segment.stain_vectors import (
    HDabStain,
    PickedStain,
    StainVector,
    check_apart,
    pick_stain,
    ruifrok_stains,
    stain_colour,
)
from napari_mosaik.workflow.preview import preview
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps import maker_of

__all__ = [
    "CLICK_UM",
    "MAX_PICK_UM",
    "UNTIL_RUN",
    "Picked",
    "VesselParams",
    "find_missed",
    "pick_vessel_stain",
    "predicted_region",
    "stain_colour",
    "stains_in_use",
]

UNTIL_RUN: Final = "Ruifrok and Johnston's until the vessel step has run"
CLICK_UM: Final = 5.0
"""Edge of the square around a click, µm: about the size of a nucleus or a vessel wall."""
MAX_PICK_UM: Final = 500.0
"""Largest extent of an area, µm: a larger one does not show one pure stain."""
_MIN_PX: Final = 5
_MAX_PX: Final = 1024
_DECIMALS: Final = 3
"""Decimals of a vector in the form; 0.0005 is 0.03 degrees."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A picked stain, the resulting settings, and the source of the other stain."""

    params: VesselParams
    picked: PickedStain
    other: str


def pick_vessel_stain(
    case: Case, stain: HDabStain, place_um: ArrayLike, params: VesselParams
) -> Picked:
    """Settings of the vessel step in which one stain has the colour of an area of the CD34 slide.

    Parameters
    ----------
    case
        The case.
    stain
        "haematoxylin" or "dab".
    place_um
        (n, 2) row and column in µm of the CD34 slide: a path around the area, or one position,
        which means a square of `CLICK_UM` around it.
    params
        The current settings.

    Returns
    -------
    Picked
        With ``stains="manual"``.  The other vector is kept if it was set manually; if the stains
        were estimated from the slide, it is that of the last result.

    Raises
    ------
    InputError
        The area is too large, lies outside the slide or does not show the stain (see `pick_stain`),
        or both stains would have nearly the same colour.
    """
    with case.slide("cd34") as slide:
        picked = pick_stain(_pixels(slide, np.asarray(place_um, float).reshape(-1, 2)), stain)
    vectors, source = stains_in_use(case, params)
    red, green, blue = (round(float(v), _DECIMALS) for v in picked.vector)
    vectors[stain] = (red, green, blue)
    check_apart(vectors["haematoxylin"], vectors["dab"])
    changed = params.model_copy(
        update={
            "stains": "manual",
            "haematoxylin_vector": vectors["haematoxylin"],
            "dab_vector": vectors["dab"],
        }
    )
    return Picked(changed, picked, source)


def stains_in_use(case: Case, params: VesselParams) -> tuple[dict[str, StainVector], str]:
    """The OD vectors (3) of "haematoxylin" and "dab" that settings lead to, and their source.

    Vectors estimated from the slide are those of the last result; those of Ruifrok and Johnston
    until there is one.
    """
    if params.stains == "manual":
        given = {"haematoxylin": params.haematoxylin_vector, "dab": params.dab_vector}
        return given, "set manually"
    if params.stains == "slide" and case.store.origin(VESSELS) is not None:
        known = (case.store.record(VESSELS).get(STAINING) or {}).get("stains") or {}
        if known.get("source") == "slide":
            own = {name: _rounded(known[name]) for name in ("haematoxylin", "dab")}
            return own, "estimated from this slide"
    usual = ruifrok_stains()
    vectors = {"haematoxylin": _rounded(usual.haematoxylin), "dab": _rounded(usual.dab)}
    until_then = params.stains == "slide" and case.store.origin(VESSELS) is None
    return vectors, UNTIL_RUN if until_then else "Ruifrok and Johnston's"


def _rounded(vector: ArrayLike) -> StainVector:
    red, green, blue = (round(float(v), _DECIMALS) for v in np.asarray(vector, float))
    return red, green, blue


def _pixels(slide: Slide, path_um: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The pixels within a path on the slide: 8-bit levels (n, 3)."""
    import shapely

    native = max(slide.lattice.spacing_um)
    if len(path_um) < 3:
        half = max(CLICK_UM, _MIN_PX * native) / 2
        (row, column), area = path_um[0], None
        low, size = np.array([row - half, column - half]), np.array([2 * half, 2 * half])
    else:
        area = shapely.make_valid(shapely.Polygon(path_um[:, ::-1]))
        low, size = path_um.min(axis=0), np.ptp(path_um, axis=0)
    if size.max() > MAX_PICK_UM:
        raise InputError(
            f"this area is {size.max():.0f} µm wide; drag around a pure area of at most "
            f"{MAX_PICK_UM:.0f} µm, such as one nucleus or a piece of vessel wall"
        )
    spacing_um = max(native, float(size.max()) / _MAX_PX)
    size = np.maximum(size, spacing_um)
    read = slide.read((float(low[0]), float(low[1])), (float(size[0]), float(size[1])), spacing_um)
    rgb = np.asarray(read.values, np.uint8)
    if area is None:
        return rgb.reshape(-1, 3)
    parts = [part for part in shapely.get_parts(area) if isinstance(part, shapely.Polygon)]
    shapes = [AnnotatedShape(str(i), "area", part) for i, part in enumerate(parts)]
    return rgb[rasterise(shapes, read.lattice, {"area": 1}) > 0]


def predicted_region(case: Case, at_um: tuple[float, float]) -> tuple[str, Area]:
    """The class at a position of the H&E slide, and the outline of its connected region.

    Parameters
    ----------
    case
        The case.
    at_um
        Row and column in µm of the H&E slide.

    Returns
    -------
    tuple of str and Area
        The name of the class, and the area in µm that covers exactly the pixels of the map that are
        connected by their sides.

    Raises
    ------
    InputError
        There is no map of the tissue classes, or no class at that position.
    """
    if case.store.origin(CLASSES) is None:
        raise InputError(
            f"case {case.name} has no map of the tissue classes yet; run the step 'Tissue classes'"
        )
    classes = case.store.read(CLASSES)
    row, column = np.rint(classes.lattice.to_index([at_um])[0]).astype(int)
    codes = classes.array()
    found = region_of_code(codes, (int(row), int(column)))
    if found is None or not codes[row, column]:
        raise InputError("the map of the tissue classes has no class there; click a coloured area")
    mask, (top, left) = found
    part = classes.lattice.crop(slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1]))
    area = area_of_pixels(mask, part)
    assert area is not None  # the pixel itself is in it
    names = {**CLASS_NAMES, **classes.names}
    return names[int(codes[row, column])], area


# --- missed objects -------------------------------------------------------------------------------
_SHARES: Final = (0.75, 0.5, 0.25)
"""Thresholds that are tried, as shares of the one of the run."""
_COVERED: Final = 0.3
"""Largest share of a found object that may lie on objects that are there already."""


def find_missed(
    case: Case,
    segmented: Artifact[LabelImage],
    editor: ObjectEditor,
    area: Area,
    stop: Callable[[], bool] = lambda: False,
) -> list[Correction]:
    """Objects within an area that the segmentation missed, as corrections that would add them.

    The highest threshold at which anything is found counts.

    Parameters
    ----------
    case, segmented
        The case, and the segmentation: labels (rows, columns).
    editor
        The objects with all corrections.
    area
        Where to look, x = column and y = row in µm of the section.
    stop
        Asked meanwhile; True cancels.

    Raises
    ------
    InputError
        Nothing is found, the area is too large, or the method has no threshold.
    """
    step = maker_of(segmented)
    left, top, right, bottom = area.bounds
    region = ((top, left), (bottom - top, right - left))
    for params in _looser(case, segmented, read_recipe(case.root)[step.name]):
        found = preview(case, step, params, region, stop)
        if not found.whole:
            raise InputError("this area is too large to search; drag around a smaller one")
        labels = found.results[segmented]
        assert isinstance(labels, LabelImage)
        offered = [one for one in _areas(labels, area) if _is_new(editor, one)]
        if offered:
            return [Correction("add", area_wkt=shapely.to_wkt(one, 3)) for one in offered]
    raise InputError(
        f"nothing more is found here, not even at {_SHARES[-1]:.0%} of the threshold; draw the "
        "outline with 'Add missed object'"
    )


def _looser(case: Case, segmented: Artifact[LabelImage], params: Params) -> Iterator[Params]:
    """The settings of the run with lower and lower thresholds."""
    for share in _SHARES:
        if isinstance(params, NucleiParams):
            own = params.probability or NETWORK_PROBABILITY
            yield params.model_copy(
                update={
                    "probability": own * share,
                    "sensitivity": params.sensitivity / share,
                    "min_threshold_od": params.min_threshold_od * share,
                    "min_area_um2": params.min_area_um2 * share,
                }
            )
        elif isinstance(params, VesselParams) and params.method == "dab":
            staining = case.store.record(segmented).get(STAINING) or {}
            used = float(staining.get("threshold_od") or params.dab_od)
            yield params.model_copy(
                update={
                    "threshold": "fixed",
                    "dab_od": used * share,
                    "min_area_um2": params.min_area_um2 * share,
                }
            )
        else:
            raise InputError("this method has no threshold; draw the outline of the missed object")


def _areas(labels: LabelImage, area: Area) -> Iterator[Area]:
    """The outlines of the objects whose centroid lies in an area."""
    values = labels.array()
    for number, window in enumerate(ndimage.find_objects(values), 1):
        if window is None:
            continue
        outline = area_of_pixels(values[window] == number, labels.lattice.crop(*window))
        if outline is not None and outline.centroid.within(area):
            yield outline


def _is_new(editor: ObjectEditor, outline: Area) -> bool:
    """Whether an outline has the size of an object and no other object covers much of it."""
    smallest, largest = OBJECT_SIZES_UM2[editor.what]
    if not smallest <= outline.area <= largest:
        return False
    window, drawn = editor.drawn(outline)
    covered = np.count_nonzero(drawn & (editor[window] > 0))
    return bool(covered <= _COVERED * np.count_nonzero(drawn))
