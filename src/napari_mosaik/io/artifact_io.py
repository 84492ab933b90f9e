"""Reading and writing each kind of result: OME-Zarr, (Geo)Parquet or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.files import read_json, write_json
from napari_mosaik.io.ome import (
    CHUNK,
    create_array,
    lattice_dict,
    lattice_from,
    multiscales,
    open_group,
    write_group,
)
from napari_mosaik.io.ome_labels import LabelWriter, read_labels

__all__ = ["read_value", "write_value"]


def write_value(artifact: Artifact[Any], folder: Path, value: Any) -> None:
    """Write *value* into the empty *folder* in the format of its kind."""
    if not isinstance(value, artifact.kind):
        raise TypeError(f"{artifact.name} must be a {artifact.kind.__name__}, not {type(value)}")
    writers: dict[type[Any], Callable[[Path, Any, str], None]] = {
        Raster: _write_raster,
        LabelImage: _write_labels,
        Table: _write_table,
        TileGrid: _write_grid,
        dict: _write_document,
    }
    writers[artifact.kind](folder, value, artifact.name)


def read_value(artifact: Artifact[Any], folder: Path) -> Any:
    """Read what `write_value` wrote; label images stay on disk and are read block by block."""
    readers: dict[type[Any], Callable[[Path], Any]] = {
        Raster: _read_raster,
        LabelImage: _read_labels,
        Table: _read_table,
        TileGrid: _read_grid,
        dict: lambda place: read_json(place / "document.json"),
    }
    try:
        return readers[artifact.kind](folder)
    except (InputError, KeyError, ValueError, OSError, RuntimeError) as error:
        raise CorruptArtifact(
            f"the stored result '{artifact.name}' in {folder} is damaged ({error}); run its step "
            "again with --force"
        ) from error


# --- JSON -----------------------------------------------------------------------------------------
def _write_document(folder: Path, value: dict[str, Any], name: str) -> None:
    write_json(folder / "document.json", value)


# --- tables ---------------------------------------------------------------------------------------
def _write_table(folder: Path, table: Table, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {key: pa.array(np.asarray(table[key])) for key in table}
    meta = {"units": dict(table.units), "about": dict(table.about), "frame": table.frame}
    metadata = {b"mosaik": json.dumps(meta, sort_keys=True).encode()}
    if "row_um" in table and "column_um" in table:
        columns["geometry"] = pa.array(_points_wkb(table), pa.binary())
        metadata[b"geo"] = json.dumps(_geo_metadata()).encode()
    stored = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(stored, folder / "table.parquet", compression="zstd", write_page_checksum=True)


def _points_wkb(table: Table) -> list[bytes]:
    import shapely

    points = table.points_um()
    return list(shapely.to_wkb(shapely.points(points[:, 1], points[:, 0])))


def _geo_metadata() -> dict[str, Any]:
    column = {"encoding": "WKB", "geometry_types": ["Point"], "crs": None}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _read_parquet(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    import pyarrow.parquet as pq

    stored = pq.read_table(path, page_checksum_verification=True)
    meta = json.loads((stored.schema.metadata or {})[b"mosaik"])
    names = [name for name in stored.column_names if name != "geometry"]
    return {name: stored[name].to_numpy() for name in names}, meta


def _read_table(folder: Path) -> Table:
    columns, meta = _read_parquet(folder / "table.parquet")
    return Table(columns, meta["units"], meta["about"], meta["frame"])


def _write_grid(folder: Path, grid: TileGrid, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = {"lattice": lattice_dict(grid.lattice), "size_um": grid.size_um}
    columns = {"position": grid.kept, "coverage": grid.coverage, "inner": grid.inner}
    stored = pa.table({key: pa.array(value) for key, value in columns.items()})
    stored = stored.replace_schema_metadata({b"mosaik": json.dumps(meta).encode()})
    pq.write_table(stored, folder / "table.parquet", compression="zstd", write_page_checksum=True)


def _read_grid(folder: Path) -> TileGrid:
    columns, meta = _read_parquet(folder / "table.parquet")
    return TileGrid(
        lattice_from(meta["lattice"]),
        float(meta["size_um"]),
        columns["position"].astype(np.int64),
        columns["coverage"].astype(float),
        columns["inner"].astype(bool),
    )


# --- images ---------------------------------------------------------------------------------------
def _write_raster(folder: Path, raster: Raster, name: str) -> None:
    values = raster.values
    has_channels = values.ndim == 3
    planes = np.moveaxis(values, -1, 0) if has_channels else values
    stored = planes.astype(np.uint8) if values.dtype == np.bool_ else planes
    place = folder / "image.ome.zarr"
    place.mkdir()
    chunks = (1, CHUNK, CHUNK) if has_channels else (CHUNK, CHUNK)
    array = create_array(place / "0", stored.shape, stored.dtype, chunks)
    array[...] = stored
    own = {
        "lattice": lattice_dict(raster.lattice),
        "unit": raster.unit,
        "channels": list(raster.channels),
        "boolean": values.dtype == np.bool_,
    }
    write_group(place, multiscales(name, raster.lattice, 1, has_channels), own)


def _read_raster(folder: Path) -> Raster:
    own, arrays = open_group(folder / "image.ome.zarr")
    values = np.asarray(arrays[0][...])
    if values.ndim == 3:
        values = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    if own["boolean"]:
        values = values.astype(bool)
    return Raster(values, lattice_from(own["lattice"]), own["unit"], tuple(own["channels"]))


def _write_labels(folder: Path, labels: LabelImage, name: str) -> None:
    place = folder / "labels.ome.zarr"
    if labels.folder is not None:
        labels.folder.rename(place)
        return
    writer = LabelWriter(place, labels, name)
    for level in range(writer.n_levels):
        for window in writer.windows(level):
            writer.write(level, window)
    writer.finish()


def _read_labels(folder: Path) -> LabelImage:
    return read_labels(folder / "labels.ome.zarr")
