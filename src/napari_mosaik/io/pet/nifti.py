"""PET in NIfTI files: values and spacing from the file, the rest from a sidecar or the user."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetHeader, PetImage
from napari_mosaik.core.pet_volume import VolumeGrid
from napari_mosaik.core.text import counted
from napari_mosaik.io.pet.registry import PetFormat, sibling, single_file
from napari_mosaik.io.pet.sidecar import read_sidecar
from napari_mosaik.io.unread import unread_file

__all__ = ["FORMAT", "NiftiSeries"]

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_UM = {0: 1e3, 1: 1e6, 2: 1e3, 3: 1.0}
"""µm in the file's unit of length; an unstated one is mm, as everywhere in NIfTI."""
_SAME_SIZE = 0.01
"""Voxel sizes and directions that differ by less than this fraction are the same."""
_MAX_VALUES = 1 << 31
_HEAD = {
    348: {
        "dim": (40, "8i2"), "datatype": (70, "i2"), "pixdim": (76, "8f4"), "offset": (108, "f4"),
        "slope": (112, "f4"), "intercept": (116, "f4"), "units": (123, "u1"), "qform": (252, "i2"),
        "sform": (254, "i2"), "quatern": (256, "3f4"), "offsets": (268, "3f4"),
        "srow": (280, "12f4"), "magic": (344, "S4"),
    },
    540: {
        "dim": (16, "8i8"), "datatype": (12, "i2"), "pixdim": (104, "8f8"), "offset": (168, "i8"),
        "slope": (176, "f8"), "intercept": (184, "f8"), "units": (500, "i4"), "qform": (344, "i4"),
        "sform": (348, "i4"), "quatern": (352, "3f8"), "offsets": (376, "3f8"),
        "srow": (400, "12f8"), "magic": (4, "S4"),
    },
}  # fmt: skip


class NiftiSeries:
    """Slices of a NIfTI image along its third axis.

    Where the file says how its axes lie in the body, slices are shown as in DICOM: columns to the
    left of the patient, rows to the back, slices towards the head.
    """

    def __init__(self, path: Path, sidecar: Path | None = None) -> None:
        self._path = path
        beside = _sidecar_of(path)
        self._sidecar = sidecar or (beside if beside.is_file() else None)
        data, after = _content(path)
        self._head = _head(data, path)
        stored = self._values(data)
        self._scale = _scale(self._head, path.name)
        sizes, source, axes = _geometry(self._head, path.name)
        code = int(self._head["units"]) & 7
        if code not in _UM:
            raise InputError(
                f"{path.name} states the unit of length {code}, which NIfTI does not know; write "
                "it in mm"
            )
        self._size_um = (sizes[0] * _UM[code], sizes[1] * _UM[code])
        self._axes, self._sizes_mm = axes, np.asarray(sizes) * _UM[code] / 1000
        self._unit_mm = _UM[code] / 1000
        self._geometry = f"The voxel size is that of the file's {source}" + (
            ", taken as mm because the file states no unit of length." if code == 0 else "."
        )
        self._turned, note = _turned(axes)
        self._notes = [note] if note else []
        if after:
            self._notes.append(
                f"{counted(after, 'byte follows', 'bytes follow')} the voxels; "
                "check the numbers of voxels and the first byte in the header"
            )
        self._stored = stored[:, :, ::-1] if self._turned[2] else stored

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return int(self._stored.shape[2])

    def n_frames(self, place: int) -> int:
        """Number of time frames."""
        return int(self._stored.shape[3])

    def image(self, place: int, number: int) -> PetImage:
        """One slice of one time frame."""
        fields: dict[str, Any] = {"unit": None}
        factor = 1.0
        if self._sidecar is not None:
            found, factor = read_sidecar(self._sidecar, number)
            fields |= found
        notes = [*fields.pop("notes", ()), *self._notes]
        if self._sidecar is None:
            notes.append("there is no sidecar: the injection data must be entered")
        values = self.stored(place, number) * factor
        column_um, row_um = self._size_um
        lattice = Lattice("pet", (values.shape[0], values.shape[1]), (row_um, column_um))
        header = PetHeader(reader="nifti", notes=tuple(notes), geometry=self._geometry, **fields)
        return PetImage(Raster(np.ascontiguousarray(values), lattice, header.unit or "1"), header)

    def stored(self, place: int, number: int = 0) -> FloatArray:
        """The values (rows, columns) of one slice by slope and intercept, in Bq/mL or as stored."""
        values = self._scaled(self._stored[:, :, place, number].T)
        return values[:: -1 if self._turned[1] else 1, :: -1 if self._turned[0] else 1]

    def grid(self) -> VolumeGrid:
        """Where the voxels lie in the patient; unknown if the file states no orientation."""
        columns, rows, slices, _ = self._stored.shape
        if slices < 2 or not self._sizes_mm[2] > 0:
            raise InputError(f"{self._path.name} holds one slice, or no distance of its slices")
        if self._axes is None:
            steps = np.zeros((3, 3))
            steps[[0, 1, 2], [2, 1, 0]] = self._sizes_mm[::-1]
            return VolumeGrid((slices, rows, columns), np.zeros(3), steps, in_patient=False)
        if int(self._head["sform"]) > 0:
            offset = np.asarray(self._head["srow"], float).reshape(3, 4)[:, 3]
        else:
            offset = np.asarray(self._head["offsets"], float)
        steps = (self._axes * self._sizes_mm).T
        origin = offset * self._unit_mm
        for axis, count in enumerate((columns, rows, slices)):
            if self._turned[axis]:
                origin = origin + (count - 1) * steps[axis]
                steps[axis] = -steps[axis]
        to_dicom = np.array([-1.0, -1.0, 1.0])  # NIfTI counts to the right and to the front
        return VolumeGrid((slices, rows, columns), origin * to_dicom, steps[::-1] * to_dicom)

    def patient_ids(self) -> tuple[str, ...]:
        """None: the file names no patient."""
        return ()

    def _values(self, data: bytes) -> NDArray[Any]:
        """(columns, rows, slices, frames) as stored."""
        shape, kind, start = _layout(self._head, self._path.name)
        count = int(np.prod(shape, dtype=np.int64))
        if len(data) < start + count * kind.itemsize:
            raise InputError(f"{self._path.name} is cut off: {shape} values are not in it")
        return np.frombuffer(data, kind, count, start).reshape(shape, order="F")

    def _scaled(self, stored: NDArray[Any]) -> FloatArray:
        slope, intercept = self._scale
        return np.asarray(stored, np.float64) * slope + intercept


