"""One row of parameters per tile: vessels, nuclei, CAIX and tissue classes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Artifact, Progress
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
    RECOMPUTED,
    REFERENCE,
    TILES,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.changes import (
    ChangedTiles,
    changed_by_classes,
    changed_by_objects,
    changed_by_vessels,
    objects_of_tiles,
    same,
)
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

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
    """All groups of parameters; where there is an earlier table, those of changed tiles alone."""
    from napari_mosaik.segment.plausible import column_doubts

    grid, before = inputs.read(TILES), inputs.previous_result(PARAMETERS, *_FOLLOWED)
    if before is not None and not _same_classes(inputs):
        before = None
    columns: dict[str, Any] = {} if before is None else {n: np.array(before[n]) for n in before}
    units, about = ({}, {}) if before is None else (dict(before.units), dict(before.about))
    again = np.zeros(len(grid), bool)
    for number, group in enumerate(_GROUPS):
        summing = Progress(0.1 + 0.2 * number, 1, group.text)
        yield summing
        if not all(inputs.has(entry) for entry in (*group.followed, *group.others)):
            continue
        if before is not None and all(inputs.is_unchanged(entry) for entry in group.followed):
            continue
        found = None if before is None else group.changed(inputs, grid, before)
        touched, rows = found or (np.arange(len(grid)), np.arange(len(grid)))
        work = partial(group.compute, inputs, params, grid.subset(rows))
        part = yield from beside(work, summing)
        again[touched] = True
        for name in part:
            column = columns.setdefault(name, np.full(len(grid), np.nan))
            again[rows] |= ~same(column[rows], part[name])
            column[rows] = part[name]
        units |= part.units
        about |= part.about
    if not columns:
        raise InputError(
            "there are no vessels, nuclei, CAIX cells or tissue classes yet; run at least one of "
            "these steps first"
        )
    table = Table(columns, units, about, grid.lattice.frame)
    inputs.note(RECOMPUTED, int(again.sum()))
    for doubt in column_doubts(table):
        inputs.warn(doubt)
    return {PARAMETERS: table}


def _same_classes(inputs: StepContext) -> bool:
    """Whether the class map has the classes that it had: they are columns."""
    if not inputs.has(CLASSES) or inputs.is_unchanged(CLASSES):
        return True
    before = inputs.previous_input(CLASSES)
    return before is not None and before.names == inputs.read(CLASSES).names


def _tissue_um2(inputs: StepContext, grid: TileGrid) -> FloatArray:
    from napari_mosaik.features import area_in_tiles

    mask = inputs.read(TISSUE[REFERENCE])
    return area_in_tiles(grid, mask.values, mask.lattice)


def _vascular(inputs: StepContext, params: ParameterParams, grid: TileGrid) -> Table:
    from napari_mosaik.features import (
        area_in_tiles,
        vascular_parameters,
        vessel_distance_in_tiles,
    )

    vessels = inputs.read(CORRECTED_VESSELS)
    part = len(grid) < len(inputs.read(TILES))
    objects, _ = objects_of_tiles(inputs, grid, inputs.read(CORRECTED_VESSEL_OBJECTS))
    return vascular_parameters(
        grid,
        objects,
        tissue_area_um2=_tissue_um2(inputs, grid),
        vessel_area_um2=area_in_tiles(grid, vessels.values, vessels.lattice),
        distance_um=vessel_distance_in_tiles(
            grid,
            vessels.coarser(params.distance_spacing_um),
            inputs.read(TISSUE[REFERENCE]),
            grid.size_um if part else None,
        ),
    )


def _nuclear(inputs: StepContext, params: ParameterParams, grid: TileGrid) -> Table:
    from napari_mosaik.features import nuclear_parameters

    nuclei = inputs.read(CORRECTED_NUCLEUS_OBJECTS)
    points = transform_of(inputs.read(ALIGNMENT["he"])).apply(nuclei.points_um())
    nuclei, points = objects_of_tiles(inputs, grid, nuclei, points)
    return nuclear_parameters(
        grid, nuclei, tissue_area_um2=_tissue_um2(inputs, grid), points_um=points
    )


def _caix(inputs: StepContext, params: ParameterParams, grid: TileGrid) -> Table:
    from napari_mosaik.features import caix_parameters

    cells = inputs.read(CAIX_CELLS)
    if params.tumour_cells_only:
        cells = cells.rows(np.asarray(cells["tumour"], bool))
    points = transform_of(inputs.read(ALIGNMENT["caix"])).apply(cells.points_um())
    cells, points = objects_of_tiles(inputs, grid, cells, points)
    return caix_parameters(grid, points, cells["membrane_od10"], grades=cells["grade"])


def _classes(inputs: StepContext, params: ParameterParams, grid: TileGrid) -> Table:
    from napari_mosaik.features import class_fractions, fractions_in_tiles

    transform = transform_of(inputs.read(ALIGNMENT["he"]))
    classes = inputs.read(CLASSES)
    own = [code for code in sorted(classes.names) if code not in CLASS_NAMES]
    shares = fractions_in_tiles(grid, classes, (*MEASURED_CLASSES, *own), transform)
    others = {classes.names[code]: shares[:, 2 + i] for i, code in enumerate(own)}
    return class_fractions(grid, shares[:, 0], shares[:, 1], others)


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of parameters.

    Parameters
    ----------
    text
        What the progress bar shows.
    followed, others
        Inputs whose changes are followed to the tiles, and others.
    compute
        The parameters of the tiles of a grid.
    changed
        The tiles that a change of the followed inputs concerns; also takes the earlier table.
    """

    text: str
    followed: tuple[Artifact[Any], ...]
    others: tuple[Artifact[Any], ...]
    compute: Callable[[StepContext, ParameterParams, TileGrid], Table]
    changed: Callable[[StepContext, TileGrid, Table], ChangedTiles]


_GROUPS = (
    _Group(
        "vessels per tile",
        (CORRECTED_VESSELS, CORRECTED_VESSEL_OBJECTS),
        (),
        _vascular,
        changed_by_vessels,
    ),
    _Group(
        "nuclei per tile",
        (CORRECTED_NUCLEUS_OBJECTS,),
        (ALIGNMENT["he"],),
        _nuclear,
        changed_by_objects(CORRECTED_NUCLEUS_OBJECTS, "he"),
    ),
    _Group(
        "CAIX per tile",
        (CAIX_CELLS,),
        (ALIGNMENT["caix"],),
        _caix,
        changed_by_objects(CAIX_CELLS, "caix"),
    ),
    _Group("tissue classes per tile", (CLASSES,), (ALIGNMENT["he"],), _classes, changed_by_classes),
)
_FOLLOWED = tuple(artifact for group in _GROUPS for artifact in group.followed)
"""Inputs whose changes are followed to the tiles; any other change concerns every tile."""


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
    revision=3,
)
