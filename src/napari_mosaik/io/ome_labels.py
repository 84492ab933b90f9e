"""Label images as multiscale OME-Zarr, written block by block without the image in memory.

A label image that differs from a stored one in a few places is written without the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.raster import LabelImage, LazyArray
from napari_mosaik.core.window import Slices, paste
from napari_mosaik.io.files import link_files, read_json, saving
from napari_mosaik.io.ome import (
    CHUNK,
    create_array,
    group_levels,
    kept_chunk,
    lattice_dict,
    lattice_from,
    multiscales,
    open_array,
    read_chunk,
    write_chunk,
    write_group,
)

__all__ = [
    "LabelRewriter",
    "LabelWriter",
    "StoredLabels",
    "changed_windows",
    "differing_windows",
    "labels_in",
    "read_labels",
]

_LEVEL_LIMIT = 512
_FINEST = "labels.ome.zarr/0/c/"
"""Where the files of a stored result hold the chunks of the finest level."""
_FEW = 4
"""A label image of which at most so many chunks of a level change keeps them in memory."""
_BLOCK = 2 * CHUNK
"""A block of the finest level is four of its chunks and one chunk of the next level."""


class StoredLabels:
    """One level of a stored label image, (rows, columns), read chunk by chunk.

    Zarr takes milliseconds to open an array and for each window, and reads on one thread.

    Parameters
    ----------
    folder
        Folder of the level.
    shape, chunks
        Rows and columns of the level, and of a chunk.
    dtype
        Type of a label.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int], chunks: tuple[int, int], dtype: Any
    ) -> None:
        self.folder, self.shape, self.chunks = folder, shape, chunks
        self.dtype, self.ndim = np.dtype(dtype), 2
        self.size = shape[0] * shape[1]  # by which napari knows the levels of a pyramid

    def __getitem__(self, key: Any) -> NDArray[Any]:
        window = key if isinstance(key, tuple) else (key,)
        plain = all(isinstance(part, slice) and part.step in (None, 1) for part in window)
        if not plain or len(window) > 2:
            return np.asarray(open_array(self.folder)[key])
        window = (*window, slice(None))
        (top, bottom, _), (left, right, _) = (
            part.indices(n) for part, n in zip(window, self.shape, strict=False)
        )
        out = np.zeros((max(bottom - top, 0), max(right - left, 0)), self.dtype)
        if not out.size:
            return out
        height, width = self.chunks
        for i in range(top // height, (bottom - 1) // height + 1):
            for j in range(left // width, (right - 1) // width + 1):
                chunk = kept_chunk(self.folder, (i, j), self.chunks, self.dtype)
                if chunk is not None:
                    paste(out, (top, left), chunk, (i * height, j * width))
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype)


def _level(folder: Path) -> LazyArray:
    """The labels in the folder of a level; by zarr if they are not stored as we store them."""
    stated = read_json(folder / "zarr.json")
    codecs = [codec["name"] for codec in stated["codecs"]]
    key = stated["chunk_key_encoding"]
    if codecs != ["bytes", "zstd"] or key["configuration"]["separator"] != "/":
        array: LazyArray = open_array(folder)
        return array
    rows, cols = stated["shape"]
    height, width = stated["chunk_grid"]["configuration"]["chunk_shape"]
    return StoredLabels(folder, (rows, cols), (height, width), stated["data_type"])


class LabelWriter:
    """Writes a label image level by level; the windows of a level may be written side by side.

    Every coarser level contains every second sample: labels are names and must not be averaged.
     Level 0 is written together with level 1.

    Parameters
    ----------
    place
        Folder that is made for the image.
    labels
        What is written; its values are asked for window by window, each once.
    name
        Title of the image.
    """

    def __init__(self, place: Path, labels: LabelImage, name: str) -> None:
        self.place, self._labels, self._name = place, labels, name
        self._arrays: list[Any] = []
        with self._saving():
            place.mkdir(parents=True)
            self._create((int(labels.values.shape[0]), int(labels.values.shape[1])))

    def _saving(self) -> AbstractContextManager[None]:
        return saving(f"the label image '{self._name}'", self.place)

    def _create(self, shape: tuple[int, int]) -> None:
        """Create the arrays of all levels, empty."""
        dtype = self._labels.values.dtype
        while not self._arrays or max(self._arrays[-1].shape) > _LEVEL_LIMIT:
            if self._arrays:
                shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
            folder = self.place / str(len(self._arrays))
            self._arrays.append(create_array(folder, shape, dtype, (CHUNK, CHUNK), sparse=True))

    @property
    def n_levels(self) -> int:
        """Number of levels; they are written one after the other."""
        return len(self._arrays)

    def windows(self, level: int) -> list[Slices]:
        """The parts of a level that may be written in any order; none for level 1."""
        if level == 1:
            return []
        step = _BLOCK if level == 0 else CHUNK
        rows, cols = self._arrays[level].shape
        return [
            (slice(r, min(r + step, rows)), slice(c, min(c + step, cols)))
            for r in range(0, rows, step)
            for c in range(0, cols, step)
        ]

    def write(self, level: int, window: Slices) -> None:
        """Write one part of a level; the level before it must be complete."""
        with self._saving():
            self._write(level, window)

    def _write(self, level: int, window: Slices) -> None:
        rows, cols = window
        if level == 0:
            if known_empty(self._labels.values, rows, cols):
                return
            values = np.asarray(self._labels.values[rows, cols])
            self._put(0, (rows.start, cols.start), values)
            if self.n_levels > 1:
                self._put(1, (rows.start // 2, cols.start // 2), values[::2, ::2])
            return
        below = self._arrays[level - 1]
        values = np.zeros((rows.stop - rows.start, cols.stop - cols.start), below.dtype)
        for i in range(2 * rows.start // CHUNK, -(-min(2 * rows.stop, below.shape[0]) // CHUNK)):
            for j in range(
                2 * cols.start // CHUNK, -(-min(2 * cols.stop, below.shape[1]) // CHUNK)
            ):
                fine = read_chunk(self.place / str(level - 1), (i, j), below.chunks, below.dtype)
                if fine is not None:
                    r, c = i * CHUNK // 2 - rows.start, j * CHUNK // 2 - cols.start
                    part = values[r : r + CHUNK // 2, c : c + CHUNK // 2]
                    part[:] = fine[: 2 * part.shape[0] : 2, : 2 * part.shape[1] : 2]
        self._put(level, (rows.start, cols.start), values)

    def _put(self, level: int, corner: tuple[int, int], values: NDArray[Any]) -> None:
        """Write values whose corner is that of a chunk, chunk by chunk."""
        height, width = self._arrays[level].chunks
        for r in range(0, values.shape[0], height):
            for c in range(0, values.shape[1], width):
                part = values[r : r + height, c : c + width]
                if part.shape != (height, width):
                    whole = np.zeros((height, width), values.dtype)
                    whole[: part.shape[0], : part.shape[1]] = part
                    part = whole
                index = ((corner[0] + r) // height, (corner[1] + c) // width)
                write_chunk(self.place / str(level), index, part)

    def finish(self) -> LabelImage:
        """Write the metadata and return the stored label image, shape (rows, columns)."""
        lattice = self._labels.lattice
        own = {
            "lattice": lattice_dict(lattice),
            "names": {str(code): word for code, word in self._labels.names.items()},
        }
        ome = multiscales(self._name, lattice, self.n_levels, channels=False)
        ome["image-label"] = {"version": "0.5"}
        with self._saving():
            write_group(self.place, ome, own)
        arrays = tuple(self._arrays)
        return LabelImage(arrays[0], lattice, self._labels.names, arrays[1:], self.place)


class LabelRewriter(LabelWriter):
    """Writes a label image that differs from a stored one in some windows only.

    Equal chunks are not written again: the files of the stored image are linked, or copied if the
    file system has no hard links.

    Parameters
    ----------
    place, labels, name
        As for `LabelWriter`.
    stored
        Folder of the stored image, of the same shape and type.
    changed
        Windows of the finest level outside which both images are equal.
    earlier
        Folder of another stored image, from which what differs from *stored* is linked where it is
        equal there, and the windows of the finest level in which it is not.
    """

    def __init__(
        self,
        place: Path,
        labels: LabelImage,
        name: str,
        stored: Path,
        changed: Iterable[Slices],
        earlier: tuple[Path, Iterable[Slices]] | None = None,
    ) -> None:
        self._stored = stored
        super().__init__(place, labels, name)
        self._parts = [self._in_chunks(level, changed) for level in range(self.n_levels)]
        self._written: list[set[tuple[int, int]]] = [set(parts) for parts in self._parts]
        self._recent: dict[tuple[int, int, int], NDArray[Any]] = {}
        with self._saving():
            for level, parts in enumerate(self._parts):
                self._link(stored / str(level) / "c", level)
                if earlier is not None:
                    folder, windows = earlier
                    self._written[level] &= set(self._in_chunks(level, windows))
                    kept = set(parts) - self._written[level]
                    self._link_some(folder / str(level) / "c", level, kept)

    def _create(self, shape: tuple[int, int]) -> None:
        """The arrays of all levels are those of the stored image."""
        dtype, folders = self._labels.values.dtype, group_levels(self._stored)[1]
        levels = [one for one in map(_level, folders) if isinstance(one, StoredLabels)]
        if len(levels) < len(folders) or any(one.dtype != dtype for one in levels):
            super()._create(shape)
            return
        for folder, one in zip(folders, levels, strict=True):
            target = self.place / folder.name
            link_files(folder, target, ["zarr.json"])
            self._arrays.append(StoredLabels(target, one.shape, one.chunks, dtype))

    def _in_chunks(
        self, level: int, windows: Iterable[Slices]
    ) -> dict[tuple[int, int], list[Slices]]:
        """Windows of the finest level by the chunks of a level, in the samples of each."""
        height, width = self._arrays[level].chunks
        parts: dict[tuple[int, int], list[Slices]] = {}
        for window in windows:
            rows, cols = (_coarser(part, 2**level) for part in window)
            for i in range(rows.start // CHUNK, -(-rows.stop // CHUNK)):
                for j in range(cols.start // CHUNK, -(-cols.stop // CHUNK)):
                    inside = _within(rows, i, height), _within(cols, j, width)
                    parts.setdefault((i, j), []).append(inside)
        return parts

    def windows(self, level: int) -> list[Slices]:
        """The chunks of a level that differ from those that are stored."""
        rows, cols = self._arrays[level].shape
        return [
            (slice(i * CHUNK, min((i + 1) * CHUNK, rows)),
             slice(j * CHUNK, min((j + 1) * CHUNK, cols)))
            for i, j in sorted(self._written[level])
        ]  # fmt: skip

    def _write(self, level: int, window: Slices) -> None:
        """Write a chunk: the stored one, with what is new in it taken from the level before."""
        index = window[0].start // CHUNK, window[1].start // CHUNK
        array = self._arrays[level]
        stored = read_chunk(self._stored / str(level), index, array.chunks, array.dtype)
        chunk = np.zeros(array.chunks, array.dtype) if stored is None else stored
        finer: dict[tuple[int, int], NDArray[Any] | None] = {}
        for rows, cols in self._parts[level][index]:
            r, c = index[0] * CHUNK + rows.start, index[1] * CHUNK + cols.start
            down, across = rows.stop - rows.start, cols.stop - cols.start
            if level == 0:
                chunk[rows, cols] = np.asarray(self._labels.values[r : r + down, c : c + across])
                continue
            chunk[rows, cols] = 0
            for i in range(2 * r // CHUNK, (2 * (r + down) - 2) // CHUNK + 1):
                for j in range(2 * c // CHUNK, (2 * (c + across) - 2) // CHUNK + 1):
                    if (i, j) not in finer:
                        finer[i, j] = self._finer(level - 1, (i, j))
                    fine = finer[i, j]
                    if fine is not None:
                        top, left = max(r, i * CHUNK // 2), max(c, j * CHUNK // 2)
                        part = fine[
                            2 * top - i * CHUNK : 2 * (r + down) - i * CHUNK : 2,
                            2 * left - j * CHUNK : 2 * (c + across) - j * CHUNK : 2,
                        ]
                        paste(chunk, (index[0] * CHUNK, index[1] * CHUNK), part, (top, left))
        write_chunk(self.place / str(level), index, chunk)
        if len(self._written[level]) <= _FEW:  # the next level is made of them
            self._recent[level, *index] = chunk

    def _finer(self, level: int, index: tuple[int, int]) -> NDArray[Any] | None:
        """A chunk of a level that is written; None where it is empty."""
        if (level, *index) in self._recent:
            return self._recent[level, *index]
        array = self._arrays[level]
        return read_chunk(self.place / str(level), index, array.chunks, array.dtype)

    def _link(self, chunks: Path, level: int) -> None:
        """Link the equal chunks of a level."""
        for name in sorted(os.listdir(chunks) if chunks.is_dir() else []):
            row, i = chunks / name, int(name)
            equal = [n for n in os.listdir(row) if (i, int(n)) not in self._parts[level]]
            if equal:
                link_files(row, self.place / str(level) / "c" / name, equal)

    def _link_some(self, chunks: Path, level: int, indices: Iterable[tuple[int, int]]) -> None:
        """Link some chunks of a level; those of zeros are not files."""
        for i, j in indices:
            row = chunks / str(i)
            if (row / str(j)).is_file():
                link_files(row, self.place / str(level) / "c" / str(i), [str(j)])


def differing_windows(
    labels: LabelImage,
    windows: Iterable[Slices],
    stored: Mapping[str, Any],
    earlier: LabelImage,
    files: Mapping[str, Any],
) -> list[Slices]:
    """Windows of the finest level outside which an earlier image equals *labels*.

    Both are edited from one stored image, all (rows, columns): *labels* in some windows.  *stored*
    and *files* list the files of that image and of the earlier one (`CaseStore.files`).
    """
    height, width = labels.lattice.shape
    named = {key for key in {*stored, *files} if key.startswith(_FINEST)}
    chunks = {
        (int(row), int(col))
        for key in named
        if stored.get(key) != files.get(key)
        for row, col in (key.removeprefix(_FINEST).split("/"),)
    }
    for rows, cols in windows:
        for i in range(rows.start // CHUNK, -(-rows.stop // CHUNK)):
            chunks |= {(i, j) for j in range(cols.start // CHUNK, -(-cols.stop // CHUNK))}
    found = []
    for i, j in sorted(chunks):
        rows = slice(i * CHUNK, min((i + 1) * CHUNK, height))
        cols = slice(j * CHUNK, min((j + 1) * CHUNK, width))
        if not np.array_equal(labels.block(rows, cols), earlier.block(rows, cols)):
            found.append((rows, cols))
    return found


def _coarser(part: slice, step: int) -> slice:
    """The samples of every *step*-th one that a part of an axis holds; may be empty."""
    return slice(-(-part.start // step), -(-part.stop // step))


def _within(part: slice, index: int, size: int) -> slice:
    """The part of an axis that lies in a chunk, in its own samples."""
    return slice(max(part.start - index * CHUNK, 0), min(part.stop - index * CHUNK, size))


def known_empty(values: LazyArray, rows: slice, cols: slice) -> bool:
    """Whether a label image that is computed on demand knows that a part of it is empty."""
    is_empty = getattr(values, "is_empty", None)
    return is_empty is not None and bool(is_empty(rows, cols))


def read_labels(place: Path) -> LabelImage:
    """The label image in a folder, shape (rows, columns); its values stay on disk."""
    own, folders = group_levels(place)
    names = {int(code): word for code, word in own["names"].items()}
    arrays = tuple(map(_level, folders))
    return LabelImage(arrays[0], lattice_from(own["lattice"]), names, arrays[1:])


def labels_in(folder: Path) -> Path:
    """Path of the label image in the folder of a stored result."""
    return folder / "labels.ome.zarr"


def changed_windows(
    before: LabelImage, files_before: Mapping[str, Any], now: LabelImage, files: Mapping[str, Any]
) -> list[Slices] | None:
    """The smallest windows, one a chunk, in which two stored label images differ, in pixels.

    The images have the shape (rows, columns).  Only chunks whose files differ are read;
    *files_before* and *files* list them with their digests (`CaseStore.files`).  None if the images
    lie on different lattices.
    """
    if before.lattice != now.lattice:
        return None
    names = {name for name in {*files_before, *files} if name.startswith(_FINEST)}
    windows = []
    for name in sorted(name for name in names if files_before.get(name) != files.get(name)):
        row, col = (int(part) * CHUNK for part in name.removeprefix(_FINEST).split("/"))
        rows = slice(row, min(row + CHUNK, now.lattice.shape[0]))
        cols = slice(col, min(col + CHUNK, now.lattice.shape[1]))
        differ = before.block(rows, cols) != now.block(rows, cols)
        down, across = np.flatnonzero(differ.any(axis=1)), np.flatnonzero(differ.any(axis=0))
        if down.size:
            windows.append(
                (slice(row + int(down[0]), row + int(down[-1]) + 1),
                 slice(col + int(across[0]), col + int(across[-1]) + 1))
            )  # fmt: skip
    return windows