def _content(path: Path) -> tuple[bytes, int]:
    """The header and the voxels that it states, and the number of bytes after them."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            try:
                start = file.read(max(_HEAD) + 8)
                end = _end(_head(start, path), path.name)
                data = start + file.read(max(0, end - len(start)))
            finally:  # the check sum of gzip stands at the end
                after = sum(iter(lambda: len(file.read(1 << 20)), 0))
        return data[:end], after + len(data[end:])
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path.name} is cut off or damaged ({error})") from error


def _head(data: bytes, path: Path) -> dict[str, Any]:
    for size, items in _HEAD.items():
        for order in ("<", ">"):
            if len(data) >= size and int(np.frombuffer(data, order + "i4", 1)[0]) == size:
                found: dict[str, Any] = {"order": order, "size": size}
                for name, (place, kind) in items.items():
                    count = int(kind[:-2] or 1) if kind[0] != "S" else 1
                    one = kind if kind[0] == "S" else order + kind[-2:]
                    values = np.frombuffer(data, one, count, place)
                    found[name] = values if count > 1 else values[0]
                if not bytes(found["magic"]).startswith((b"n+1", b"n+2")):
                    raise InputError(f"{path.name} is not a single-file NIfTI; save it as .nii")
                extra = data[size : size + 8].ljust(8, b"\0")
                found["extended"] = extra[:4]
                found["extension"] = np.frombuffer(extra[4:], order + "i4", 1)[0]
                return found
    what = unread_file(path) or "not a NIfTI file"
    raise InputError(f"{path.name} cannot be used as PET: it is {what}")


def _layout(head: dict[str, Any], name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape (columns, rows, slices, frames), type and first byte of the voxels."""
    count, *sizes = (int(n) for n in head["dim"])
    sizes = sizes[: count if 2 <= count <= 7 else 0]
    sizes = [size or 1 if place > 2 else size for place, size in enumerate(sizes)]
    if not sizes or min(sizes) < 1 or any(size > 1 for size in sizes[4:]):
        raise InputError(f"{name} has {count} dimensions of {sizes}; a PET has two to four")
    shape = tuple((*sizes, 1, 1)[:4])
    code = int(head["datatype"])
    if code not in _TYPES:
        raise InputError(f"{name} holds values of the NIfTI type {code}, not numbers")
    first, least = float(head["offset"]), head["size"] + 4
    if head["extended"][0]:  # bytes of metadata that lie between the header and the voxels
        least += max(int(head["extension"]), 8)
    if not first >= least:
        raise InputError(
            f"{name} states that its voxels begin at byte {first:g}, inside its header; by the "
            f"standard they begin at {least} or later"
        )
    if math.prod(shape) > _MAX_VALUES:
        raise InputError(f"{name} states {shape} values, which is not plausible")
    return shape, np.dtype(head["order"] + _TYPES[code]), int(min(first, 1e15))


