"""A case's results as the report wants them: read once, None where there is none yet."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_mosaik.core import Artifact, FloatArray, Raster, Table, Transform
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    ARTIFACTS,
    METRICS,
    PARAMETERS,
    PREDICTION,
    REFERENCE,
    TILES,
    UPTAKE,
)
from napari_mosaik.io.case import Case

__all__ = ["CaseResults"]


class CaseResults:
    """Reads results of a case, each at most once."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._known: dict[str, Any] = {}

    def get(self, artifact: Artifact[Any]) -> Any:
        """The stored value, None when its step has not run."""
        if artifact.name not in self._known:
            there = self.case.store.origin(artifact) is not None
            self._known[artifact.name] = self.case.store.read(artifact) if there else None
        return self._known[artifact.name]

    def present(self) -> list[Artifact[Any]]:
        """All artifacts that are stored."""
        return [a for a in ARTIFACTS if self.case.store.origin(a) is not None]

    def transform(self, frame: str) -> Transform | None:
        """From a section or the PET to the reference section, None when it is not aligned."""
        if frame == REFERENCE:
            return Transform.identity(REFERENCE, REFERENCE)
        found = self.get(ALIGNMENT[frame])
        if found is None:
            return None
        return Transform(found["source"], found["target"], np.array(found["matrix_um"], float))

    def column(self, artifact: Artifact[Table], name: str) -> FloatArray | None:
        """A column of a table with one row per tile; None when it is missing or out of step."""
        table, grid = self.get(artifact), self.get(TILES)
        if table is None or grid is None or name not in table or len(table) != len(grid):
            return None
        return np.asarray(table[name], float)

    @property
    def unit(self) -> str:
        """Unit of the measured uptake ("1" when there is none)."""
        table = self.get(UPTAKE) or self.get(PREDICTION)
        return "1" if table is None else str(table.unit("suv"))

    @property
    def metrics(self) -> dict[str, Any]:
        """The comparison of predicted and measured uptake, empty before the review."""
        return dict(self.get(METRICS) or {})

    def proxies(self) -> tuple[str, ...]:
        """The three parameters that were chosen; the paper's where no model is known."""
        chosen = self.metrics.get("proxies") or (
            "vessel_equivalent_diameter_um",
            "nucleus_difference_entropy_bits",
            "caix_h_score",
        )
        table = self.get(PARAMETERS)
        return tuple(name for name in chosen if table is None or name in table)

    def onto_tissue(self, raster: Raster, frame: str, like: Raster) -> Raster | None:
        """A raster of another frame on the lattice of *like*, without data where that has none."""
        transform = self.transform(frame)
        if transform is None:
            return None
        moved = raster.onto(like.lattice, transform)
        empty = np.isnan(np.asarray(like.values, float))
        return Raster(np.where(empty, np.nan, moved.values), like.lattice, raster.unit)
