"""Run-length encoded masks: objects and holes of a mask, labelled together in one scan.

A run is a sequence of equal pixels within a row.  Objects are eight-connected parts of the mask,
holes are four-connected parts of its background.  A mask has far fewer runs than pixels, so
labelling, measuring and filling cost little more than one look at each pixel, and a block is stored
in a small file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask

__all__ = ["BlockComponents", "LabelRuns", "Labels", "Runs", "find_runs", "scan_runs"]

Labels = NDArray[np.int32]
_Ints = NDArray[np.int32]
_ALL, _NONE = np.uint64(0x0101010101010101), np.uint64(0)
"""Eight pixels of the mask, and of the background, as one number."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockComponents:
    """The objects (or the holes) of one block, 1..n in order of their first pixel.

    Parameters
    ----------
    pixels
        (n,) pixel count.
    first
        (n,) flat index of the first pixel within the block.
    edges
        Labels along the block's top and bottom, (columns,), left and right edge, (rows,); 0 for
        none.
    """

    pixels: NDArray[np.int64]
    first: NDArray[np.int64]
    edges: tuple[Labels, Labels, Labels, Labels]

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Named arrays for a file."""
        sides = {f"{prefix}:edge{i}": edge for i, edge in enumerate(self.edges)}
        return {f"{prefix}:pixels": self.pixels, f"{prefix}:first": self.first, **sides}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> BlockComponents:
        """The inverse of `arrays`."""
        top, bottom, left, right = (arrays[f"{prefix}:edge{i}"] for i in range(4))
        return cls(
            arrays[f"{prefix}:pixels"], arrays[f"{prefix}:first"], (top, bottom, left, right)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of a mask with the number of the object or hole that each belongs to.

    Parameters
    ----------
    shape
        Rows and columns of the mask.
    row
        (rows + 1,) index of the first run of each row.
    start
        First column of each run; it ends where the next one of its row begins.
    inside
        Whether a run belongs to the mask.
    label
        Number of its object (inside) or of its hole (outside), each from 1 in order of the first
        pixel.
    n_objects, n_holes
        How many there are.
    """

    shape: tuple[int, int]
    row: NDArray[np.int64]
    start: _Ints
    inside: Mask
    label: _Ints
    n_objects: int
    n_holes: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays for a file, far smaller than the mask."""
        counts = np.array([*self.shape, self.n_objects, self.n_holes], np.int64)
        return {
            "runs:counts": counts,
            "runs:row": self.row,
            "runs:start": self.start,
            "runs:inside": self.inside,
            "runs:label": self.label,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Runs:
        """The inverse of `arrays`."""
        rows, cols, n_objects, n_holes = (int(value) for value in arrays["runs:counts"])
        row, start, inside, label = (
            arrays[f"runs:{name}"] for name in ("row", "start", "inside", "label")
        )
        return cls((rows, cols), row, start, inside, label, n_objects, n_holes)

    def mask(self) -> Mask:
        """The mask, shape (rows, columns)."""
        return self.filled(np.zeros(self.n_holes + 1, bool))

    def objects(self) -> BlockComponents:
        """The objects of the mask."""
        return self._parts(True, self.n_objects)

    def holes(self) -> BlockComponents:
        """The holes of the mask, the background around all objects among them."""
        return self._parts(False, self.n_holes)

    def painted(self, numbers: NDArray[np.int32] | None = None, border: int = 0) -> Labels:
        """Labels of the objects, shape (rows, columns); 0 outside.

        *numbers* (n_objects + 1,) replaces the labels, with 0 for objects to be dropped.  *border*
        adds that many pixels of 0 on each side.
        """
        if numbers is None:
            numbers = np.arange(self.n_objects + 1, dtype=np.int32)
        rows, cols = self.shape
        # NumPy asks the system for large pages, numba does not
        out = np.zeros((rows + 2 * border, cols + 2 * border), np.int32)
        inner = out[border : border + rows, border : border + cols]
        _paint(inner, self.row, self.start, self.inside, self.label, numbers)
        return out

    def filled(self, fill: Mask) -> Mask:
        """Mask (rows, columns) with the holes *fill*, a mask of shape (n_holes + 1,), filled."""
        out = np.zeros(self.shape, bool)
        _fill_runs(out, self.row, self.start, self.inside, self.label, fill)
        return out

    def _parts(self, inside: bool, n: int) -> BlockComponents:
        pixels, first = _measure(
            self.shape[1], self.row, self.start, self.inside, self.label, inside, n
        )
        edges = _edges(self.shape, self.row, self.start, self.inside, self.label, inside)
        return BlockComponents(pixels, first, edges)


@dataclass(frozen=True, slots=True, eq=False)
class LabelRuns:
    """The objects of a label image as runs of equal labels: a few bytes for each row of an object.

    Parameters
    ----------
    row
        (rows + 1,) index of the first run of each row.
    spans
        (n, 2) first column of each run, and the one after its last.
    label
        (n,) label of each run.
    """

    row: NDArray[np.int64]
    spans: _Ints
    label: _Ints

    @classmethod
    def of(cls, labels: Labels) -> LabelRuns:
        """The runs of labels of shape (rows, columns)."""
        return cls(*_label_runs(np.ascontiguousarray(labels, np.int32)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays for a file, in the smallest type that holds them."""
        named: dict[str, NDArray[Any]]
        named = {"row": self.row, "spans": self.spans, "label": self.label}
        return {
            f"objects:{name}": values.astype(np.min_scalar_type(int(values.max(initial=0))))
            for name, values in named.items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LabelRuns:
        """The inverse of `arrays`."""
        return cls(
            arrays["objects:row"].astype(np.int64),
            arrays["objects:spans"].astype(np.int32),
            arrays["objects:label"].astype(np.int32),
        )

    @property
    def n_objects(self) -> int:
        """Number of objects: the highest label."""
        return int(self.label.max(initial=0))

    def paint(self, out: Labels, corner: tuple[int, int], numbers: _Ints) -> None:
        """Paint the objects where *out*, (rows, columns), is still 0.

        *corner* is the row and column of the runs' own corner in *out*, which may lie beyond it;
        *numbers* (n_objects + 1,) gives the label of each object, 0 for one that is dropped.
        """
        _paint_free(out, corner[0], corner[1], self.row, self.spans, self.label, numbers)


@compiled
def _label_runs(labels: Labels) -> tuple[NDArray[np.int64], _Ints, _Ints]:
    rows, cols = labels.shape
    row = np.zeros(rows + 1, np.int64)
    for r in range(rows):
        row[r + 1] = row[r]
        for c in range(cols):
            row[r + 1] += labels[r, c] != 0 and (c == 0 or labels[r, c - 1] != labels[r, c])
    spans, label = np.empty((row[rows], 2), np.int32), np.empty(row[rows], np.int32)
    k = -1
    for r in range(rows):
        for c in range(cols):
            if labels[r, c] != 0:
                if c == 0 or labels[r, c - 1] != labels[r, c]:
                    k += 1
                    spans[k, 0], label[k] = c, labels[r, c]
                spans[k, 1] = c + 1
    return row, spans, label


@compiled
def _paint_free(
    out: Labels, top: int, left: int, row: NDArray[np.int64], spans: _Ints, label: _Ints,
    numbers: _Ints,
) -> None:  # fmt: skip
    for r in range(max(0, -top), min(row.size - 1, out.shape[0] - top)):
        for k in range(row[r], row[r + 1]):
            number = numbers[label[k]]
            if number != 0:
                first, stop = max(0, spans[k, 0] + left), min(out.shape[1], spans[k, 1] + left)
                for c in range(first, stop):
                    if out[r + top, c] == 0:
                        out[r + top, c] = number


def find_runs(mask: Mask) -> Runs:
    """The labelled runs of a mask of shape (rows, columns)."""
    shape = (int(mask.shape[0]), int(mask.shape[1]))
    if min(shape) == 0:
        empty = np.zeros(0, np.int32)
        rows = np.zeros(shape[0] + 1, np.int64)
        return Runs(shape, rows, empty, np.zeros(0, bool), empty, 0, 0)
    row, start, inside = scan_runs(mask)
    label, n_objects, n_holes = _connect(shape[1], row, start, inside)
    return Runs(shape, row, start, inside, label, int(n_objects), int(n_holes))


def scan_runs(mask: Mask) -> tuple[NDArray[np.int64], _Ints, Mask]:
    """Row index, start (index) and mask of the runs of a mask with at least one pixel.

    As in `Runs`: *mask* is (rows, columns), the results (rows + 1,), (n_runs,) and (n_runs,).
    """
    return _scan(*_words(mask), mask.shape[1])


@compiled
def _find(parent: NDArray[np.int64], i: int) -> int:
    """Root of a label in a union-find forest; the path to it is shortened."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _words(mask: Mask) -> tuple[Mask, NDArray[np.uint64]]:
    """The mask with columns of False up to a multiple of eight, and eight of its pixels as one."""
    cols = mask.shape[1]
    wide = np.ascontiguousarray(mask, bool)
    if cols % 8:
        wide = np.zeros((mask.shape[0], cols + 8 - cols % 8), bool)
        wide[:, :cols] = mask
    return wide, wide.view(np.uint64)


@compiled
def _scan(
    mask: Mask, words: NDArray[np.uint64], cols: int
) -> tuple[NDArray[np.int64], _Ints, Mask]:
    rows = mask.shape[0]
    row = np.zeros(rows + 1, np.int64)
    start, inside = np.empty(2 * rows + 64, np.int32), np.empty(2 * rows + 64, np.bool_)
    k = 0
    for r in range(rows):
        if k + cols >= start.size:
            start, inside = _longer(start, 2 * k + cols), _longer(inside, 2 * k + cols)
        start[k], inside[k] = 0, mask[r, 0]
        k = _starts(mask[r], words[r], cols, k, start, inside) + 1
        row[r + 1] = k
    return row, start[:k].copy(), inside[:k].copy()


@compiled
def _longer(array: Any, room: int) -> Any:
    out = np.empty(array.size + room, array.dtype)
    out[: array.size] = array
    return out


@compiled
def _starts(
    line: Mask, words: NDArray[np.uint64], cols: int, k: int, start: _Ints, inside: Mask
) -> int:
    """Where the runs of a row begin; eight pixels are passed over at once where they are equal."""
    last, same = line[0], _ALL if line[0] else _NONE
    for word in range(words.size):
        if words[word] == same:
            continue
        for c in range(8 * word, min(8 * word + 8, cols)):
            if line[c] != last:
                k += 1
                last = line[c]
                start[k], inside[k] = c, last
        same = _ALL if last else _NONE
    return k


@compiled
def _stop(start: _Ints, k: int, end: int, cols: int) -> int:
    """Column after the last one of a run; *end* is the index after the last run of its row."""
    return int(start[k + 1]) if k + 1 < end else cols


@compiled
def _connect(
    cols: int, row: NDArray[np.int64], start: _Ints, inside: Mask
) -> tuple[_Ints, int, int]:
    parent = np.arange(start.size)
    for r in range(1, row.size - 1):
        k, j, end, above = row[r], row[r - 1], row[r + 1], row[r]
        while k < end and j < above:
            stop, over = _stop(start, k, end, cols), _stop(start, j, above, cols)
            if inside[k] == inside[j]:
                _unite(parent, j, k)
            k, j = _next_pair(parent, inside, start, k, j, end, above, stop, over)
    return _number(parent, inside)


@compiled
def _next_pair(
    parent: NDArray[np.int64], inside: Mask, start: _Ints,
    k: int, j: int, end: int, above: int, stop: int, over: int,
) -> tuple[int, int]:  # fmt: skip
    """Advance past the run that ends first; runs that meet at a corner are joined on the way."""
    if stop < over:
        return k + 1, j
    if over < stop:
        return k, j + 1
    if k + 1 < end and inside[k + 1] and inside[j]:
        _unite(parent, j, k + 1)
    if j + 1 < above and inside[j + 1] and inside[k]:
        _unite(parent, j + 1, k)
    return k + 1, j + 1


@compiled
def _unite(parent: NDArray[np.int64], one: int, other: int) -> None:
    a, b = _find(parent, one), _find(parent, other)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@compiled
def _number(parent: NDArray[np.int64], inside: Mask) -> tuple[_Ints, int, int]:
    label = np.zeros(parent.size, np.int32)
    n_objects, n_holes = 0, 0
    for k in range(parent.size):
        root = _find(parent, k)
        if root != k:
            label[k] = label[root]
        elif inside[k]:
            n_objects += 1
            label[k] = n_objects
        else:
            n_holes += 1
            label[k] = n_holes
    return label, n_objects, n_holes


@compiled
def _measure(
    cols: int,
    row: NDArray[np.int64],
    start: _Ints,
    inside: Mask,
    label: _Ints,
    wanted: bool,
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pixels, first = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for r in range(row.size - 1):
        for k in range(row[r], row[r + 1]):
            if inside[k] == wanted:
                i = label[k] - 1
                if pixels[i] == 0:
                    first[i] = r * cols + start[k]
                pixels[i] += _stop(start, k, row[r + 1], cols) - start[k]
    return pixels, first


@compiled
def _edges(
    shape: tuple[int, int], row: NDArray[np.int64], start: _Ints, inside: Mask, label: _Ints,
    wanted: bool,
) -> tuple[Labels, Labels, Labels, Labels]:  # fmt: skip
    rows, cols = shape
    left, right = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    for r in range(rows):
        first, last = row[r], row[r + 1] - 1
        if cols > 0 and inside[first] == wanted:
            left[r] = label[first]
        if cols > 0 and inside[last] == wanted:
            right[r] = label[last]
    top = _line(cols, row, start, inside, label, wanted, 0)
    return top, _line(cols, row, start, inside, label, wanted, rows - 1), left, right


@compiled
def _line(
    cols: int,
    row: NDArray[np.int64],
    start: _Ints,
    inside: Mask,
    label: _Ints,
    wanted: bool,
    r: int,
) -> Labels:
    """Labels along one row."""
    out = np.zeros(cols, np.int32)
    if row.size > 1:
        for k in range(row[r], row[r + 1]):
            if inside[k] == wanted:
                out[start[k] : _stop(start, k, row[r + 1], cols)] = label[k]
    return out


@compiled
def _paint(
    out: Labels, row: NDArray[np.int64], start: _Ints, inside: Mask, label: _Ints,
    numbers: NDArray[np.int32],
) -> None:  # fmt: skip
    for r in range(row.size - 1):
        for k in range(row[r], row[r + 1]):
            if inside[k] and numbers[label[k]] != 0:
                stop = _stop(start, k, row[r + 1], out.shape[1])
                out[r, start[k] : stop] = numbers[label[k]]


@compiled
def _fill_runs(
    out: Mask, row: NDArray[np.int64], start: _Ints, inside: Mask, label: _Ints, fill: Mask
) -> None:
    for r in range(row.size - 1):
        for k in range(row[r], row[r + 1]):
            if inside[k] or fill[label[k]]:
                out[r, start[k] : _stop(start, k, row[r + 1], out.shape[1])] = True
