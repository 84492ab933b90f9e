"""A label image that differs from a stored one in a few places, without writing the rest again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.files import saving
from napari_mosaik.io.ome import CHUNK
from napari_mosaik.io.ome_labels import LabelWriter

__all__ = ["LabelRewriter", "labels_in"]

Window = tuple[slice, slice]
LABEL_BLOCK = 2 * CHUNK
"""What `LabelWriter` writes at once of the finest level."""


class LabelRewriter(LabelWriter):
    """Writes a label image that differs from a stored one in some windows only.

    What is equal is not written again: the files of the stored image are linked, or copied where
    the file system has no links.

    Parameters
    ----------
    place, labels, name
        As for `LabelWriter`.
    stored
        Folder of the stored image, of the same shape and type.
    changed
        Windows of the finest level outside which both images are equal.
    """

    def __init__(
        self, place: Path, labels: LabelImage, name: str, stored: Path, changed: Iterable[Window]
    ) -> None:
        super().__init__(place, labels, name)
        step = LABEL_BLOCK
        touched = {
            (i, j)
            for rows, cols in changed
            for i in range(rows.start // step, (rows.stop - 1) // step + 1)
            for j in range(cols.start // step, (cols.stop - 1) // step + 1)
        }
        self._touched: list[set[tuple[int, int]]] = []
        for level in range(self.n_levels):
            if level > 1:
                touched = {(i // 2, j // 2) for i, j in touched}
            self._touched.append(touched)
            with saving(f"the label image '{name}'", place):
                self._link(stored / str(level) / "c", level)

    def windows(self, level: int) -> list[Window]:
        """The parts of a level that differ."""
        step = LABEL_BLOCK if level == 0 else CHUNK
        return [
            (rows, cols)
            for rows, cols in super().windows(level)
            if (rows.start // step, cols.start // step) in self._touched[level]
        ]

    def _link(self, chunks: Path, level: int) -> None:
        """Take over the chunks of a level that are equal."""
        per_block = LABEL_BLOCK // CHUNK if level == 0 else 1
        for path in sorted(chunks.glob("*/*")):
            index = (int(path.parent.name), int(path.name))
            if (index[0] // per_block, index[1] // per_block) in self._touched[level]:
                continue
            target = self.place / str(level) / "c" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copy2(path, target)


def labels_in(folder: Path) -> Path:
    """Where a stored result keeps its label image."""
    return folder / "labels.ome.zarr"
