"""How each tile parameter goes with the measured uptake, with honest p-values."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import ASSOCIATION, PARAMETERS, TILES, UPTAKE
from napari_mosaik.core.table import Table
from napari_mosaik.spatial import AssociationParams
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step

__all__ = ["ASSOCIATE"]


def _body(inputs: Inputs, params: AssociationParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.spatial import associate_table

    grid, table = inputs.read(TILES), inputs.read(PARAMETERS)
    suv = inputs.read(UPTAKE)["suv"]
    names = tuple(table)
    found: list[Table] = []
    for number, name in enumerate(names):
        yield Progress(number, len(names), f"correlating {name}")
        found.append(associate_table({name: table[name]}, suv, grid.centres_um, params))
    columns = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    return {ASSOCIATION: Table(columns, found[0].units, found[0].about)}


ASSOCIATE = Step(
    name="association",
    title="Correlation with uptake",
    about="Correlates each parameter with the measured SUV; p-values allow for neighbouring "
    "tiles being alike.",
    page="Parameters and maps",
    params=AssociationParams,
    reads=(TILES, PARAMETERS, UPTAKE),
    writes=(ASSOCIATION,),
    body=_body,
)
