"""Manual editing of a label image: objects are added, deleted, merged, split and given a class.

    labels on the disk ──read──► patches (copied when changed) ──compact──► labels 1 to m again

An object is found by its pixel count: the window around its centroid grows until it holds all of
its pixels.  So only the surroundings of corrected objects are read, whatever the size of the slide,
and the result does not depend on how the image is stored.  While objects are edited their labels
stay; at the end the highest labels move into the gaps, so that few pixels change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_mosaik.core.corrections import (
    OBJECT_SIZES_UM2,
    Correction,
    Point,
    correction_area,
    targets_of,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice, Mask
from napari_mosaik.core.raster import LazyArray
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.table import Table
from napari_mosaik.core.window import Slices, overlap_slices, paste

__all__ = [
    "MANUAL_CLASS",
    "MANUAL_EDIT",
    "MAX_MERGE_GAP_UM",
    "Edited",
    "ObjectEditor",
    "apply_corrections",
    "corrected_table",
]

MAX_MERGE_GAP_UM = 100.0
"""Objects farther apart than this, in rows or columns, cannot be merged, µm."""
OTHER_SIZE = 2.0
"""An object that is this many times larger or smaller than the corrected one is another object."""
MANUAL_EDIT, MANUAL_CLASS = "manual_edit", "manual_class"
_ABOUT = {
    MANUAL_EDIT: "how a reader has made the object: added, merged or split; empty as segmented",
    MANUAL_CLASS: "class that a reader has assigned to the object",
}
_PATCH = 256
_AROUND = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class Edited:
    """What editing has made of the objects.

    Parameters
    ----------
    rows
        (m,) row in the table of the segmented objects for each label 1 to m (index); -1 for an
        object that a reader has made by drawing, merging or splitting.
    made
        Label and window of each manually made object, and how ("added", "merged", "split").
    words
        Assigned class by label.
    windows
        Windows of the image in which pixels changed.
    """

    rows: NDArray[np.int64]
    made: dict[int, tuple[Slices, str]]
    words: dict[int, str]
    windows: list[Slices]


class ObjectEditor:
    """A label image whose objects can be edited; the stored image is never changed.

    It is read like the image (two slices without step), with all edits applied.

    Parameters
    ----------
    labels
        (rows, columns) labels on *lattice*, as segmented; ``k`` is row ``k - 1`` of *table*.
    lattice
        Where the pixels lie.
    table
        The objects with ``row_um``, ``column_um``, ``area_um2`` and ``major_axis_um``.
    what
        "vessels" or "nuclei", of which the plausible sizes are known.
    """

    def __init__(
        self, labels: LazyArray, lattice: Lattice, table: Table, what: str = "objects"
    ) -> None:
        self.shape, self.dtype, self.ndim = tuple(labels.shape), np.dtype(np.int32), 2
        self.lattice, self.what = lattice, what
        self._labels, self._n = labels, len(table)
        self._pixels = np.rint(np.asarray(table["area_um2"]) / lattice.sample_area_um2)
        self._centres = lattice.to_index(table.points_um())
        self._reach = np.asarray(table["major_axis_um"]) / min(lattice.spacing_um) / 2 + 2
        self._patches: dict[tuple[int, int], NDArray[np.int32]] = {}
        self._made: dict[int, tuple[Slices, str]] = {}
        self._removed: set[int] = set()
        self._words: dict[int, str] = {}
        self._next = self._n + 1

    # --- reading --------------------------------------------------------------------------------
    def __getitem__(self, key: Slices) -> NDArray[np.int32]:
        r0, r1, _ = key[0].indices(self.shape[0])
        c0, c1, _ = key[1].indices(self.shape[1])
        out = np.array(self._labels[r0:r1, c0:c1], np.int32)
        for (i, j), patch in self._patches.items():
            paste(out, (r0, c0), patch, (i * _PATCH, j * _PATCH))
        return out

    def at(self, place_um: Point) -> int:
        """Label of the object at a position in µm; 0 where there is none."""
        row, col = np.floor(self.lattice.to_index([place_um])[0] + 0.5).astype(int)
        if not (0 <= row < self.shape[0] and 0 <= col < self.shape[1]):
            return 0
        return int(self[row : row + 1, col : col + 1][0, 0])

    def within(self, area: shapely.Polygon | shapely.MultiPolygon) -> list[int]:
        """Labels of the objects whose centroid lies in an area (x = column, y = row, µm)."""
        (left, top, right, bottom), gone = area.bounds, {*self._removed, *self._made}
        points = self.lattice.to_um(self._centres)
        low, high = np.array([top, left]), np.array([bottom, right])
        near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
        inside = shapely.contains_xy(area, points[near, 1], points[near, 0])
        found = [label for label in (near[inside] + 1).tolist() if label not in gone]
        for label in sorted(self._made):
            window, mask = self.mask(label)
            corner = np.array([window[0].start, window[1].start])
            centre = np.argwhere(mask).mean(axis=0) + corner
            ((row, col),) = self.lattice.to_um([centre])
            if shapely.contains_xy(area, col, row):
                found.append(label)
        return found

    def row(self, label: int) -> int:
        """The object's row in the table of the segmentation; -1 if a reader has made it."""
        return -1 if label in self._made else label - 1

    def word(self, label: int) -> str:
        """The class that was assigned to an object."""
        return self._words.get(label, "")

    def how(self, label: int) -> str:
        """How a reader has made an object ("added", "merged" or "split"), else empty."""
        return self._made[label][1] if label in self._made else ""

    def edited_labels(self) -> list[int]:
        """The objects that a reader has made or given a class."""
        return sorted({*self._made, *self._words})

    def mask(self, label: int) -> tuple[Slices, Mask]:
        """The smallest window that holds an object, and its mask there, (rows, columns).

        Raises
        ------
        InputError
            The image does not hold all pixels that the table counts: they are of two results.
        """
        if label in self._made:
            window = self._made[label][0]
            return window, self[window] == label
        if not 1 <= label <= self._n or label in self._removed:
            raise InputError(f"there is no object {label}")
        n_pixels, reach = self._pixels[label - 1], float(self._reach[label - 1])
        while True:
            window = self._around(self._centres[label - 1], reach)
            inside = self[window] == label
            if inside.sum() == n_pixels:
                return _tight(window, inside)
            if inside.shape == self.shape:
                raise InputError(
                    f"object {label} has {int(inside.sum())} pixels in the image but "
                    f"{int(n_pixels)} in its table; run its segmentation step again with --force"
                )
            reach *= 2

    def _around(self, centre: NDArray[np.float64], reach: float) -> Slices:
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(centre + reach) + 1, self.shape).astype(int)
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))

    # --- editing --------------------------------------------------------------------------------
    def add(self, correction: Correction) -> int:
        """Add the outlined object; its label.  Pixels of other objects stay theirs.

        Raises
        ------
        InputError
            The outline lies outside the slide or on an object, or its size is implausible.
        """
        area = correction_area(correction)
        if not area.is_valid:
            raise InputError("the outline crosses itself; draw it again")
        self._check_size(float(area.area))
        window, drawn = self.drawn(area)
        mask = drawn & (self[window] == 0)
        if mask.sum() < drawn.sum() / 2:
            raise InputError(
                "most of the outline lies on an object that is there already; select that object"
            )
        parts, n = ndimage.label(mask, _AROUND)
        if n > 1:
            mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        self._check_size(float(mask.sum()) * self.lattice.sample_area_um2)
        tight, mask = _tight(window, mask)
        label = self._take("added", tight, "")
        self._paint(tight, mask, label)
        return label

    def drawn(
        self, area: shapely.Polygon | shapely.MultiPolygon
    ) -> tuple[tuple[slice, slice], Mask]:
        """The pixels of an outline (x = column, y = row in µm): window, mask (rows, columns) there.

        Raises
        ------
        InputError
            Half of it or more lies outside the slide.
        """
        (top, left), (height, width) = self.lattice.origin_um, self.lattice.extent_um
        inside = shapely.box(left, top, left + width, top + height).intersection(area)
        if inside.area < area.area / 2:
            raise InputError("the outline lies outside the slide; draw it on the slide")
        left, top, right, bottom = inside.bounds
        low, high = self.lattice.to_index([(top, left), (bottom, right)]) + 0.5
        first = np.maximum(np.floor(low), 0).astype(int)
        last = np.minimum(np.ceil(high), self.shape).astype(int)
        window = slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))
        shape = AnnotatedShape("", "add", area)
        return window, rasterise([shape], self.lattice.crop(*window), {"add": 1}) > 0

    def _check_size(self, area_um2: float) -> None:
        smallest, largest = OBJECT_SIZES_UM2.get(self.what, (self.lattice.sample_area_um2, np.inf))
        if not smallest <= area_um2 <= largest:
            size = "large" if area_um2 > largest else "small"
            raise InputError(
                f"an outline of {area_um2:,.4g} µm² is too {size}; {self.what} have "
                f"{smallest:,.0f} to {largest:,.0f} µm²"
            )

    def delete(self, label: int) -> None:
        """Delete an object."""
        window, mask = self.mask(label)
        self._paint(window, mask, 0)
        self._forget(label)

    def set_class(self, label: int, word: str) -> None:
        """Assign a class to an object; an empty word clears it."""
        self.mask(label)
        self._words.pop(label, None)
        if word:
            self._words[label] = word

    def merge(self, one: int, other: int) -> int:
        """Merge two objects; the new label.  Pixels between them stay background."""
        if one == other:
            raise InputError("this is the same object; select another one")
        (first, mask_1), (second, mask_2) = self.mask(one), self.mask(other)
        for axis in (0, 1):
            gap = max(first[axis].start, second[axis].start) - min(
                first[axis].stop, second[axis].stop
            )
            if gap * self.lattice.spacing_um[axis] > MAX_MERGE_GAP_UM:
                raise InputError(
                    f"objects more than {MAX_MERGE_GAP_UM:g} µm apart cannot be merged"
                )
        label = self._take("merged", _union(first, second), self.word(one) or self.word(other))
        self._paint(first, mask_1, label)
        self._paint(second, mask_2, label)
        for gone in (one, other):
            self._forget(gone)
        return label

    def split(self, label: int, line_um: ArrayLike) -> list[int]:
        """Split an object along a line that crosses it; the labels of its parts, largest first.

        *line_um* has the shape (n, 2), in µm.  Pixels under the line go to the nearest part.
        `InputError` if the line does not divide the object.
        """
        window, mask = self.mask(label)
        corner = np.array([window[0].start, window[1].start])
        index = np.floor(self.lattice.to_index(line_um) + 0.5).astype(int) - corner
        line = _drawn(index, mask.shape)
        before = ndimage.label(mask, _AROUND)[1]
        parts, n = ndimage.label(mask & ~line, _AROUND)
        if n <= before:
            raise InputError("the line does not divide the object; draw it across the whole object")
        nearest = ndimage.distance_transform_edt(
            parts == 0, self.lattice.spacing_um, return_distances=False, return_indices=True
        )
        parts = np.where(mask, parts[tuple(nearest)], 0)
        order = np.argsort(-np.bincount(parts.ravel(), minlength=n + 1)[1:], kind="stable") + 1
        word = self.word(label)
        made = []
        for part in order:
            tight, piece = _tight(window, parts == part)
            made.append(self._take("split", tight, word))
            self._paint(tight, piece, made[-1])
        self._forget(label)
        return made

    def _take(self, how: str, window: Slices, word: str) -> int:
        label, self._next = self._next, self._next + 1
        self._made[label] = (window, how)
        if word:
            self._words[label] = word
        return label

    def _forget(self, label: int) -> None:
        self._removed.add(label)
        self._made.pop(label, None)
        self._words.pop(label, None)

    def _paint(self, window: Slices, mask: Mask, value: int) -> None:
        rows, cols = window
        for i in range(rows.start // _PATCH, (rows.stop - 1) // _PATCH + 1):
            for j in range(cols.start // _PATCH, (cols.stop - 1) // _PATCH + 1):
                top, left = i * _PATCH, j * _PATCH
                if (i, j) not in self._patches:
                    self._patches[i, j] = self[top : top + _PATCH, left : left + _PATCH]
                patch = self._patches[i, j] = self._patches[i, j].copy()  # states keep the old one
                both = overlap_slices(
                    (rows.start, cols.start, rows.stop, cols.stop),
                    (top, left, top + patch.shape[0], left + patch.shape[1]),
                )
                if both is not None:
                    patch[both[1]][mask[both[0]]] = value

    def state(self) -> tuple[Any, ...]:
        """All edits so far, for `restore`; cheap, because only later edits copy pixels."""
        return (
            dict(self._patches),
            dict(self._made),
            set(self._removed),
            dict(self._words),
            self._next,
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to a state; it can be used once."""
        self._patches, self._made, self._removed, self._words, self._next = state

    # --- the result -----------------------------------------------------------------------------
    def compact(self) -> Edited:
        """Number the objects from 1 without gaps; no edits are possible afterwards."""
        removed = np.array(sorted(self._removed), np.int64)
        m = self._next - 1 - removed.size
        gaps = removed[removed <= m]
        beyond = np.arange(m + 1, self._next)
        movers = beyond[~np.isin(beyond, removed)]
        rows = np.concatenate([np.arange(self._n), np.full(self._next - 1 - self._n, -1)])
        for gap, mover in zip(gaps.tolist(), movers.tolist(), strict=True):
            window, mask = self.mask(mover)
            self._paint(window, mask, gap)
            rows[gap - 1] = rows[mover - 1]
            for known in (self._made, self._words):
                if mover in known:
                    known[gap] = known.pop(mover)  # type: ignore[assignment]
        windows = [
            (slice(i * _PATCH, i * _PATCH + p.shape[0]), slice(j * _PATCH, j * _PATCH + p.shape[1]))
            for (i, j), p in sorted(self._patches.items())
        ]
        return Edited(rows[:m], dict(self._made), dict(self._words), windows)


def apply_corrections(editor: ObjectEditor, corrections: Iterable[Correction]) -> list[str]:
    """Apply corrections one after the other; for each, why it could not be applied (else empty).

    An object is looked up where it was clicked, then at its centroid.  One that is gone, or whose
    area has changed much, is left alone.
    """
    problems = []
    for correction in corrections:
        try:
            _apply(editor, correction)
            problems.append("")
        except InputError as error:
            problems.append(str(error))
    return problems


def corrected_table(segmented: Table, edited: Edited, rows: Mapping[int, Table]) -> Table:
    """The objects in the order of their labels after editing.

    Parameters
    ----------
    segmented
        (n) measurements of the objects as segmented.
    edited
        What editing has made of them.
    rows
        Measurements of each object that a reader has made, by label; a column that is missing
        becomes NaN (0 for whole numbers).

    Returns
    -------
    Table
        (m) rows with the columns of *segmented*, `MANUAL_EDIT` and `MANUAL_CLASS`.
    """
    made = edited.rows < 0
    labels = np.flatnonzero(made) + 1
    as_before = np.array_equal(edited.rows, np.arange(len(segmented)))
    rows_before = np.where(made, 0, edited.rows)
    kept = min(made.size, len(segmented))
    moved = np.flatnonzero(rows_before != np.arange(made.size))
    columns = {}
    for name in segmented:
        before = np.asarray(segmented[name])
        if as_before:  # what nobody corrected does not exist twice
            columns[name] = before
            continue
        column = np.zeros(made.size, before.dtype)
        if len(before):  # nearly all rows are where they were
            column[:kept] = before[:kept]
            column[moved] = before[rows_before[moved]]
        if labels.size:
            column = column.astype(object if before.dtype.kind in "OUST" else before.dtype)
            missing = np.nan if before.dtype.kind == "f" else before.dtype.type()
            column[made] = [
                rows[label][name][0] if name in rows[label] else missing
                for label in labels.tolist()
            ]
        column.setflags(write=False)
        columns[name] = column
    edits = {label: edit for label, (_, edit) in edited.made.items()}
    for name, words in ((MANUAL_EDIT, edits), (MANUAL_CLASS, edited.words)):
        column = np.zeros(made.size, f"<U{max(map(len, words.values()), default=1)}")
        column[[label - 1 for label in words]] = list(words.values())
        columns[name] = column
    return Table(columns, segmented.units, {**segmented.about, **_ABOUT}, segmented.frame)


def _apply(editor: ObjectEditor, correction: Correction) -> None:
    objects = [_found(editor, *one) for one in targets_of(correction)]
    if correction.kind == "add":
        editor.add(correction)
    elif correction.kind == "delete":
        editor.delete(objects[0])
    elif correction.kind == "merge":
        editor.merge(objects[0], objects[1])
    elif correction.kind == "split":
        editor.split(objects[0], correction.line_um)
    elif correction.kind == "class":
        editor.set_class(objects[0], correction.word)
    else:
        raise InputError(f"unknown correction '{correction.kind}' of an object")


def _found(editor: ObjectEditor, place: Point, centroid: Point, area_um2: float) -> int:
    label = editor.at(place) or editor.at(centroid)
    if label == 0:
        raise InputError("there is no object any more")
    if editor.how(label):
        return label
    now = float(editor.mask(label)[1].sum()) * editor.lattice.sample_area_um2
    if not 1 / OTHER_SIZE <= now / area_um2 <= OTHER_SIZE:
        raise InputError(f"the object there now has {now:.3g} µm² instead of {area_um2:.3g} µm²")
    return label


def _tight(window: Slices, mask: Mask) -> tuple[Slices, Mask]:
    """A window and mask cropped to the pixels of the mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    r0, r1, c0, c1 = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    top, left = window[0].start, window[1].start
    return (slice(top + r0, top + r1), slice(left + c0, left + c1)), mask[r0:r1, c0:c1]


def _union(one: Slices, other: Slices) -> Slices:
    rows, cols = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, cols


def _drawn(points: Sequence[Sequence[int]] | NDArray[np.int_], shape: tuple[int, ...]) -> Mask:
    """A path of pixels that no diagonal step crosses."""
    out = np.zeros(shape, bool)
    for start, stop in pairwise(points):
        n = 4 * int(np.abs(np.subtract(stop, start)).max()) + 1
        path = np.rint(np.linspace(start, stop, n)).astype(int)
        between = np.column_stack([path[1:, 0], path[:-1, 1]])
        for row, col in np.vstack([path, between]):
            if 0 <= row < shape[0] and 0 <= col < shape[1]:
                out[row, col] = True
    return out
