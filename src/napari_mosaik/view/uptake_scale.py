"""The colour scale of the uptake: one for the PET, its tiles and their prediction."""

from __future__ import annotations

import numpy as np

from napari_mosaik.core import FloatArray
from napari_mosaik.core.catalogue import PREDICTION, REFERENCE, SUV, TISSUE, UPTAKE
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.maps import common_limits, pet_layer
from napari_mosaik.view.spec import LayerSpec

__all__ = ["pet_layers", "uptake_limits", "voxels_over_tissue"]

_FEWEST_VOXELS = 4
"""With fewer voxels over the tissue, the scale is that of the whole slice."""


def voxels_over_tissue(results: CaseResults) -> FloatArray | None:
    """SUV of the voxels whose centre lies on the tissue of the reference section, (n_voxels,).

    None before the PET is registered, or where fewer than four voxels lie on the tissue.
    """
    suv, mask, transform = (
        results.get(SUV),
        results.get(TISSUE[REFERENCE]),
        results.transform("pet"),
    )
    if suv is None or mask is None or transform is None:
        return None
    on_pet = mask.onto(suv.lattice, transform.inverse())
    over = np.nan_to_num(np.asarray(on_pet.values, float)) > 0.5
    values = np.asarray(suv.values, float)[over]
    values = values[np.isfinite(values)]
    return values if values.size >= _FEWEST_VOXELS else None


def uptake_limits(results: CaseResults) -> tuple[float, float] | None:
    """Limits of the colour scale of every map of the uptake, in the unit of the SUV.

    The 2nd and 98th percentile of the voxels over the tissue, measured and predicted tiles; of the
    whole slice before the PET is registered; None without any of them.
    """
    suv, voxels = results.get(SUV), voxels_over_tissue(results)
    shown = [] if voxels is None else [voxels]
    for artifact in (UPTAKE, PREDICTION):
        table, values = results.get(artifact), results.column(artifact, "suv")
        if values is not None and table is not None and table.unit("suv") == results.unit:
            shown.append(values)
    if not shown and suv is not None:
        shown.append(np.asarray(suv.values, float))
    return common_limits(*shown) if shown else None


def pet_layers(results: CaseResults) -> list[LayerSpec]:
    """The PET slice on the reference section, or in its own space before registration."""
    suv, limits = results.get(SUV), uptake_limits(results)
    if suv is None:
        return []
    over = voxels_over_tissue(results) is not None
    note = "" if over else "scale of the whole slice: the PET is not registered to tissue"
    return [pet_layer(suv, results.transform("pet"), limits=limits, note=note)]
