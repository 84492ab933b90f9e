"""The stored results of a case: each complete or absent, those of one step together.

A commit writes into a staging folder, last of all a marker.  With the marker the results are valid,
and the next process that opens the case for writing completes the renames.  Without the marker the
staging folder is incomplete and is removed.

A result that is replaced moves to the folder ``earlier`` beside the results, by the digest of its
origin, for as long as something refers to it (`prune`): what was computed from it and is stale now
finds there what has changed since.  Files are never changed in place, so an equal result under a
new origin shares them by hard links (`restate`).
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Origin
from napari_mosaik.core.atomic import move_folder
from napari_mosaik.core.catalogue import COMPUTED_ON, RECOMPUTED
from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError, require_memory
from napari_mosaik.core.manifest import (
    damaged_files,
    is_settled,
    listed_files,
    read_sealed,
    sealed,
    settled,
)
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.recent import RecentFiles
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.files import (
    json_ready,
    link_files,
    read_json,
    remove_tree,
    saving,
    unreadable,
    write_bytes,
    write_json,
)
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

__all__ = ["CaseStore"]

T = TypeVar("T")
_MARKER = "COMMIT.json"
_STAGING = ".staging-"
_ORIGIN, _RECORD = "origin.json", "record.json"
_OF_THE_RUN = ("version", "time", "seconds", RECOMPUTED, COMPUTED_ON)
"""Entries of a record that say when, where and how it was computed, not what."""
CHECKED_BYTES = 128 * 2**20
"""Image chunks of results up to this size are verified by their digests when they are read."""
GLANCE_BYTES = 8 * 2**20
"""Image chunks of results up to this size are verified when the status is asked for."""


class CaseStore:
    """The artifacts folder of one case.

    Parameters
    ----------
    root
        The folder; created at the first commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def version(self, artifact: Artifact[Any], digest: str) -> CaseStore | None:
        """The store that holds the version of an artifact with this digest of its origin."""
        for store in (self, CaseStore(self._earlier(digest))):
            with contextlib.suppress(CorruptArtifact, OSError):
                origin = store.origin(artifact)
                if origin is not None and origin.digest() == digest:
                    return store
        return None

    def _earlier(self, digest: str) -> Path:
        return self.root.parent / "earlier" / digest[:16]

    def files(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """Size and digest of every file of a stored artifact except its origin."""
        stated = self._stated(artifact)
        return {} if stated is None else dict(stated["files"])

    def same_content(self, artifact: Artifact[Any], one: str, other: str) -> bool:
        """Whether two versions of an artifact, by the digests of their origins, are equal.

        Their records may differ in program version and time only: some steps read the record.
        """
        if one == other:
            return True
        stores = [self.version(artifact, digest) for digest in (one, other)]
        with contextlib.suppress(CorruptArtifact):  # of an old version the origin may be left alone
            states = [
                (store.files(artifact), _lasting(store.record(artifact)))
                for store in stores
                if store is not None
            ]
            return len(states) == 2 and states[0] == states[1]
        return False

    def folder(self, artifact: Artifact[Any]) -> Path:
        """Folder of the artifact; it need not exist."""
        return self.root / artifact.name

    def origin(self, artifact: Artifact[Any]) -> Origin | None:
        """Origin of the stored artifact; None when there is none.

        Raises `CorruptArtifact` if the record of the origin is damaged, as every method here does.
        """
        stated = self._stated(artifact)
        with self._damage_named(artifact):
            return None if stated is None else Origin.from_dict(stated["origin"])

    def stamp(self, artifact: Artifact[Any]) -> tuple[int, int, int] | None:
        """The entry of the file of its origin, which every commit replaces; None if absent."""
        with contextlib.suppress(OSError):
            about = os.stat(self.folder(artifact) / _ORIGIN)
            return about.st_ino, about.st_size, about.st_mtime_ns
        return None

    def inputs(self, name: str) -> Iterator[str]:
        """The digests of a source that stored results were computed from."""
        for path in sorted(self.root.glob("*/origin.json")):
            with contextlib.suppress(CorruptArtifact, OSError):
                stated = _read_once(path)
                yield from (d for n, d in stated["origin"]["inputs"] if n == name)

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """How the artifact was computed: program version, time, duration, settings."""
        if self._stated(artifact) is not None:
            try:
                with self._damage_named(artifact):
                    return dict(_read_once(self.folder(artifact) / _RECORD))
            except FileNotFoundError:
                self._refuse(artifact, [(_RECORD, "missing")])
        return {}

    def read(self, artifact: Artifact[T]) -> T:
        """The stored value; an absent one raises `InputError`, a damaged one `CorruptArtifact`."""
        if self._stated(artifact) is None:
            raise InputError(f"there is no result '{artifact.name}' yet; run its step first")
        self._check(artifact, CHECKED_BYTES)
        with self._damage_named(artifact):
            value: T = _read_value(artifact, self.folder(artifact))
        return value

    def part(self, artifact: Artifact[Table], *columns: str) -> tuple[int, Table]:
        """The number of rows of a stored table, and the table with some of its columns only.

        Nothing else is read of millions of rows; units and sentences are those of all columns.
        Raises as `read` does, and `InputError` where a column is missing.
        """
        if self._stated(artifact) is None:
            raise InputError(f"there is no result '{artifact.name}' yet; run its step first")
        self._check(artifact, CHECKED_BYTES)
        with self._damage_named(artifact):
            path = self.folder(artifact) / "table.parquet"
            found, meta, rows = _read_parquet(path, columns)
        table = Table(found, meta["units"], meta["about"], meta["frame"])
        for name in columns:
            _ = table[name]
        return rows, table

    def glance(self, artifact: Artifact[Any]) -> None:
        """Raise `CorruptArtifact` if a file of a stored artifact is missing or was changed.

        The image chunks of large artifacts are verified only when they are read.
        """
        self.record(artifact)
        self._check(artifact, GLANCE_BYTES, glance=True)

    def _check(
        self, artifact: Artifact[Any], checked_bytes: float, *, glance: bool = False
    ) -> None:
        stated, folder = self._stated(artifact), self.folder(artifact)
        if stated is not None:
            wrong = damaged_files(folder, stated["files"], checked_bytes, glance=glance)
            self._refuse(artifact, wrong)

    def _stated(self, artifact: Artifact[Any]) -> dict[str, Any] | None:
        """The content of the origin's file; None when there is no result."""
        path = self.folder(artifact) / _ORIGIN
        try:
            with self._damage_named(artifact):
                return _read_once(path)
        except FileNotFoundError:
            if path.parent.is_dir():
                self._refuse(artifact, [(_ORIGIN, "missing")])
            return None

    def _refuse(self, artifact: Artifact[Any], wrong: Iterable[tuple[str, str]]) -> None:
        for name, how in wrong:
            raise CorruptArtifact(
                f"the stored result '{artifact.name}' is damaged: "
                f"{self.folder(artifact) / name} is {how}; run its step again with --force"
            )

    @contextlib.contextmanager
    def _damage_named(self, artifact: Artifact[Any]) -> Iterator[None]:
        """Name the result in whatever goes wrong while its files are read."""
        try:
            yield
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise unreadable(error) from error
        except InputError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            raise self._damaged(artifact, error) from error
        except (MosaikError, KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            require_memory(error)
            raise self._damaged(artifact, error) from error

    def _damaged(self, artifact: Artifact[Any], error: Exception) -> CorruptArtifact:
        return CorruptArtifact(
            f"the stored result '{artifact.name}' in {self.folder(artifact)} is damaged ({error}); "
            "run its step again with --force"
        )

    def commit(
        self,
        origin: Origin,
        values: Mapping[Artifact[Any], object],
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the results of one step together; the caller holds the case's write lock."""
        with self._staged(origin.step) as staging:
            for artifact, value in values.items():
                folder = staging / artifact.name
                folder.mkdir(parents=True)
                _write_value(artifact, folder, value)
                # The record holds times, so the origin, which is reproducible, does not
                # hold its digest.
                stated = {"origin": origin.as_dict(), "files": listed_files(folder)}
                write_json(folder / _RECORD, sealed(json_ready(record or {})))
                _write_origin(folder, stated)

    def restate(self, origin: Origin, artifacts: Iterable[Artifact[Any]]) -> None:
        """Store the stored results of one step under a new origin; their files are shared."""
        with self._staged(origin.step) as staging:
            for artifact in artifacts:
                own = {_ORIGIN: {"origin": origin.as_dict(), "files": self.files(artifact)}}
                for place, _, names in os.walk(self.folder(artifact)):
                    here = Path(place)
                    target = staging / artifact.name / here.relative_to(self.folder(artifact))
                    link_files(here, target, [name for name in names if name not in own])
                _write_origin(staging / artifact.name, own[_ORIGIN])

    @contextlib.contextmanager
    def _staged(self, step: str) -> Iterator[Path]:
        """A folder for new results of a step: all of them replace the stored ones, or none."""
        staging = self.root / f"{_STAGING}{uuid.uuid4().hex[:12]}"
        with saving(f"the result of '{step}'", self.root):
            try:
                yield staging
                write_json(staging / _MARKER, {"step": step})
            except BaseException:
                with contextlib.suppress(Exception):
                    remove_tree(staging)
                raise
            self._roll_forward(staging)

    def prune(self, pinned: Collection[tuple[str, str]] = ()) -> None:
        """Remove the earlier versions that no stored result was computed from, but the *pinned*.

        Those are names of artifacts and digests of their origins.  Of versions that only earlier
        ones were computed from, the origin is kept.  The caller holds the write lock.
        """
        whole = {(name, digest[:16]) for name, digest in pinned}
        whole |= self._inputs_of(self.root.glob("*/origin.json"))
        earlier, named, new = self.root.parent / "earlier", set(whole), set(whole)
        while new:
            paths = [earlier / digest / name / _ORIGIN for name, digest in new]
            new = self._inputs_of(path for path in paths if path.is_file()) - named
            named |= new
        for folder in earlier.glob("*/*"):
            if (folder.name, folder.parent.name) in whole:
                continue
            for part in folder.iterdir():
                if part.is_dir():
                    remove_tree(part)
                elif part.name != _ORIGIN:
                    part.unlink()
            if (folder.name, folder.parent.name) not in named:
                remove_tree(folder)
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()

    def _inputs_of(self, paths: Iterable[Path]) -> set[tuple[str, str]]:
        """Names and short digests of the inputs that some files of origins state."""
        found = set()
        for path in paths:
            with contextlib.suppress(CorruptArtifact, OSError):
                stated = _read_once(path)
                found |= {(name, digest[:16]) for name, digest in stated["origin"]["inputs"]}
        return found

    def recover(self) -> None:
        """Complete commits that were interrupted after their marker, and remove the others.

        The caller holds the case's write lock.
        """
        if not self.root.is_dir():
            return
        for staging in sorted(self.root.glob(f"{_STAGING}*")):
            if (staging / _MARKER).is_file():
                self._roll_forward(staging)
            else:
                remove_tree(staging)

    def _roll_forward(self, staging: Path) -> None:
        for folder in sorted(path for path in staging.iterdir() if path.is_dir()):
            target = self.root / folder.name
            if target.exists():
                self._put_aside(target)
            folder.rename(target)
        remove_tree(staging)

    def _put_aside(self, folder: Path) -> None:
        """Move a replaced result to the earlier ones; a damaged one is removed."""
        try:
            stated = read_sealed(folder / _ORIGIN)
            place = self._earlier(Origin.from_dict(stated["origin"]).digest()) / folder.name
            remove_tree(place)
            place.parent.mkdir(parents=True, exist_ok=True)
        except (MosaikError, OSError, KeyError, ValueError, TypeError):
            place = self.root / f"{_STAGING}old-{uuid.uuid4().hex[:12]}"
        move_folder(folder, place)
        if place.parent == self.root:
            remove_tree(place)

    def discard(self, artifact: Artifact[Any]) -> None:
        """Remove a stored artifact; the caller holds the case's write lock."""
        remove_tree(self.folder(artifact))


def _write_origin(folder: Path, stated: Mapping[str, Any]) -> None:
    """Write an origin and the list of files, often thousands, as one line."""
    text = json.dumps(sealed(stated), sort_keys=True)
    write_bytes(folder / _ORIGIN, text.encode() + b"\n")


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what says when and how a result was computed."""
    return {key: value for key, value in record.items() if key not in _OF_THE_RUN}


_KNOWN: dict[tuple[str, int, int], dict[str, Any]] = {}


def _read_once(path: Path) -> dict[str, Any]:
    """The content of an origin or a record, which is read again only when its file changes."""
    stat = path.stat()
    key = (str(path), stat.st_mtime_ns, stat.st_ino)
    if key not in _KNOWN:
        found = read_sealed(path)
        if is_settled(stat):
            _KNOWN[key] = found
        return found
    return _KNOWN[key]


# --- values: one format for each kind of result ---------------------------------------------------
def _write_value(artifact: Artifact[Any], folder: Path, value: Any) -> None:
    """Write *value* into the empty *folder* in the format of its kind."""
    if not isinstance(value, artifact.kind):
        raise TypeError(f"{artifact.name} must be a {artifact.kind.__name__}, not {type(value)}")
    writers: dict[type[Any], Callable[[Path, Any, str], None]] = {
        Raster: lambda place, raster, what: write_raster(place / "image.ome.zarr", raster, what),
        LabelImage: _write_labels,
        Table: _write_table,
        TileGrid: _write_grid,
        dict: lambda place, content, _: write_json(place / "document.json", content),
    }
    writers[artifact.kind](folder, value, artifact.name)


def _read_value(artifact: Artifact[Any], folder: Path) -> Any:
    """Read what `_write_value` wrote; label images stay on disk and are read block by block."""
    readers: dict[type[Any], Callable[[Path], Any]] = {
        Raster: _read_raster,
        LabelImage: lambda place: read_labels(place / "labels.ome.zarr"),
        Table: _read_table,
        TileGrid: _read_grid,
        dict: lambda place: read_json(place / "document.json"),
    }
    return readers[artifact.kind](folder)


# --- tables ---------------------------------------------------------------------------------------
def _write_table(folder: Path, table: Table, name: str) -> None:
    import pyarrow as pa

    columns: dict[str, Any] = {key: _arrow(np.asarray(table[key])) for key in table}
    meta = {"units": dict(table.units), "about": dict(table.about), "frame": table.frame}
    metadata = {b"mosaik": json.dumps(meta, sort_keys=True).encode()}
    if "row_um" in table and "column_um" in table:
        columns["geometry"] = _points_wkb(table)
        metadata[b"geo"] = json.dumps(_geo_metadata()).encode()
    stored = pa.table(columns).replace_schema_metadata(metadata)
    _write_parquet(stored, folder / "table.parquet")
    if sum(table[key].nbytes for key in table) <= _TABLES.limit:
        # The caller may change its arrays, so what is kept for the next step is a copy of them.
        own = {key: stored[key].to_numpy() for key in table}
        own |= {key: np.array(own[key]) for key in table if not _is_fixed(table[key])}
        _TABLES.keep(
            settled(folder / "table.parquet"), _table(own, json.loads(metadata[b"mosaik"]))
        )


def _is_fixed(column: NDArray[Any]) -> bool:
    """Whether nobody can change the numbers of a column."""
    return not (column.flags["W"] or isinstance(column.base, np.ndarray))


def _arrow(column: NDArray[Any]) -> Any:
    """A column as an arrow array; of texts, which are mostly empty, the others are encoded."""
    import pyarrow as pa

    if column.dtype.kind != "U":
        return pa.array(column)
    given = np.flatnonzero(column != "")
    texts = [text.encode() for text in column[given].tolist()]
    lengths = np.zeros(len(column) + 1, np.int64)
    lengths[given + 1] = [len(text) for text in texts]
    ends = lengths.cumsum()
    if ends[-1] >= 2**31:
        return pa.array(column)
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(column), buffers)


def _write_parquet(table: Any, path: Path) -> None:
    """Write an arrow table; measurements hardly repeat, so they get no dictionary of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    repeated = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table, path, compression="lz4", write_page_checksum=True, use_dictionary=repeated
    )


def _points_wkb(table: Table) -> Any:
    """The positions as an arrow array of WKB: byte order, type "point", x, y."""
    import pyarrow as pa

    points = np.asarray(table.points_um(), float)
    wkb = np.zeros(len(points), [("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
    wkb["order"] = wkb["type"] = 1
    wkb["x"], wkb["y"] = points[:, 1], points[:, 0]
    ends = np.arange(len(points) + 1, dtype=np.int32) * np.int32(wkb.itemsize)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(wkb.view(np.uint8))]
    return pa.Array.from_buffers(pa.binary(), len(points), buffers)


def _geo_metadata() -> dict[str, Any]:
    column = {"encoding": "WKB", "geometry_types": ["Point"], "crs": None}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _read_parquet(
    path: Path, only: Collection[str] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], int]:
    """Columns, or *only* some, our metadata, and the number of rows of a table."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        meta = json.loads((file.schema_arrow.metadata or {})[b"mosaik"])
        names = [name for name in file.schema_arrow.names if name != "geometry"]
        if only is not None:
            names = [name for name in names if name in only]
        # One after the other: of millions of rows only one column exists twice.
        columns = {name: _values(file.read([name])[name]) for name in names}
        return columns, meta, file.metadata.num_rows


_FEW_TEXTS = 50_000


def _values(column: Any) -> NDArray[Any]:
    """The values (n,) of a column of Arrow.

    Numbers and few texts are taken as they are: Arrow's own way loads pandas, which takes 0.15 s.
    """
    from pyarrow import types, uint8

    if types.is_string(column.type) and len(column) <= _FEW_TEXTS:
        return np.array(column.to_pylist(), object)
    if types.is_boolean(column.type) and not column.null_count:
        return _values(column.cast(uint8())).astype(bool)
    numbers = types.is_integer(column.type) or types.is_floating(column.type)
    if not numbers or column.null_count or not column.num_chunks:
        return np.asarray(column.to_numpy())
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


_TABLES: RecentFiles[Table] = RecentFiles(
    128 * 2**20, lambda table: sum(table[name].nbytes for name in table)
)
"""The tables that were read last."""


def _read_table(folder: Path) -> Table:
    """A stored table; its arrays are read-only, so that one that was read before may be shared."""
    about = (folder / "table.parquet").stat()
    table = _TABLES.read(about)
    if table is None:
        table = _table(*_read_parquet(folder / "table.parquet")[:2])
        _TABLES.keep(about, table)
    return table


def _table(columns: dict[str, NDArray[Any]], meta: Mapping[str, Any]) -> Table:
    for column in columns.values():
        column.setflags(write=False)
    return Table(columns, meta["units"], meta["about"], meta["frame"])


def _write_grid(folder: Path, grid: TileGrid, name: str) -> None:
    import pyarrow as pa

    meta = {"lattice": lattice_dict(grid.lattice), "size_um": grid.size_um}
    columns = {"position": grid.kept, "coverage": grid.coverage, "inner": grid.inner}
    stored = pa.table({key: pa.array(value) for key, value in columns.items()})
    stored = stored.replace_schema_metadata({b"mosaik": json.dumps(meta).encode()})
    _write_parquet(stored, folder / "table.parquet")


def _read_grid(folder: Path) -> TileGrid:
    columns, meta, _ = _read_parquet(folder / "table.parquet")
    return TileGrid(
        lattice_from(meta["lattice"]),
        float(meta["size_um"]),
        columns["position"].astype(np.int64),
        columns["coverage"].astype(float),
        columns["inner"].astype(bool),
    )


# --- images ---------------------------------------------------------------------------------------
def write_raster(place: Path, raster: Raster, name: str) -> None:
    """Write a map (rows, columns) in its unit (Gy, SUV, µm...) as a new OME-Zarr image."""
    values = raster.values
    has_channels = values.ndim == 3
    planes = np.moveaxis(values, -1, 0) if has_channels else values
    stored = planes.astype(np.uint8) if values.dtype == np.bool_ else planes
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
        move_folder(labels.folder, place)
        return
    writer = LabelWriter(place, labels, name)
    for level in range(writer.n_levels):
        for window in writer.windows(level):
            writer.write(level, window)
    writer.finish()
