"""Hot and cold clusters: local Moran labels of every tile parameter and of the measured uptake."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import CLUSTERS, PARAMETERS, TILES, UPTAKE, UPTAKE_CLUSTERS
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.table import Table
from napari_mosaik.spatial import MoranParams
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["FIND_CLUSTERS", "LOCAL_MORAN", "label_column"]

NOT_TESTABLE = 5
LOCAL_MORAN = "local_moran"
"""Note of the record: engine, its version and the counts of tiles of each parameter."""


def label_column(parameter: str) -> str:
    """Name of the column that holds the labels of a parameter ("suv" for the uptake)."""
    return f"{parameter}.label"


def _parameters(inputs: StepContext, params: MoranParams) -> Generator[Progress, None, Results]:
    table = inputs.read(PARAMETERS)
    values = {name: np.asarray(table[name], float) for name in table}
    return {CLUSTERS: (yield from _labelled(inputs, values, params))}


def _uptake(inputs: StepContext, params: MoranParams) -> Generator[Progress, None, Results]:
    values = {"suv": np.asarray(inputs.read(UPTAKE)["suv"], float)}
    return {UPTAKE_CLUSTERS: (yield from _labelled(inputs, values, params))}


def _labelled(
    inputs: StepContext, values: dict[str, NDArray[np.float64]], params: MoranParams
) -> Generator[Progress, None, Table]:
    from napari_mosaik.spatial import TileGraph

    grid = inputs.read(TILES)
    graph = TileGraph.moore(grid)
    columns: dict[str, NDArray[Any]] = {}
    notes: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    for number, (name, column) in enumerate(values.items()):
        yield Progress(number, len(values), f"clusters of {name}")
        found, note, facts[name] = yield from _one(column, graph, params, number, len(values), name)
        for key, result in found.items():
            columns[f"{name}.{key}"] = result
        notes[label_column(name)] = note
    inputs.note(LOCAL_MORAN, facts)
    return Table(columns, about=notes, frame=grid.lattice.frame)


def _one(
    values: NDArray[np.float64],
    graph: Any,
    params: MoranParams,
    number: int,
    total: int,
    name: str,
) -> Generator[Progress, None, tuple[dict[str, NDArray[Any]], str, dict[str, Any]]]:
    """Labels of one parameter; one that cannot be tested has code 5 everywhere and says why."""
    from napari_mosaik.spatial.moran import iter_local_moran

    pieces = iter_local_moran(values, graph, params, np.random.default_rng(params.seed))
    try:
        result = yield from map_progress(
            pieces, lambda share: Progress(number + share, total, f"clusters of {name}")
        )
    except InputError as error:
        size = len(values)
        empty = np.full(size, np.nan)
        label = np.full(size, NOT_TESTABLE, np.int8)
        found = {"label": label, "statistic": empty, "p": empty.copy()}
        return found, str(error), {"problem": str(error)}
    found = {"label": result.label, "statistic": result.statistic, "p": result.p_value}
    return found, " ".join(result.warnings), result.summary()


FIND_CLUSTERS = (
    Step(
        name="clusters",
        title="Clusters of parameters",
        about="Detects hot spots and cold spots of each tile parameter with local Moran's I.",
        page="Clusters",
        params=MoranParams,
        reads=(TILES, PARAMETERS),
        writes=(CLUSTERS,),
        body=_parameters,
    ),
    Step(
        name="uptake_clusters",
        title="Clusters of uptake",
        about="Detects hot spots and cold spots of the measured SUV with local Moran's I.",
        page="Clusters",
        params=MoranParams,
        reads=(TILES, UPTAKE),
        writes=(UPTAKE_CLUSTERS,),
        body=_uptake,
    ),
)
