"""How each tile parameter goes with the measured uptake, with honest p-values."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import ASSOCIATION, PARAMETERS, TILES, UPTAKE
from napari_mosaik.spatial import AssociationParams
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["ASSOCIATE"]


def _body(inputs: StepContext, params: AssociationParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.spatial import associate_table

    grid, table = inputs.read(TILES), inputs.read(PARAMETERS)
    suv = inputs.read(UPTAKE)["suv"]
    yield Progress(0.2, 1, "correlating parameters with the uptake")
    columns = {name: np.asarray(table[name], float) for name in table}
    return {ASSOCIATION: associate_table(columns, suv, grid.centres_um, params)}


ASSOCIATE = Step(
    name="association",
    title="Correlation with uptake",
    about="Correlates each parameter with the measured SUV, with p-values corrected for spatial "
    "autocorrelation.",
    page="Parameters and maps",
    params=AssociationParams,
    reads=(TILES, PARAMETERS, UPTAKE),
    writes=(ASSOCIATION,),
    body=_body,
    revision=2,
)
