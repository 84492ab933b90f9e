"""Arrays as OME-Zarr 0.5: chunks with checksums, multiscale metadata, lattices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.recent import RecentFiles
from napari_mosaik.io.files import read_json, write_json

__all__ = [
    "CHUNK",
    "create_array",
    "group_levels",
    "kept_chunk",
    "lattice_dict",
    "lattice_from",
    "multiscales",
    "open_array",
    "open_group",
    "read_chunk",
    "write_chunk",
    "write_group",
]

CHUNK = 1024
_ZSTD_LEVEL = 1


def lattice_dict(lattice: Lattice) -> dict[str, Any]:
    """A lattice for JSON."""
    return {
        "frame": lattice.frame,
        "shape": list(lattice.shape),
        "spacing_um": list(lattice.spacing_um),
        "origin_um": list(lattice.origin_um),
    }


def lattice_from(values: dict[str, Any]) -> Lattice:
    """The inverse of `lattice_dict`."""
    rows, cols = values["shape"]
    return Lattice(
        values["frame"],
        (int(rows), int(cols)),
        (float(values["spacing_um"][0]), float(values["spacing_um"][1])),
        (float(values["origin_um"][0]), float(values["origin_um"][1])),
    )


def create_array(
    folder: Path,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    *,
    sparse: bool = False,
) -> Any:
    """A new array; chunks of zeros are not written if it is *sparse*."""
    import zarr
    from zarr.codecs import ZstdCodec

    return zarr.create_array(
        store=str(folder),
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(c, max(1, s)) for c, s in zip(chunks, shape, strict=True)),
        compressors=[ZstdCodec(level=_ZSTD_LEVEL, checksum=True)],
        config={"write_empty_chunks": not sparse},
    )


def write_chunk(folder: Path, index: tuple[int, int], values: NDArray[Any]) -> None:
    """Write one whole chunk of a sparse array of two dimensions, as zarr would; none for zeros.

    Zarr passes every chunk through one thread of its own, which would block the threads that
    compute them.  *values* are labels in the shape of a chunk, zero beyond the edge of the array.
    """
    from numcodecs.zstd import Zstd

    if not values[::32, ::32].any() and not values.any():
        return
    path = folder / "c" / str(index[0]) / str(index[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    path.write_bytes(Zstd(level=_ZSTD_LEVEL, checksum=True).encode(little))


def read_chunk(
    folder: Path, index: tuple[int, int], shape: tuple[int, int], dtype: Any
) -> NDArray[Any] | None:
    """One chunk of labels of the given *shape*, written by `write_chunk`; None if all zero."""
    from numcodecs.zstd import Zstd

    path = folder / "c" / str(index[0]) / str(index[1])
    if not path.is_file():
        return None
    found: NDArray[Any] = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    Zstd().decode(path.read_bytes(), out=found)
    return found


_CHUNKS: RecentFiles[NDArray[Any]] = RecentFiles(32 * 2**20, lambda chunk: chunk.nbytes)
"""The chunks of labels that were read last."""


def kept_chunk(
    folder: Path, index: tuple[int, int], shape: tuple[int, int], dtype: Any
) -> NDArray[Any] | None:
    """As `read_chunk`, labels (rows, columns), but read-only: neighbouring windows share one."""
    try:
        about = os.stat(folder / "c" / str(index[0]) / str(index[1]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = _CHUNKS.read(about)
    if found is None:
        found = read_chunk(folder, index, shape, dtype)
        if found is not None:
            found.setflags(write=False)
            _CHUNKS.keep(about, found)
    return found


def write_group(folder: Path, ome: dict[str, Any], own: dict[str, Any]) -> None:
    """Write the metadata of an image: OME and our own."""
    attributes = {"ome": ome, "mosaik": own}
    write_json(
        folder / "zarr.json",
        {"zarr_format": 3, "node_type": "group", "attributes": attributes},
    )


def multiscales(name: str, lattice: Lattice, n_levels: int, channels: bool) -> dict[str, Any]:
    """OME's description of an image whose levels are each half the size of the one before."""
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


def open_group(place: Path) -> tuple[dict[str, Any], list[Any]]:
    """Our own metadata and the arrays of all levels, finest first."""
    own, folders = group_levels(place)
    return own, [open_array(folder) for folder in folders]


def group_levels(place: Path) -> tuple[dict[str, Any], list[Path]]:
    """Our own metadata and the folders of all levels, finest first."""
    attributes = read_json(place / "zarr.json")["attributes"]
    paths = [entry["path"] for entry in attributes["ome"]["multiscales"][0]["datasets"]]
    return attributes["mosaik"], [place / path for path in paths]


def open_array(folder: Path) -> Any:
    """The stored array in a folder, for reading."""
    import zarr

    return zarr.open_array(str(folder), mode="r")
