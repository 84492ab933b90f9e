"""Maps of parameters, uptake and clusters as layers, each with its legend."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import InputError, Lattice, Raster, TileGrid, palette
from napari_mosaik.core.catalogue import (
    CLUSTER_NAMES,
    CLUSTERS,
    INPUT_SPREAD,
    MAPS,
    PREDICTION,
    SUV,
    UPTAKE,
    UPTAKE_SENSITIVITY,
)
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.palette import code_colours
from napari_mosaik.view.formatting import heading, title_of, uptake_name
from napari_mosaik.view.spec import LayerSpec, Legend, placement

__all__ = [
    "DIFFERENCE_TITLE",
    "cluster_codes",
    "clusters_layer",
    "common_limits",
    "difference_layer",
    "input_spread_layer",
    "parameter_layer",
    "pet_layer",
    "scalar_layer",
    "sensitivity_layer",
    "uptake_layers",
]

DIFFERENCE_TITLE = "Predicted minus measured"
_HATCH = 12
"""Samples per tile edge in the cluster layer, so that "not testable" can be hatched."""


def parameter_layer(
    raster: Raster,
    name: str,
    *,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    colormap: str = palette.PARAMETER_COLORMAP,
    transform: Transform | None = None,
    visible: bool = True,
    result: str = MAPS.name,
) -> LayerSpec:
    """The map of one parameter, (rows, columns) in *unit* (e.g. µm) or that of the raster.

    *limits* of the colour scale are the 2nd and 98th percentile unless given; NaN is transparent.
    """
    unit = unit or raster.unit
    return scalar_layer(
        raster,
        heading(name),
        colormap,
        limits or common_limits(raster.values),
        unit,
        transform,
        visible=visible,
        result=result,
    )


def cluster_codes(grid: TileGrid, codes: ArrayLike) -> tuple[NDArray[np.uint8], Lattice]:
    """Cluster label codes, (n_tiles,), as a finer image with "not testable" tiles hatched.

    Returns
    -------
    codes
        0 where nothing is drawn; 12 x 12 samples per tile of the grid.
    lattice
        Where they lie.
    """
    codes = np.asarray(codes)
    if codes.shape != (len(grid),):
        raise InputError(f"{codes.shape} cluster codes for {len(grid)} tiles")
    flat = np.zeros(grid.lattice.shape[0] * grid.lattice.shape[1], np.uint8)
    flat[grid.kept] = codes
    fine = np.kron(flat.reshape(grid.lattice.shape), np.ones((_HATCH, _HATCH), np.uint8))
    row, column = np.indices(fine.shape)
    hatched = next(code for code, name in CLUSTER_NAMES.items() if name == "not testable")
    fine[(fine == hatched) & ((row + column) % 4 > 0)] = 0
    spacing = (grid.lattice.spacing_um[0] / _HATCH, grid.lattice.spacing_um[1] / _HATCH)
    shape = (fine.shape[0], fine.shape[1])
    return fine, Lattice(grid.lattice.frame, shape, spacing, grid.lattice.origin_um)


def clusters_layer(
    grid: TileGrid,
    codes: ArrayLike,
    proxy: str,
    *,
    transform: Transform | None = None,
    visible: bool = True,
) -> LayerSpec:
    """Local Moran cluster labels of one parameter, *codes* (n_tiles,); average is transparent."""
    image, lattice = cluster_codes(grid, codes)
    return LayerSpec(
        f"Clusters of {title_of(proxy)}",
        "labels",
        image,
        placement(lattice, transform),
        {"colormap": code_colours(palette.CLUSTER_COLOURS)},
        opacity=0.7,
        visible=visible,
        legend=Legend(
            f"Clusters of {title_of(proxy)}",
            entries=tuple((CLUSTER_NAMES[k], c) for k, c in palette.CLUSTER_COLOURS.items()),
            note="average tiles are not coloured",
        ),
        result=CLUSTERS.name,
        space=lattice.frame,
    )


def uptake_layers(
    measured: Raster | None,
    predicted: Raster | None,
    transform: Transform | None = None,
    *,
    limits: tuple[float, float] | None = None,
) -> list[LayerSpec]:
    """Measured and predicted uptake, (rows, columns) SUV each, on a common colour scale.

    *limits* of the scale are the 2nd and 98th percentile of both unless given.
    """
    given = [raster for raster in (measured, predicted) if raster is not None]
    limits = limits or common_limits(*(raster.values for raster in given))
    named = (("Measured", measured, UPTAKE.name), ("Predicted", predicted, PREDICTION.name))
    return [
        scalar_layer(
            raster,
            f"{word} {uptake_name(raster.unit)}",
            palette.UPTAKE_COLORMAP,
            limits,
            raster.unit,
            transform,
            result=result,
        )
        for word, raster, result in named
        if raster is not None
    ]


def difference_layer(
    measured: Raster, predicted: Raster, transform: Transform | None = None
) -> LayerSpec:
    """Predicted minus measured uptake, (rows, columns) SUV: red is overestimated.

    Raises `InputError` when the two maps differ in unit or lattice.
    """
    if measured.unit != predicted.unit or measured.lattice != predicted.lattice:
        raise InputError("the measured and the predicted map differ in unit or lattice")
    values = np.asarray(predicted.values, float) - np.asarray(measured.values, float)
    reach = max(abs(limit) for limit in common_limits(values))
    return scalar_layer(
        Raster(values, measured.lattice, measured.unit),
        DIFFERENCE_TITLE,
        palette.DIFFERENCE_COLORMAP,
        (-reach, reach),
        measured.unit,
        transform,
        result=PREDICTION.name,
    )


def sensitivity_layer(change: Raster, transform: Transform | None = None) -> LayerSpec:
    """Change of each tile's SUV under a small shift of the PET, (rows, columns)."""
    limits = (0.0, common_limits(change.values)[1])
    return scalar_layer(
        change,
        "Shift sensitivity of the SUV",
        palette.CHANGE_COLORMAP,
        limits,
        change.unit,
        transform,
        result=UPTAKE_SENSITIVITY.name,
    )