def _scale(head: dict[str, Any], name: str) -> tuple[float, float]:
    """Slope and intercept of the values; a slope of zero, or that is no number, means none."""
    slope, intercept = float(head["slope"]), float(head["intercept"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise InputError(
            f"{name} states a slope of {slope:g} beside an intercept of {intercept}; write the "
            "header again"
        )
    return slope, intercept


def _end(head: dict[str, Any], name: str) -> int:
    """The byte after the last voxel."""
    shape, kind, start = _layout(head, name)
    return min(start, _MAX_VALUES) + math.prod(shape) * kind.itemsize


def _turned(axes: FloatArray | None) -> tuple[tuple[bool, bool, bool], str]:
    """Which stored axes are opposite to DICOM (left, posterior, head), and a message."""
    as_stored = (False, False, False)
    if axes is None:
        return as_stored, "the file does not state the orientation of its axes; shown as stored"
    size = np.abs(axes)
    if not all(int(size[:, i].argmax()) == i for i in range(3)):
        return as_stored, "the slices are not transaxial; shown as stored"
    return (bool(axes[0, 0] > 0), bool(axes[1, 1] > 0), bool(axes[2, 2] < 0)), ""


def _geometry(
    head: dict[str, Any], name: str
) -> tuple[tuple[float, float, float], str, FloatArray | None]:
    """Voxel sizes along the stored axes in the file's unit, who states them, and directions (3, 3).

    By the standard the sform counts before the qform, and the qform has the sizes of pixdim.  A
    sform that leads to another space (a template) has other sizes: a contradiction is refused.
    """
    pixdim = np.abs(np.asarray(head["pixdim"], float)[1:4])
    directions = _qform_axes(head)
    if directions is not None and not (
        np.abs(directions.T @ directions - np.eye(3)).max() <= _SAME_SIZE
    ):
        raise InputError(f"{name} has a qform that is not a rotation; write the header again")
    sizes, source = pixdim, "pixdim" if directions is None else "qform"
    if int(head["sform"]) > 0:
        sform = np.asarray(head["srow"], float).reshape(3, 4)[:, :3]
        lengths = np.sqrt((sform**2).sum(axis=0))
        if not (np.isfinite(sform).all() and lengths.min() > 0):
            raise InputError(
                f"{name} has an sform that is not a valid geometry; write the header again"
            )
        axes = sform / lengths
        if np.abs(axes.T @ axes - np.eye(3)).max() > _SAME_SIZE:
            raise InputError(f"{name} has a sheared sform; resample the image to right angles")
        if directions is not None:
            _check_same(lengths, pixdim, axes, directions, name)
        elif int(head["sform"]) > 2 and np.abs(lengths / np.maximum(pixdim, 1e-12) - 1).max() > (
            _SAME_SIZE
        ):
            both = (" x ".join(f"{size:.4g}" for size in sizes) for sizes in (lengths, pixdim))
            raise InputError(
                "{} states voxels of {} by its sform, which leads to a template, and {} by its "
                "pixdim; write it again with one geometry".format(name, *both)
            )
        sizes, source, directions = lengths, "sform", axes
    # A plane image may state no thickness.
    if not (np.isfinite(sizes[:2]).all() and sizes[:2].min() > 0):
        raise InputError(f"{name} states no pixel size")
    return (float(sizes[0]), float(sizes[1]), float(sizes[2])), source, directions


def _check_same(
    sform: FloatArray, qform: FloatArray, axes: FloatArray, directions: FloatArray, name: str
) -> None:
    """Sizes (3,) in the file's unit and directions (3, 3) of sform and qform agree."""
    if np.abs(sform / np.maximum(qform, 1e-12) - 1).max() > _SAME_SIZE:
        both = (" x ".join(f"{size:.4g}" for size in sizes) for sizes in (sform, qform))
        raise InputError(
            "{} states voxels of {} by its sform and {} by its qform and pixdim; write it again "
            "with one geometry".format(name, *both)
        )
    if (axes * directions).sum(axis=0).min() < 0.5:
        raise InputError(
            f"{name} states other directions of its axes by its sform than by its qform (mirrored "
            "or turned); write it again with one geometry"
        )


def _qform_axes(head: dict[str, Any]) -> FloatArray | None:
    """Directions (3, 3) of the stored axes by the qform, right, front, head in rows; or None."""
    if int(head["qform"]) <= 0:
        return None
    b, c, d = (float(part) for part in head["quatern"])
    a = float(np.sqrt(max(0.0, 1 - b * b - c * c - d * d)))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    turn[:, 2] *= -1.0 if float(head["pixdim"][0]) < 0 else 1.0
    return turn


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _sidecar_of(path: Path) -> Path:
    """The sidecar of an image; names differ in upper and lower case on some systems."""
    name = re.sub(r"\.nii(\.gz)?$", ".json", path.name, flags=re.IGNORECASE)
    return sibling(path, name)


FORMAT = PetFormat(
    "NIfTI",
    _is_nifti,
    lambda files, sidecar: NiftiSeries(single_file(files, "NIfTI"), sidecar),
    companions=lambda path: [_sidecar_of(path)],
    order=20,
)
