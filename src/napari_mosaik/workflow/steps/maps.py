"""Parameter maps: tile values interpolated over the tissue by inverse distance."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import MAPS, PARAMETERS, REFERENCE, TILES, TISSUE
from napari_mosaik.core.raster import Raster
from napari_mosaik.spatial import MapParams
from napari_mosaik.workflow.changes import changed_columns
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["PARAMETER_MAPS"]


def _body(inputs: StepContext, params: MapParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.spatial import parameter_map

    grid, table = inputs.read(TILES), inputs.read(PARAMETERS)
    mask, names = inputs.read(TISSUE[REFERENCE]), tuple(table)
    known = inputs.previous_result(MAPS, PARAMETERS)
    before = None if known is None else inputs.previous_input(PARAMETERS)
    again = set(names)
    if known is not None and before is not None:
        again = changed_columns(before, table) | (again - set(known.channels))
    todo = tuple(name for name in names if name in again)
    yield Progress(0.2, 1, "mapping parameters")
    lattice = mask.lattice.resized(params.spacing_um)
    values = np.empty((*lattice.shape, len(names)), np.float32)
    for place, name in enumerate(names):
        if name not in again and known is not None:
            values[..., place] = known.channel(name).values
    if todo:
        maps = parameter_map(
            grid,
            table.matrix(todo),
            mask,
            params.spacing_um,
            power=params.power,
            n_neighbours=params.n_neighbours,
        )
        values[..., [names.index(name) for name in todo]] = maps.values
    return {MAPS: Raster(values, lattice, "1", names)}


PARAMETER_MAPS = Step(
    name="maps",
    title="Parameter maps",
    about="Interpolates the tile values over the tissue by inverse distance weighting.",
    page="Parameters and maps",
    params=MapParams,
    reads=(TILES, PARAMETERS, TISSUE[REFERENCE]),
    writes=(MAPS,),
    body=_body,
)