def input_spread_layer(spread: Raster, transform: Transform | None = None) -> LayerSpec:
    """SD of the prediction by the errors of its inputs, (rows, columns) SUV."""
    return scalar_layer(
        spread,
        "Spread of the prediction from its inputs",
        palette.UNCERTAINTY_COLORMAP,
        (0.0, common_limits(spread.values)[1]),
        spread.unit,
        transform,
        visible=False,
        result=INPUT_SPREAD.name,
    )


def pet_layer(
    pet: Raster,
    transform: Transform | None = None,
    *,
    limits: tuple[float, float] | None = None,
    visible: bool = True,
    note: str = "",
) -> LayerSpec:
    """The PET slice on its own voxel grid, (rows, columns) SUV; *note* explains its scale."""
    return scalar_layer(
        pet,
        f"PET, {uptake_name(pet.unit)}",
        palette.UPTAKE_COLORMAP,
        limits or common_limits(pet.values),
        pet.unit,
        transform,
        visible=visible,
        result=SUV.name,
        note=note,
    )


def common_limits(*arrays: ArrayLike) -> tuple[float, float]:
    """2nd and 98th percentile of all finite values of arrays of any shape, in their unit.

    (0, 1) when there are none.
    """
    values = [np.asarray(array, float).ravel() for array in arrays]
    pooled = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.empty(0)
    if pooled.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(pooled, (2, 98))
    if high <= low:
        low, high = float(pooled.min()), float(pooled.max())
    if high <= low:
        high = low + max(1e-9, abs(low) * 1e-3)
    return float(low), float(high)


def scalar_layer(
    raster: Raster,
    name: str,
    colormap: str,
    limits: tuple[float, float],
    unit: str,
    transform: Transform | None,
    *,
    visible: bool = True,
    result: str = "",
    note: str = "",
) -> LayerSpec:
    """A map, (rows, columns) of SUV, µm..., with its colour scale; NaN stays transparent."""
    if raster.values.ndim != 2:
        raise InputError(f"{name}: choose one channel of a map with {raster.values.shape[2:]}")
    shown = "" if unit == "1" else unit
    return LayerSpec(
        name,
        "image",
        np.asarray(raster.values, np.float32),
        placement(raster.lattice, transform),
        {"colormap": colormap, "contrast_limits": limits, "interpolation2d": "nearest"},
        opacity=0.85,
        visible=visible,
        legend=Legend(name, shown, colormap=colormap, limits=limits, note=note),
        result=result,
        space=raster.lattice.frame,
    )
