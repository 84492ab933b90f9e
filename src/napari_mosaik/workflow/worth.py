"""What an update was worth: the results before and after it, compared.

    CASE/update.json ──► versions before (CASE/earlier) ─┐
                                                         ├──► one record, and maps of the difference
    results of now ──────────────────────────────────────┘

The command line, the report of a window and its layers show this record and these maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    CLASS_RECORD,
    CLASSES,
    CLUSTERS,
    METRICS,
    PARAMETERS,
    PREDICTION,
    TILES,
)
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import IntArray, TileGrid
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.baseline import LastUpdate, read_baseline

__all__ = ["ChangeMaps", "change_maps", "worth_of"]

T = TypeVar("T")
HOT, COLD = 1, 2
_DRAWS, _LARGEST_BLOCK, _SEED = 2000, 11, 0
"""Draws of the interval; largest edge of its blocks in tiles (regional scale of the network)."""
INTERVAL = (
    "95 % interval of the mean change over tiles, by bootstrap of blocks of {0} x {0} tiles: how "
    "it would vary with the part of the tissue, not the error of the prediction"
)


@dataclass(frozen=True, slots=True, eq=False)
class ChangeMaps:
    """Maps of what changed.

    Parameters
    ----------
    classes
        Class code after the update where it changed, 0 elsewhere, (rows, columns); None without.
    parameters
        After minus before, by parameter, (n,) of `grid`, in the unit of each; NaN: not known.
    suv
        The same of the predicted SUV, (n,).
    grid
        The tiles of now.
    units
        Unit by parameter, and that of the SUV under "suv".
    """

    grid: TileGrid | None
    classes: LabelImage | None
    parameters: Mapping[str, FloatArray]
    suv: FloatArray | None
    units: Mapping[str, str]


class _States:
    """The results before the last update, and those of now."""

    def __init__(self, case: Case, record: LastUpdate) -> None:
        self.case, self.record = case, record

    def before(self, artifact: Artifact[T]) -> T | None:
        """A result before the update; None where there was none, or where it is not kept."""
        digest = self.record.before.get(artifact.name)
        store = None if digest is None else self.case.store.version(artifact, digest)
        with suppress(CorruptArtifact, InputError):
            return None if store is None else store.read(artifact)
        return None

    def after(self, artifact: Artifact[T]) -> T | None:
        """A result of now; None where there is none."""
        with suppress(CorruptArtifact, InputError):
            return self.case.store.read(artifact)
        return None

    def both(self, artifact: Artifact[T]) -> tuple[T, T] | None:
        """A result before and after; None if one of them is not there."""
        before, after = self.before(artifact), self.after(artifact)
        return None if before is None or after is None else (before, after)

    def tables(self, artifact: Artifact[Table]) -> tuple[Table, Table] | None:
        """A table of the tiles before and after; None if one is missing or of other tiles."""
        tables, grids = self.both(artifact), self.both(TILES)
        if tables is None or grids is None:
            return None
        fits = [len(table) == len(grid) for table, grid in zip(tables, grids, strict=True)]
        return tables if all(fits) else None

    def rows(self) -> tuple[TileGrid, IntArray, IntArray] | None:
        """The tiles of now, and the rows of those that were there before: now, and then."""
        grids = self.both(TILES)
        if grids is None:
            return None
        before, after = grids
        if before.lattice != after.lattice or before.size_um != after.size_um:
            return after, np.zeros(0, np.int64), np.zeros(0, np.int64)
        _, then, now = np.intersect1d(before.kept, after.kept, return_indices=True)
        return after, now, then


def worth_of(case: Case) -> dict[str, Any] | None:
    """What changed by the last update of a case, JSON-able; None where there was none.

    Keys: ``time``, ``done``, ``n_tiles``, ``seconds``; ``classes`` (area of each class, mm²),
    ``parameters`` (mean over the tiles, and tiles that changed), ``clusters`` (hot and cold tiles
    of each parameter), ``prediction`` (mean predicted SUV, its change with an interval) and
    ``error`` (mean absolute error of the prediction).  Each number stands as ``before``, ``after``
    and ``change``.
    """
    record = read_baseline(case)
    if record is None:
        return None
    states = _States(case, record)
    return {
        "time": record.time,
        "done": record.done,
        "n_tiles": record.n_tiles,
        "seconds": record.seconds,
        "classes": _classes(states),
        "parameters": _parameters(states),
        "clusters": _clusters(states),
        "prediction": _prediction(states),
        "error": _error(states),
    }


def _change(before: float | None, after: float | None) -> dict[str, float | None]:
    both = before is not None and after is not None
    return {"before": before, "after": after, "change": after - before if both else None}  # type: ignore[operator]


def _classes(states: _States) -> dict[str, Any]:
    records = states.both(CLASS_RECORD)
    if records is None:
        return {}
    before, after = (record["area_mm2"] for record in records)
    areas = {
        name: {"unit": "mm²", **_change(before.get(name), after.get(name))}
        for name in dict.fromkeys((*before, *after))
    }
    maps = states.both(CLASSES)
    changed: float | None = None
    if maps is not None and maps[0].lattice == maps[1].lattice:
        old, new = maps[0].array(), maps[1].array()
        tissue = (old > 0) | (new > 0)
        changed = float(np.mean(old[tissue] != new[tissue])) if tissue.any() else 0.0
    return {"area_mm2": areas, "changed_fraction": changed}


def _mean(values: NDArray[Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _differs(one: FloatArray, other: FloatArray) -> NDArray[np.bool_]:
    """Where two columns (n,) of any unit differ; missing values are equal."""
    return np.asarray(~((one == other) | (np.isnan(one) & np.isnan(other))), bool)


def _parameters(states: _States) -> dict[str, Any]:
    tables, rows = states.tables(PARAMETERS), states.rows()
    if tables is None or rows is None:
        return {}
    before, after = tables
    found = {}
    for name in after:
        new = np.asarray(after[name], float)
        old = np.asarray(before[name], float) if name in before else None
        n_changed = len(new)
        if old is not None:
            n_changed += int(_differs(old[rows[2]], new[rows[1]]).sum()) - len(rows[1])
        found[name] = {
            "unit": after.unit(name),
            **_change(None if old is None else _mean(old), _mean(new)),
            "n_changed": n_changed,
        }
    return found


def _clusters(states: _States) -> dict[str, Any]:
    tables, rows = states.tables(CLUSTERS), states.rows()
    if tables is None or rows is None:
        return {}
    before, after = tables
    found = {}
    for column in after:
        name, _, kind = column.rpartition(".")
        if kind != "label" or column not in before:
            continue
        old, new = np.asarray(before[column]), np.asarray(after[column])
        found[name] = {
            "hot": _change(int((old == HOT).sum()), int((new == HOT).sum())),
            "cold": _change(int((old == COLD).sum()), int((new == COLD).sum())),
            "n_changed": int((old[rows[2]] != new[rows[1]]).sum()) + len(new) - len(rows[1]),
        }
    return found


def _prediction(states: _States) -> dict[str, Any]:
    tables, rows = states.tables(PREDICTION), states.rows()
    if tables is None or rows is None:
        return {}
    old, new = (np.asarray(table["suv"], float) for table in tables)
    grid, now, then = rows
    change = new[now] - old[then]
    edge = min(_LARGEST_BLOCK, max(1, round(len(now) ** 0.5 / 4)))
    low, high = _block_interval(change, grid.cells[now], edge)
    return {
        "unit": tables[1].unit("suv"),
        **_change(_mean(old), _mean(new)),
        "mean_change": _mean(change),
        "low": low,
        "high": high,
        "interval": INTERVAL.format(edge),
        "n_changed": int(_differs(old[then], new[now]).sum()) + len(new) - len(now),
        "n_compared": int(np.isfinite(change).sum()),
        "largest_change": float(np.nanmax(np.abs(change))) if np.isfinite(change).any() else None,
    }


def _error(states: _States) -> dict[str, Any]:
    """Mean absolute error of the prediction, where the uptake was measured."""
    metrics = states.both(METRICS)
    if metrics is None:
        return {}
    raw, normalised = (
        [record[key]["mae"] for record in metrics] for key in ("suv_bsa", "suv_norm")
    )
    unit = str(metrics[1].get("unit", ""))
    return {"unit": unit, **_change(*raw), "normalised": _change(*normalised)}


def _block_interval(
    change: FloatArray, cells: IntArray, edge: int
) -> tuple[float | None, float | None]:
    """95 % interval of the mean of values (n,), any unit, at lattice positions (n, 2).

    Blocks of *edge* x *edge* neighbouring tiles are drawn with replacement: tiles overlap and are
    alike.  None with fewer than two blocks.
    """
    known = np.isfinite(change)
    blocks = cells[known] // edge
    _, block = np.unique(blocks, axis=0, return_inverse=True)
    n_blocks = int(block.max(initial=-1)) + 1
    if n_blocks < 2:
        return None, None
    sums = np.bincount(block.ravel(), change[known], n_blocks)
    counts = np.bincount(block.ravel(), minlength=n_blocks)
    drawn = np.random.default_rng(_SEED).integers(0, n_blocks, (_DRAWS, n_blocks))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def change_maps(case: Case) -> ChangeMaps | None:
    """Maps of what the last update of a case changed; None where there was none."""
    record = read_baseline(case)
    if record is None:
        return None
    states = _States(case, record)
    rows, units = states.rows(), dict[str, str]()
    parameters: dict[str, FloatArray] = {}
    tables, predicted = states.tables(PARAMETERS), states.tables(PREDICTION)
    if tables is not None and rows is not None:
        for name in set(tables[0]) & set(tables[1]):
            change = _changed_rows(rows, tables[0][name], tables[1][name])
            if np.nan_to_num(change).any():
                parameters[name], units[name] = change, tables[1].unit(name)
    suv = None
    if predicted is not None and rows is not None:
        suv = _changed_rows(rows, predicted[0]["suv"], predicted[1]["suv"])
        units["suv"] = predicted[1].unit("suv")
    grid = None if rows is None else rows[0]
    return ChangeMaps(grid, _changed_classes(states), parameters, suv, units)


def _changed_classes(states: _States) -> LabelImage | None:
    """The class codes of now where they changed, 0 elsewhere, (rows, columns)."""
    maps = states.both(CLASSES)
    if maps is None or maps[0].lattice != maps[1].lattice:
        return None
    old, new = maps[0].array(), maps[1].array()
    if (old == new).all():
        return None
    codes = np.where(old != new, new, 0).astype(new.dtype)
    return LabelImage(codes, maps[1].lattice, maps[1].names)


def _changed_rows(
    rows: tuple[TileGrid, IntArray, IntArray], before: NDArray[Any], after: NDArray[Any]
) -> FloatArray:
    """After minus before, (n,) of the tiles of now, any unit; NaN for new tiles."""
    grid, now, then = rows
    out = np.full(len(grid), np.nan)
    out[now] = np.asarray(after, float)[now] - np.asarray(before, float)[then]
    return out
