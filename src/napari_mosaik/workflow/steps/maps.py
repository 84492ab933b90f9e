"""Parameter maps: tile values interpolated over the tissue by inverse distance."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import MAPS, PARAMETERS, REFERENCE, TILES, TISSUE
from napari_mosaik.core.raster import Raster
from napari_mosaik.spatial import MapParams
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["PARAMETER_MAPS"]


def _body(inputs: StepContext, params: MapParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.spatial import parameter_map

    grid, table = inputs.read(TILES), inputs.read(PARAMETERS)
    mask = inputs.read(TISSUE[REFERENCE])
    names = tuple(table)
    yield Progress(0.2, 1, "mapping parameters")
    maps = parameter_map(
        grid,
        table.matrix(names),
        mask,
        params.spacing_um,
        power=params.power,
        n_neighbours=params.n_neighbours,
        channels=names,
    )
    return {MAPS: Raster(maps.values.astype(np.float32), maps.lattice, "1", names)}


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
