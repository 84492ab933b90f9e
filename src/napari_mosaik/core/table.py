"""A small immutable table: named columns of equal length, each with a unit.

The science folders exchange it, so that neither pandas nor pyarrow is imported before a table is
stored or shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError

__all__ = ["Table"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns of equal length with units; missing numbers are NaN.

    Parameters
    ----------
    columns
        Name to one-dimensional array (numbers, booleans or strings).
    units
        Name to unit; a column that is not named has the unit "1".
    about
        Name to a sentence that says what the column means and how it is computed.
    frame
        Frame of the columns ``row_um`` and ``column_um`` (object centroids), if there are any.
    """

    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    frame: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"columns of different length: {lengths}")

    def __len__(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.columns[name]
        except KeyError:
            raise InputError(f"no column '{name}'; there are: {', '.join(self.columns)}") from None

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def unit(self, name: str) -> str:
        """Unit of a column ("1" for pure numbers)."""
        return self.units.get(name, "1")

    def rows(self, which: NDArray[Any]) -> Table:
        """The rows with the given indices (n,) or mask (rows,)."""
        columns = {name: column[which] for name, column in self.columns.items()}
        return Table(columns, self.units, self.about, self.frame)

    def with_columns(
        self,
        columns: Mapping[str, NDArray[Any]],
        units: Mapping[str, str] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> Table:
        """A copy with columns added or replaced."""
        return Table(
            {**self.columns, **columns},
            {**self.units, **(units or {})},
            {**self.about, **(about or {})},
            self.frame,
        )

    def matrix(self, names: tuple[str, ...] | list[str]) -> NDArray[np.float64]:
        """The named columns as floats (rows, columns), each in its own unit (µm, fraction...)."""
        return np.column_stack([np.asarray(self[name], float) for name in names])

    def points_um(self) -> NDArray[np.float64]:
        """Object centroids (n, 2): row and column in µm of `frame`."""
        return self.matrix(["row_um", "column_um"])
