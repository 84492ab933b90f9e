"""Stored virtual levels: losslessly compressed tiles in a folder that is complete or absent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_mosaik.core.atomic import scratch_path
from napari_mosaik.io.files import read_json, write_json
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel

__all__ = ["PyramidStore"]

_log = logging.getLogger(__name__)


class PyramidStore:
    """Tiles of some levels of one slide, by number of the level.

    Chunks carry a checksum.  A chunk that cannot be read is recomputed from the slide.
    """

    def __init__(self, folder: Path, arrays: Mapping[int, Any]) -> None:
        self.folder = folder
        self._arrays = dict(arrays)
        self._damaged = False

    @classmethod
    def open(cls, folder: Path, levels: Mapping[int, StoredLevel]) -> Self | None:
        """The stored levels; None if the folder is missing or contains other levels."""
        import zarr

        if not folder.is_dir():
            return None
        try:
            stated = read_json(folder / "zarr.json")["attributes"]["mosaik"]["levels"]
            arrays = {n: zarr.open_array(str(folder / str(n)), mode="r") for n in levels}
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the slide has the pixels
            _log.warning("the stored pyramid %s is damaged and not used (%s)", folder, error)
            return None
        shapes = {n: (*level.shape, 3) for n, level in levels.items()}
        fits = stated == sorted(levels) and all(arrays[n].shape == shapes[n] for n in levels)
        if not fits:
            _log.warning("the stored pyramid %s is damaged and not used", folder)
            return None
        return cls(folder, arrays)

    @classmethod
    def draft(cls, folder: Path, levels: Mapping[int, StoredLevel]) -> Self:
        """An empty store in a scratch folder beside *folder*; `finish` renames it."""
        import zarr
        from zarr.codecs import ZstdCodec

        place = scratch_path(folder)
        place.mkdir(parents=True)
        arrays = {
            n: zarr.create_array(
                store=str(place / str(n)),
                shape=(*level.shape, 3),
                dtype=np.uint8,
                chunks=(min(level.tile[0], level.shape[0]), min(level.tile[1], level.shape[1]), 3),
                compressors=[ZstdCodec(level=1, checksum=True)],
                config={"write_empty_chunks": True},
            )
            for n, level in levels.items()
        }
        return cls(place, arrays)

    def finish(self, folder: Path) -> None:
        """Write the metadata that mark the store as complete, and rename it.

        If two processes finish at once, the first one wins.
        """
        attributes = {
            "mosaik": {"kind": "levels made from a slide", "levels": sorted(self._arrays)}
        }
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        write_json(self.folder / "zarr.json", document)
        try:
            self.folder.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise

    def put(self, level: int, row: int, column: int, pixels: Pixels) -> None:
        """Store one tile, shape (rows, columns, 3), uint8."""
        th, tw, _ = self._arrays[level].chunks
        top, left = row * th, column * tw
        self._arrays[level][top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile, shape (rows, columns, 3), uint8; None where it cannot be read."""
        array = self._arrays[level]
        th, tw, _ = array.chunks
        try:
            pixels: Pixels = np.asarray(
                array[row * th : (row + 1) * th, column * tw : (column + 1) * tw]
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the slide has the pixels
            if not self._damaged:
                self._damaged = True
                _log.warning("the stored pyramid %s is damaged (%s)", self.folder, error)
            return None
        return pixels
