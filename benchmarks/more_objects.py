"""Repeat the nuclei and vessels of a case until there are as many as asked for.

python benchmarks/more_objects.py CASE [--nuclei 3000000] [--vessels 50000]

For measuring the window (`walk.py --case CASE`), not for results: each further copy of all objects
is shifted by some pixels and lies where the slide had none; what a copy shares with an earlier one
belongs to that.  Labels, their pyramids and the tables are stored as a step stores them, under the
origin of the step, so that the steps of the case stay done.  It changes the case.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import OBJECTS
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case

SHIFTS_PX = ((0, 0), (11, 16), (18, -9), (-15, 14), (-10, -18), (21, 3), (3, 23), (-22, 2))
"""By so many rows and columns the copies are shifted, in turn and then further."""


class Repeated:
    """Labels with copies of all objects, (rows, columns), computed where they are asked for."""

    def __init__(self, labels: LabelImage, n: int, total: int) -> None:
        self._labels, self._n, self._total = labels.values, n, total
        self.shape, self.dtype = labels.values.shape, labels.values.dtype

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        rows, cols = key
        found = np.asarray(self._labels[rows, cols]).copy()
        if not found.any():
            return found
        for copy, (down, right) in enumerate(shifts(self._n, self._total)):
            if copy:
                here = self._shifted(rows, cols, down, right)
                here[here > 0] += copy * self._n
                here[here > self._total] = 0
                np.copyto(found, here, where=found == 0)
        return found

    def _shifted(self, rows: slice, cols: slice, down: int, right: int) -> Any:
        out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), self.dtype)
        top, left = max(rows.start - down, 0), max(cols.start - right, 0)
        bottom = min(rows.stop - down, self.shape[0])
        part = self._labels[top:bottom, left : min(cols.stop - right, self.shape[1])]
        r, c = top + down - rows.start, left + right - cols.start
        out[r : r + part.shape[0], c : c + part.shape[1]] = part
        return out


def shifts(n: int, total: int) -> list[tuple[int, int]]:
    """The shift of each copy, (rows, columns) in pixels, the first (0, 0)."""
    copies, known = -(-total // n), len(SHIFTS_PX)
    return [
        (SHIFTS_PX[i % known][0] + 5 * (i // known), SHIFTS_PX[i % known][1] + 9 * (i // known))
        for i in range(copies)
    ]


def repeat(case: Case, what: str, total: int) -> int:
    """Repeat the "nuclei" or "vessels" of a case, corrected ones included; how many there are."""
    found = 0
    for labels_of, table_of in OBJECTS[what]:
        origin = case.store.origin(labels_of)
        if origin is None:
            continue
        labels, table = case.store.read(labels_of), case.store.read(table_of)
        n = len(table)
        step, moved = labels.lattice.spacing_um, shifts(n, total)
        columns = {name: np.tile(np.asarray(table[name]), len(moved))[:total] for name in table}
        for axis, name in enumerate(("row_um", "column_um")):
            by = np.repeat([shift[axis] * step[axis] for shift in moved], n)[:total]
            columns[name] = columns[name] + by
        more = Table(columns, table.units, table.about, table.frame)
        image = LabelImage(Repeated(labels, n, total), labels.lattice, labels.names)
        kept: dict[Any, Any] = {labels_of: image, table_of: more}
        record = case.store.record(labels_of)
        with case.writing():
            case.store.commit(origin, kept, record)
        found = len(more)
    return found


def main() -> None:
    """Repeat both kinds of object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path, help="a finished case; it is changed")
    parser.add_argument("--nuclei", type=int, default=3_000_000)
    parser.add_argument("--vessels", type=int, default=50_000)
    options = parser.parse_args()
    case = Case(options.case)
    for what in ("nuclei", "vessels"):
        print(f"{repeat(case, what, getattr(options, what)):,} {what}")


if __name__ == "__main__":
    main()
