"""The state of a reader's annotations at one entry of the journal, as GeoParquet beside it.

    journal.jsonl ─► entries 0…n ─► annotation-he.parquet {digest of these entries}
                  ─► entries n+1… are applied to it when the document is opened

The journal stays whole and remains the truth.  A file that does not stand for the beginning of the
journal as it is now is not used, so that no moment at which the program ends can hurt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import shapely

from napari_mosaik.annotate.state import Entry, Snapshot, class_from, class_record
from napari_mosaik.core.atomic import atomic_file, flush_to_disk
from napari_mosaik.core.journal import JournalScan, annotation_part
from napari_mosaik.core.shapes import AnnotatedShape

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Compacted", "read_compacted", "write_compacted"]

_ABOUT: Final = b"napari_mosaik"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Compacted:
    """The annotations after entry *n* of a journal; *next_order* continues their drawing order."""

    n: int
    snapshot: Snapshot
    next_order: int


def write_compacted(scan: JournalScan, stain: str, state: Compacted) -> Path:
    """Write a state beside its journal, complete or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    entries = list(state.snapshot.entries.values())
    shapes = [entry.shape for entry in entries]
    about = {
        "format": FORMAT,
        "n": state.n,
        "digest": scan.digest(state.n),
        "next_order": state.next_order,
        "classes": [class_record(known) for known in state.snapshot.classes],
    }
    table = pa.table(
        {
            "key": pa.array([shape.key for shape in shapes], pa.string()),
            "label": pa.array([shape.label for shape in shapes], pa.string()).dictionary_encode(),
            "colour": pa.array([shape.colour for shape in shapes], pa.string()).dictionary_encode(),
            "drawing_order": pa.array([entry.order for entry in entries], pa.int64()),
            "properties": pa.array([_text(shape.properties) for shape in shapes], pa.string()),
            "geometry": pa.array(
                shapely.to_wkb([shape.geometry for shape in shapes], flavor="iso"), pa.binary()
            ),
        }
    ).replace_schema_metadata({b"geo": json.dumps(_GEO).encode(), _ABOUT: json.dumps(about)})
    path = _path(scan, stain)
    with atomic_file(path) as scratch, scratch.open("wb") as file:
        parquet.write_table(
            table, file, compression="zstd", row_group_size=8192, write_page_checksum=True
        )
        flush_to_disk(file)
    return path


_GEO: Final = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
    },
}


def read_compacted(scan: JournalScan, stain: str) -> Compacted | None:
    """The stored state that stands for the beginning of a journal; None if there is none."""
    import pyarrow as pa
    from pyarrow import parquet

    path = _path(scan, stain)
    if not path.is_file():
        return None
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            about = json.loads((file.schema_arrow.metadata or {})[_ABOUT])
            if about["format"] != FORMAT or about["digest"] != scan.digest(about["n"]):
                return None
            later = (
                entry for entry in scan.of_part(annotation_part(stain)) if entry.n > about["n"]
            )
            if any(0 <= entry.of <= about["n"] for entry in later):
                return None  # a part of it was undone since
            entries = dict[str, Entry]()
            for group in range(file.num_row_groups):
                entries |= _entries(file.read_row_group(group))
            classes = tuple(map(class_from, about["classes"]))
            return Compacted(about["n"], Snapshot(classes, entries), about["next_order"])
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException, shapely.GEOSException):
        return None  # damaged: the journal holds all


def _entries(table: pyarrow.Table) -> Mapping[str, Entry]:
    columns = (
        table.column(name).to_pylist()
        for name in ("key", "label", "colour", "drawing_order", "properties")
    )
    areas: Any = shapely.from_wkb(table.column("geometry").to_numpy())
    return {
        key: Entry(
            order, AnnotatedShape(key, label, area, colour, json.loads(text) if text else {})
        )
        for key, label, colour, order, text, area in zip(*columns, areas, strict=True)
    }


def _text(properties: Mapping[str, Any]) -> str:
    return json.dumps(properties) if properties else ""


def _path(scan: JournalScan, stain: str) -> Path:
    return scan.path.with_name(f"annotation-{stain}.parquet")
