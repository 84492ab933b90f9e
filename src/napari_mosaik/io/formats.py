"""How each kind of result is laid down in a folder: OME-Zarr, (Geo)Parquet or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, LazyArray, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.files import read_json, write_json

__all__ = ["read_value", "write_value"]

CHUNK = 1024
_LEVEL_LIMIT = 512


def write_value(artifact: Artifact[Any], folder: Path, value: Any) -> None:
    """Write *value* into the empty *folder* in the form that its kind has."""
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
    """Read what `write_value` wrote; label images stay on disk and are read piece by piece."""
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


def _lattice_dict(lattice: Lattice) -> dict[str, Any]:
    return {
        "frame": lattice.frame,
        "shape": list(lattice.shape),
        "spacing_um": list(lattice.spacing_um),
        "origin_um": list(lattice.origin_um),
    }


def _lattice(values: dict[str, Any]) -> Lattice:
    rows, cols = values["shape"]
    return Lattice(
        values["frame"],
        (int(rows), int(cols)),
        (float(values["spacing_um"][0]), float(values["spacing_um"][1])),
        (float(values["origin_um"][0]), float(values["origin_um"][1])),
    )


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

    meta = {"lattice": _lattice_dict(grid.lattice), "size_um": grid.size_um}
    columns = {"position": grid.kept, "coverage": grid.coverage, "inner": grid.inner}
    stored = pa.table({key: pa.array(value) for key, value in columns.items()})
    stored = stored.replace_schema_metadata({b"mosaik": json.dumps(meta).encode()})
    pq.write_table(stored, folder / "table.parquet", compression="zstd", write_page_checksum=True)


def _read_grid(folder: Path) -> TileGrid:
    columns, meta = _read_parquet(folder / "table.parquet")
    return TileGrid(
        _lattice(meta["lattice"]),
        float(meta["size_um"]),
        columns["position"].astype(np.int64),
        columns["coverage"].astype(float),
        columns["inner"].astype(bool),
    )


# --- images ---------------------------------------------------------------------------------------
def _create_array(folder: Path, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]) -> Any:
    import zarr
    from zarr.codecs import ZstdCodec

    return zarr.create_array(
        store=str(folder),
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(c, max(1, s)) for c, s in zip(chunks, shape, strict=True)),
        compressors=[ZstdCodec(level=1, checksum=True)],
        config={"write_empty_chunks": True},
    )


def _group_metadata(folder: Path, ome: dict[str, Any], own: dict[str, Any]) -> None:
    attributes = {"ome": ome, "mosaik": own}
    write_json(
        folder / "zarr.json",
        {"zarr_format": 3, "node_type": "group", "attributes": attributes},
    )


def _ome_multiscales(name: str, lattice: Lattice, n_levels: int, channels: bool) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in ("y", "x")]
    lead: list[float] = [1.0] if channels else []
    if channels:
        axes.insert(0, {"name": "c", "type": "channel"})
    datasets = []
    for level in range(n_levels):
        step = [s * 2**level for s in lattice.spacing_um]
        shift = [o + s / 2 for o, s in zip(lattice.origin_um, step, strict=True)]
        transforms = [
            {"type": "scale", "scale": lead + step},
            {"type": "translation", "translation": [0.0] * len(lead) + shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def _write_raster(folder: Path, raster: Raster, name: str) -> None:
    values = raster.values
    has_channels = values.ndim == 3
    planes = np.moveaxis(values, -1, 0) if has_channels else values
    stored = planes.astype(np.uint8) if values.dtype == np.bool_ else planes
    place = folder / "image.ome.zarr"
    place.mkdir()
    chunks = (1, CHUNK, CHUNK) if has_channels else (CHUNK, CHUNK)
    array = _create_array(place / "0", stored.shape, stored.dtype, chunks)
    array[...] = stored
    own = {
        "lattice": _lattice_dict(raster.lattice),
        "unit": raster.unit,
        "channels": list(raster.channels),
        "boolean": values.dtype == np.bool_,
    }
    _group_metadata(place, _ome_multiscales(name, raster.lattice, 1, has_channels), own)


def _open_group(place: Path) -> tuple[dict[str, Any], list[Any]]:
    import zarr

    attributes = read_json(place / "zarr.json")["attributes"]
    paths = [entry["path"] for entry in attributes["ome"]["multiscales"][0]["datasets"]]
    arrays = [zarr.open_array(str(place / path), mode="r") for path in paths]
    return attributes["mosaik"], arrays


def _read_raster(folder: Path) -> Raster:
    own, arrays = _open_group(folder / "image.ome.zarr")
    values = np.asarray(arrays[0][...])
    if values.ndim == 3:
        values = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    if own["boolean"]:
        values = values.astype(bool)
    return Raster(values, _lattice(own["lattice"]), own["unit"], tuple(own["channels"]))


def _write_labels(folder: Path, labels: LabelImage, name: str) -> None:
    place = folder / "labels.ome.zarr"
    place.mkdir()
    source: LazyArray = labels.values
    n_levels = 1
    level = _copy(source, place / "0")
    while max(level.shape) > _LEVEL_LIMIT:
        level = _halve(level, place / str(n_levels))
        n_levels += 1
    own = {
        "lattice": _lattice_dict(labels.lattice),
        "names": {str(code): word for code, word in labels.names.items()},
    }
    ome = _ome_multiscales(name, labels.lattice, n_levels, channels=False)
    ome["image-label"] = {"version": "0.5"}
    _group_metadata(place, ome, own)


def _copy(source: LazyArray, folder: Path) -> Any:
    target = _create_array(folder, source.shape, source.dtype, (CHUNK, CHUNK))
    for row in range(0, source.shape[0], CHUNK):
        target[row : row + CHUNK] = np.asarray(source[row : row + CHUNK])
    return target


def _halve(source: Any, folder: Path) -> Any:
    """Every second sample: labels are names, so they are picked and never averaged."""
    shape = ((source.shape[0] + 1) // 2, (source.shape[1] + 1) // 2)
    target = _create_array(folder, shape, source.dtype, (CHUNK, CHUNK))
    for row in range(0, shape[0], CHUNK):
        stop = min(row + CHUNK, shape[0])
        target[row:stop] = np.asarray(source[2 * row : 2 * stop])[::2, ::2]
    return target


def _read_labels(folder: Path) -> LabelImage:
    own, arrays = _open_group(folder / "labels.ome.zarr")
    names = {int(code): word for code, word in own["names"].items()}
    return LabelImage(arrays[0], _lattice(own["lattice"]), names, tuple(arrays[1:]))
