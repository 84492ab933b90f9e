"""The stored results of a case, each read at most once; None where a step has not been run."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from napari_mosaik.core import Artifact, FloatArray, Raster, Table, Transform
from napari_mosaik.core.artifact import defined_artifacts
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    METRICS,
    PARAMETERS,
    PREDICTION,
    REFERENCE,
    TILES,
    UPTAKE,
)
from napari_mosaik.io.case import Case

__all__ = ["CaseResults", "transform_to_reference"]

T = TypeVar("T")


class CaseResults:
    """Reads results of a case, each at most once.

    A damaged result raises `MosaikError` whenever it is asked for.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self._known: dict[str, Any] = {}

    def get(self, artifact: Artifact[T]) -> T | None:
        """The stored value, None when its step has not been run."""
        if artifact.name not in self._known:
            stored = self.has(artifact)
            self._known[artifact.name] = self.case.store.read(artifact) if stored else None
        value: T | None = self._known[artifact.name]
        return value

    def read(self, artifact: Artifact[T]) -> T:
        """The stored value; raises `InputError` when its step has not been run."""
        value = self.get(artifact)
        return self.case.store.read(artifact) if value is None else value

    def part(self, artifact: Artifact[Table], *columns: str) -> tuple[int, Table]:
        """Number of rows of a stored table, and only some of its columns.

        Raises `InputError` when its step has not been run.
        """
        return self.case.store.part(artifact, *columns)

    def has(self, *artifacts: Artifact[Any]) -> bool:
        """Whether all of these are stored; nothing is read."""
        return all(self.case.store.origin(artifact) is not None for artifact in artifacts)

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """What the step recorded beside a result (warnings, counts, areas); empty without one."""
        return dict(self.case.store.record(artifact))

    def present(self) -> list[Artifact[Any]]:
        """All artifacts that are stored."""
        return [artifact for artifact in defined_artifacts() if self.has(artifact)]

    def transform(self, frame: str) -> Transform | None:
        """From a section or the PET to the reference section; None for it and before alignment."""
        if frame == REFERENCE:
            return None
        record = self.get(ALIGNMENT[frame])
        if record is None:
            return None
        matrix = np.array(record["matrix_um"], float)
        return Transform(record["source"], record["target"], matrix)

    def column(self, artifact: Artifact[Table], name: str) -> FloatArray | None:
        """A column of a tile table, (n_tiles,) in the table's unit.

        None when it is missing or does not belong to the present tiles.
        """
        table, grid = self.get(artifact), self.get(TILES)
        if table is None or grid is None or name not in table or len(table) != len(grid):
            return None
        return np.asarray(table[name], float)

    def painted(self, artifact: Artifact[Table], column: str) -> Raster | None:
        """A column of a tile table as a map, shape (rows, columns) of the grid; None without it.

        The values have the unit of the column (SUV, µm, ...); NaN where there is no tile.
        """
        values, grid, table = self.column(artifact, column), self.get(TILES), self.get(artifact)
        if values is None or grid is None or table is None:
            return None
        return grid.paint(values, table.unit(column))

    @property
    def unit(self) -> str:
        """Unit of the measured uptake ("1" when there is none)."""
        table = self.get(UPTAKE) or self.get(PREDICTION)
        return "1" if table is None else str(table.unit("suv"))

    @property
    def metrics(self) -> dict[str, Any]:
        """The comparison of predicted and measured uptake, empty before it was made."""
        metrics = self.get(METRICS)
        return {} if metrics is None else dict(metrics)

    def proxies(self) -> tuple[str, ...]:
        """The three parameters that the model chose; those of the paper where no model is known."""
        chosen = self.metrics.get("proxies") or (
            "vessel_equivalent_diameter_um",
            "nucleus_difference_entropy_bits",
            "caix_h_score",
        )
        table = self.get(PARAMETERS)
        return tuple(name for name in chosen if table is None or name in table)

    def onto_tissue(self, raster: Raster, frame: str, like: Raster) -> Raster | None:
        """A raster of another coordinate space on the lattice of *like*, shape (rows, columns).

        The values keep their unit (SUV, ...) and are NaN where *like* is NaN.  None before *frame*
        is registered.
        """
        transform = self.transform(frame)
        if transform is None:
            return None
        moved = raster.onto(like.lattice, transform)
        empty = np.isnan(np.asarray(like.values, float))
        return Raster(np.where(empty, np.nan, moved.values), like.lattice, raster.unit)


def transform_to_reference(case: Case, frame: str) -> Transform | None:
    """From a section or the PET to the reference section; None for it and before alignment."""
    return CaseResults(case).transform(frame)
