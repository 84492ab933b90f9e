"""Find missed vessels or nuclei in a small area by the step's own method with a lower threshold.

    outline ─► preview of the step there, looser and looser ─► what no object covers ─► offered

What is found is offered as corrections; nothing is recorded before the reader accepts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import shapely
from scipy import ndimage

from napari_mosaik.annotate import Area, area_of_pixels
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import STAINING
from napari_mosaik.core.corrections import OBJECT_SIZES_UM2, Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.case import Case
from napari_mosaik.segment import NucleiParams, VesselParams
from napari_mosaik.segment.label_editing import ObjectEditor
from napari_mosaik.segment.nuclei_params import NETWORK_PROBABILITY
from napari_mosaik.workflow.preview import preview
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps import maker_of

__all__ = ["find_missed"]

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
            raise InputError("this area is too large to look through; drag around a smaller one")
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
