"""Correlation of the tile parameters with the uptake, and hot and cold clusters of both."""

from __future__ import annotations

from collections.abc import Collection, Generator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ASSOCIATION,
    CLUSTERS,
    PARAMETERS,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
    label_column,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.table import Table
from napari_mosaik.spatial import AssociationParams, MoranParams
from napari_mosaik.workflow.changes import changed_columns
from napari_mosaik.workflow.parallel import beside, require_address_space
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["ASSOCIATE", "FIND_CLUSTERS", "LOCAL_MORAN", "uptake_classes"]

NOT_TESTABLE = 5
_MEANING = {
    "label": "cluster label (0 average, 1 hot, 2 cold, 3 high-low, 4 low-high, 5 not testable)",
    "statistic": "local Moran's I",
    "p": "p-value of local Moran's I by conditional permutation",
}
LOCAL_MORAN = "local_moran"
"""Note of the record: engine, its version and tile counts of each parameter."""


def uptake_classes(clusters: Table) -> NDArray[np.int8]:
    """(n,) class 0-4 of each tile from the clusters of the uptake, -1 where not testable; label."""
    labels = np.asarray(clusters[label_column("suv")], np.int8)
    return np.where(labels == NOT_TESTABLE, -1, labels).astype(np.int8)


def _cluster_parameters(
    inputs: StepContext, params: MoranParams
) -> Generator[Progress, None, Results]:
    table = inputs.read(PARAMETERS)
    values = {name: np.asarray(table[name], float) for name in table}
    known = inputs.previous_result(CLUSTERS, PARAMETERS)
    before = None if known is None else inputs.previous_input(PARAMETERS)
    if known is None or before is None:
        return {CLUSTERS: (yield from _labelled(inputs, values, params))}
    # The permutations of a parameter draw from all of its tiles: one that changed is tested whole.
    changed = changed_columns(before, table)
    return {CLUSTERS: (yield from _labelled(inputs, values, params, known, changed))}


def _cluster_uptake(inputs: StepContext, params: MoranParams) -> Generator[Progress, None, Results]:
    values = {"suv": np.asarray(inputs.read(UPTAKE)["suv"], float)}
    return {UPTAKE_CLUSTERS: (yield from _labelled(inputs, values, params))}


def _labelled(
    inputs: StepContext,
    values: dict[str, NDArray[np.float64]],
    params: MoranParams,
    known: Table | None = None,
    changed: Collection[str] = (),
) -> Generator[Progress, None, Table]:
    """Labels, statistics and p-values; those of parameters that did not change are *known*."""
    require_address_space(0.75, "the compiler of the permutation tests")
    from napari_mosaik.spatial import TileGraph

    grid = inputs.read(TILES)
    graph = TileGraph.moore(grid)
    columns: dict[str, NDArray[Any]] = {}
    about: dict[str, str] = {}
    summaries: dict[str, dict[str, Any]] = {}
    for number, (name, column) in enumerate(values.items()):
        yield Progress(number, len(values), f"clusters of {name}")
        earlier = inputs.previous_record().get(LOCAL_MORAN, {}) if known is not None else {}
        if known is not None and name not in changed and name in earlier:
            results = {key: np.asarray(known[f"{name}.{key}"]) for key in _MEANING}
            summaries[name] = earlier[name]
        else:
            work = _one(column, graph, params, number, len(values), name)
            results, summaries[name] = yield from work
        for key, result in results.items():
            columns[f"{name}.{key}"] = result
            about[f"{name}.{key}"] = f"{_MEANING[key]} of {name}"
    inputs.note(LOCAL_MORAN, summaries)
    return Table(columns, about=about, frame=grid.lattice.frame)


def _one(
    values: NDArray[np.float64],
    graph: Any,
    params: MoranParams,
    number: int,
    total: int,
    name: str,
) -> Generator[Progress, None, tuple[dict[str, NDArray[Any]], dict[str, Any]]]:
    """Labels of one parameter; code 5 everywhere, with the reason, where it cannot be tested."""
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
        columns = {"label": label, "statistic": empty, "p": empty.copy()}
        return columns, {"problem": str(error)}
    columns = {"label": result.label, "statistic": result.statistic, "p": result.p_value}
    return columns, result.summary()


FIND_CLUSTERS = (
    Step(
        name="clusters",
        title="Clusters of parameters",
        about="Detects hot spots and cold spots of each tile parameter with local Moran's I.",
        page="Clusters",
        params=MoranParams,
        reads=(TILES, PARAMETERS),
        writes=(CLUSTERS,),
        body=_cluster_parameters,
    ),
    Step(
        name="uptake_clusters",
        title="Clusters of uptake",
        about="Detects hot spots and cold spots of the measured SUV with local Moran's I.",
        page="Clusters",
        params=MoranParams,
        reads=(TILES, UPTAKE),
        writes=(UPTAKE_CLUSTERS,),
        body=_cluster_uptake,
    ),
)


def _correlate(
    inputs: StepContext, params: AssociationParams
) -> Generator[Progress, None, Results]:
    from napari_mosaik.spatial import associate_table

    grid, table = inputs.read(TILES), inputs.read(PARAMETERS)
    suv = inputs.read(UPTAKE)["suv"]
    columns = {name: np.asarray(table[name], float) for name in table}
    correlating = Progress(0.05, 1, "correlating parameters with the uptake")
    work = partial(associate_table, columns, suv, grid.centres_um, params)
    return {ASSOCIATION: (yield from beside(work, correlating, 0.97))}


ASSOCIATE = Step(
    name="association",
    title="Correlation with uptake",
    about="Correlates each parameter with the measured SUV, with p-values corrected for spatial "
    "autocorrelation.",
    page="Parameters and maps",
    params=AssociationParams,
    reads=(TILES, PARAMETERS, UPTAKE),
    writes=(ASSOCIATION,),
    body=_correlate,
    revision=2,
)
