"""One row of parameters per tile: vessels, nuclei, CAIX and tissue classes."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASS_NAMES,
    CLASSES,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    CORRECTED_VESSELS,
    MEASURED_CLASSES,
    PARAMETERS,
    REFERENCE,
    TILES,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.align import transform_of

__all__ = ["TILE_PARAMETERS", "ParameterParams"]


class ParameterParams(Params):
    """Settings of the tile parameters."""

    distance_spacing_um: float = setting(
        4.0,
        "Pixel size for the distance to the nearest vessel.",
        label="Pixel size of distances",
        unit="µm",
        gt=0,
    )
    tumour_cells_only: bool = setting(
        True,
        "Score CAIX in tumour cells only, if a map of neoplastic tissue exists.",
        label="CAIX in tumour cells only",
    )


def _body(inputs: StepContext, params: ParameterParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.features import area_in_tiles
    from napari_mosaik.segment.plausible import column_doubts

    grid, mask = inputs.read(TILES), inputs.read(TISSUE[REFERENCE])
    tissue_um2 = area_in_tiles(grid, mask.values, mask.lattice)
    yield Progress(0.1, 1, "vessels per tile")
    parts = [_vascular(inputs, params, tissue_um2)]
    yield Progress(0.5, 1, "nuclei per tile")
    parts.append(_nuclear(inputs, tissue_um2))
    yield Progress(0.7, 1, "CAIX per tile")
    parts.append(_caix(inputs, params))
    yield Progress(0.8, 1, "tissue classes per tile")
    parts.append(_classes(inputs))
    tables = [part for part in parts if part is not None]
    if not tables:
        raise InputError(
            "there are no vessels, nuclei, CAIX cells or tissue classes yet; run at least one of "
            "these steps first"
        )
    table = tables[0]
    for part in tables[1:]:
        table = table.with_columns(part.columns, part.units, part.about)
    for doubt in column_doubts(table):
        inputs.warn(doubt)
    return {PARAMETERS: table}


def _vascular(
    inputs: StepContext,
    params: ParameterParams,
    tissue_um2: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Table | None:
    from napari_mosaik.features import (
        area_in_tiles,
        vascular_parameters,
        vessel_distance_in_tiles,
    )

    if not inputs.has(CORRECTED_VESSELS):
        return None
    grid, vessels = inputs.read(TILES), inputs.read(CORRECTED_VESSELS)
    return vascular_parameters(
        grid,
        inputs.read(CORRECTED_VESSEL_OBJECTS),
        tissue_area_um2=tissue_um2,
        vessel_area_um2=area_in_tiles(grid, vessels.values, vessels.lattice),
        distance_um=vessel_distance_in_tiles(
            grid, _coarse(vessels, params.distance_spacing_um), inputs.read(TISSUE[REFERENCE])
        ),
    )


def _coarse(labels: LabelImage, spacing_um: float) -> LabelImage:
    """The coarser copy of a label image whose pixels are nearest to, but not above, a size."""
    level, values = 0, labels.values
    for number, coarser in enumerate(labels.levels, 1):
        if labels.lattice.spacing_um[0] * 2**number <= spacing_um:
            level, values = number, coarser
    step_row, step_col = (spacing * 2**level for spacing in labels.lattice.spacing_um)
    rows, cols = values.shape
    lattice = Lattice(
        labels.lattice.frame, (rows, cols), (step_row, step_col), labels.lattice.origin_um
    )
    return LabelImage(values, lattice)


def _nuclear(
    inputs: StepContext, tissue_um2: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Table | None:
    from napari_mosaik.features import nuclear_parameters

    if not (inputs.has(CORRECTED_NUCLEUS_OBJECTS) and inputs.has(ALIGNMENT["he"])):
        return None
    nuclei = inputs.read(CORRECTED_NUCLEUS_OBJECTS)
    points = transform_of(inputs.read(ALIGNMENT["he"])).apply(nuclei.points_um())
    return nuclear_parameters(
        inputs.read(TILES), nuclei, tissue_area_um2=tissue_um2, points_um=points
    )


def _caix(inputs: StepContext, params: ParameterParams) -> Table | None:
    from napari_mosaik.features import caix_parameters

    if not (inputs.has(CAIX_CELLS) and inputs.has(ALIGNMENT["caix"])):
        return None
    cells = inputs.read(CAIX_CELLS)
    if params.tumour_cells_only:
        cells = cells.rows(np.asarray(cells["tumour"], bool))
    points = transform_of(inputs.read(ALIGNMENT["caix"])).apply(cells.points_um())
    return caix_parameters(
        inputs.read(TILES), points, cells["membrane_od10"], grades=cells["grade"]
    )


def _classes(inputs: StepContext) -> Table | None:
    from napari_mosaik.features import class_fractions, fractions_in_tiles

    if not (inputs.has(CLASSES) and inputs.has(ALIGNMENT["he"])):
        return None
    grid = inputs.read(TILES)
    transform = transform_of(inputs.read(ALIGNMENT["he"]))
    classes = inputs.read(CLASSES)
    own = [code for code in sorted(classes.names) if code not in CLASS_NAMES]
    shares = fractions_in_tiles(grid, classes, (*MEASURED_CLASSES, *own), transform)
    others = {classes.names[code]: shares[:, 2 + i] for i, code in enumerate(own)}
    return class_fractions(grid, shares[:, 0], shares[:, 1], others)


TILE_PARAMETERS = Step(
    name="parameters",
    title="Parameters",
    about="Summarises vessels, nuclei, CAIX cells and tissue classes in one row per tile.",
    page="Parameters and maps",
    params=ParameterParams,
    reads=(TILES, TISSUE[REFERENCE]),
    may_read=(
        CORRECTED_VESSELS,
        CORRECTED_VESSEL_OBJECTS,
        CORRECTED_NUCLEUS_OBJECTS,
        CAIX_CELLS,
        CLASSES,
        ALIGNMENT["he"],
        ALIGNMENT["caix"],
    ),
    needs_any=(CORRECTED_VESSELS, CORRECTED_NUCLEUS_OBJECTS, CAIX_CELLS, CLASSES),
    writes=(PARAMETERS,),
    body=_body,
    revision=2,
)
