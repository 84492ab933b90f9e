"""Tile grid on the CD34 section, the reference of the case."""

from __future__ import annotations

from collections.abc import Generator

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import REFERENCE, TILES, TISSUE
from napari_mosaik.core.errors import InputError
from napari_mosaik.tissue import TileParams, tile_grid
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["MAKE_TILES"]


def _body(inputs: StepContext, params: TileParams) -> Generator[Progress, None, Results]:
    mask = inputs.read(TISSUE[REFERENCE])
    yield Progress(0.5, 1, "placing tiles")
    grid = tile_grid(mask, params)
    if not len(grid):
        raise InputError(
            f"no tile of {params.size_um:g} µm has enough tissue on the CD34 slide; check the "
            "tissue mask or use smaller tiles"
        )
    return {TILES: grid}


MAKE_TILES = Step(
    name="tiles",
    title="Tiles",
    about="Covers the tissue of the CD34 section with a regular grid of overlapping tiles.",
    page="Tissue and tiles",
    params=TileParams,
    reads=(TISSUE[REFERENCE],),
    writes=(TILES,),
    body=_body,
)
