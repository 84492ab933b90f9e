"""Results of a plan of the dose what-if as files for other programs.

tiles.csv     one row for each tile, units in the header, limitations above it
NAME.ome.zarr one map each
record.json   indices, draws, constants with sources, warnings, limitations
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core import InputError, Raster, Table, TileGrid
from napari_mosaik.io.files import saving, write_bytes, write_json
from napari_mosaik.io.store import write_raster

__all__ = ["write_dose"]


def write_dose(
    folder: Path,
    grid: TileGrid,
    table: Table,
    maps: Mapping[str, Raster],
    record: Mapping[str, Any],
) -> None:
    """Write the tiles (n), the maps (rows, columns) in their units and the record of one plan.

    A missing value is an empty cell of the table and NaN in a map.

    Raises
    ------
    InputError
        If *folder* exists: nothing is written over.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another folder, or remove it")
    with saving("the results of the plan", folder.parent):
        folder.mkdir(parents=True)
        try:
            write_bytes(folder / "tiles.csv", _csv(grid, table, record).encode("utf-8"))
            for title, raster in maps.items():
                write_raster(folder / f"{title}.ome.zarr", raster, title)
            write_json(folder / "record.json", dict(record))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _csv(grid: TileGrid, table: Table, record: Mapping[str, Any]) -> str:
    """Comments with # first, then the header and a row for each tile."""
    text = io.StringIO(newline="")
    for line in (f"case {record['case']}, plan {record['name']}", *record["limitations"]):
        text.write(f"# {line}\n")
    writer = csv.writer(text, lineterminator="\n")
    units = [f" [{table.unit(c)}]" if table.unit(c) != "1" else "" for c in table]
    names = [f"{column}{unit}" for column, unit in zip(table, units, strict=True)]
    writer.writerow(["tile", "row_um", "column_um", *names])
    columns = [np.asarray(table[column], float) for column in table]
    for tile, centre in enumerate(grid.centres_um):
        values = ["" if np.isnan(c[tile]) else f"{c[tile]:.9g}" for c in columns]
        writer.writerow([tile, *(f"{float(x):.9g}" for x in centre), *values])
    return text.getvalue()
