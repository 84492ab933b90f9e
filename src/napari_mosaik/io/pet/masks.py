"""Masks of a volume of interest on the voxels of a PET: DICOM SEG, RTSTRUCT, or labels in NIfTI.

Regions are chosen by number.  Their names may identify the patient: they are shown in error
messages where one must be chosen, and nowhere kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.pet_volume import VolumeGrid
from napari_mosaik.io.pet.dicom_file import dicom_header, in_dicom, starts_as_dicom
from napari_mosaik.io.pet.nifti import NiftiSeries

__all__ = ["VoiMask", "mask_regions", "read_mask"]

_SAME_VOXEL = 0.05
"""Voxels that lie no farther apart than this fraction of one are the same."""
_CONTOUR_DIFFERENCE = 0.1
_MIN_POINTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class VoiMask:
    """Voxels (slices, rows, columns) of a volume of interest, and how they were chosen in words."""

    voxels: NDArray[np.bool_]
    method: str
    warnings: tuple[str, ...] = ()


def read_mask(path: Path, grid: VolumeGrid, label: int | None = None) -> VoiMask:
    """The voxels (slices, rows, columns) of a PET volume that a mask holds.

    Segments and labels may have the voxels in another order: flipped or exchanged axes.

    Parameters
    ----------
    path
        DICOM SEG or RTSTRUCT, or a NIfTI file of labels.
    grid
        Voxels of the PET.
    label
        Number of the segment, region of interest or label; needed where there are several.

    Raises
    ------
    InputError
        If the file is not a mask, has other voxels than the PET (both are named), another frame of
        reference, no such label, or is empty.
    """
    kind, data = _opened(path)
    if kind == "NIFTI":
        found = _of_labels(path, data, grid, label)
    else:
        with in_dicom(path):
            read = _of_contours if kind == "RTSTRUCT" else _of_segments
            found = read(path, data, grid, label)
    if not found.voxels.any():
        raise InputError(f"the mask {path.name} holds no voxel of the PET ({grid})")
    return found


def mask_regions(path: Path) -> dict[int, str]:
    """Numbers and names of the regions of a mask; names are for the screen and nowhere kept.

    Raises `InputError` as `read_mask` for a file that is not a mask.
    """
    kind, data = _opened(path)
    if kind == "NIFTI":
        return {int(number): "" for number in np.unique(_labels(path, data)) if number > 0}
    return _contoured(data) if kind == "RTSTRUCT" else _segments(data)


def _opened(path: Path) -> tuple[str, Any]:
    """What kind of mask a file is (NIFTI, SEG or RTSTRUCT), and its series or header."""
    if not path.is_file():
        raise InputError(f"there is no mask {path}")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "NIFTI", NiftiSeries(path)
    if not starts_as_dicom(path):
        raise InputError(
            f"{path.name} cannot be used as a mask; give DICOM SEG, RTSTRUCT or labels in NIfTI"
        )
    with in_dicom(path):
        data = dicom_header(path)
        kind = str(data.get("Modality", "")).upper()
    if kind not in ("RTSTRUCT", "SEG"):
        raise InputError(
            f"{path.name} is not a mask: modality {kind or 'not stated'}, not SEG or RTSTRUCT"
        )
    return kind, data


def _chosen(label: int | None, known: dict[int, str], path: Path) -> int:
    """The number of the only region, or the given one."""
    listed = ", ".join(f"{number} {name}".strip() for number, name in sorted(known.items()))
    if not known:
        raise InputError(f"{path.name} holds no region")
    if label is None and len(known) > 1:
        raise InputError(f"{path.name} holds {len(known)} regions; give label: {listed[:200]}")
    number = next(iter(known)) if label is None else label
    if number not in known:
        raise InputError(f"{path.name} holds no region {number}; there are: {listed[:200]}")
    return number


def _other_grid(path: Path, theirs: object, grid: VolumeGrid) -> InputError:
    return InputError(
        f"the mask {path.name} lies on another grid ({theirs}) than the PET ({grid}); resample it "
        "to the PET"
    )


def _check_reference(reference: str, grid: VolumeGrid, path: Path) -> None:
    if not grid.in_patient:
        raise InputError(
            f"the PET does not say how its voxels lie in the patient, so {path.name} has no place "
            "on it; use labels on its voxels, or a sphere"
        )
    if grid.reference and reference.upper() != grid.reference:
        raise InputError(
            f"the mask {path.name} belongs to another frame of reference (FrameOfReferenceUID) "
            "than the PET: another scan; give the mask of this one"
        )


# --- labels ---------------------------------------------------------------------------------------
def _labels(path: Path, series: NiftiSeries) -> FloatArray:
    if series.n_frames(0) > 1:
        raise InputError(f"the mask {path.name} has {series.n_frames(0)} time frames; give one")
    values = np.stack([series.stored(place) for place in range(series.n_slices)])
    if not np.array_equal(values, np.rint(values)):
        raise InputError(
            f"{path.name} holds values that are not whole numbers: it is not a label image"
        )
    return values


def _of_labels(path: Path, series: NiftiSeries, grid: VolumeGrid, label: int | None) -> VoiMask:
    theirs = series.grid()
    turned = None
    if not theirs.is_same(grid):
        both = theirs.in_patient and grid.in_patient
        found = both and _turned_onto(grid, theirs.origin_mm, theirs.steps_mm, theirs.shape)
        if not found:
            raise _other_grid(path, theirs, grid)
        turned = found
    values = _labels(path, series)
    if turned is not None:
        first, moves = turned
        values = values[_indices(grid.shape, first, moves)]
    known = {int(number): "" for number in np.unique(values) if number > 0}
    number = _chosen(label, known, path)
    return VoiMask(values == number, f"labels of NIfTI, {number}")


def _turned_onto(
    grid: VolumeGrid, origin_mm: FloatArray, steps_mm: FloatArray, shape: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """Voxel of the grid (3,) at an origin, and moves (k, 3) on it for each of k steps, or None.

    None unless each step leads along one axis of the grid, and all of its voxels are met once.
    """
    extent = np.asarray(shape) - 1
    place = grid.index(np.asarray(origin_mm, float)[None])[0]
    moves = np.asarray(steps_mm, float) @ np.linalg.inv(grid.steps_mm)
    first, whole = np.rint(place).astype(int), np.rint(moves).astype(int)
    gap = np.abs(place - first).max() + (np.abs(moves - whole) * extent[:, None]).sum(axis=0).max()
    axes = np.argmax(np.abs(whole), axis=1)
    if gap > _SAME_VOXEL or (np.abs(whole).sum(axis=1) != 1).any() or len({*axes}) < len(axes):
        return None
    for axis, move, last in zip(axes, whole, extent, strict=True):
        if first[axis] != (0 if move[axis] > 0 else last) or last != grid.shape[axis] - 1:
            return None
    return first, whole


def _indices(
    shape: tuple[int, ...], first: NDArray[np.intp], moves: NDArray[np.intp]
) -> tuple[NDArray[np.intp], ...]:
    """Voxel of the other grid at each voxel of a grid of this shape, as an index of arrays."""
    apart = np.moveaxis(np.indices(shape), 0, -1) - first
    return tuple((apart @ moves.T)[..., axis] for axis in range(3))


# --- DICOM SEG ------------------------------------------------------------------------------------
def _segments(data: Any) -> dict[int, str]:
    return {
        int(item.SegmentNumber): str(item.get("SegmentLabel", ""))
        for item in data.get("SegmentSequence") or []
    }


def _of_segments(path: Path, data: Any, grid: VolumeGrid, label: int | None) -> VoiMask:
    import pydicom

    _check_reference(str(data.get("FrameOfReferenceUID", "")), grid, path)
    number = _chosen(label, _segments(data), path)
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    kind = str(data.get("SegmentationType", "")).upper()
    half = float(data.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    pixels = np.atleast_3d(pydicom.dcmread(path, force=True).pixel_array)
    pixels = pixels.reshape(-1, int(data.Rows), int(data.Columns))
    out = np.zeros(grid.shape, bool)
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        if kind != "LABELMAP" and _segment_of(frame, shared) != number:
            continue
        first, moves = _plane_of(path, frame, shared, pixels.shape[1:], grid)
        inside = pixels[index] == number if kind == "LABELMAP" else pixels[index] > half
        out[tuple((first + np.argwhere(inside) @ moves).T)] = True
    return VoiMask(out, f"DICOM SEG, segment {number}")


def _group(frame: Any, shared: Any, name: str) -> Any:
    """An item of the frame's own functional groups, or of the shared ones."""
    for groups in (frame, shared):
        found = groups.get(name) if groups is not None else None
        if found:
            return found[0]
    raise InputError(f"the mask states no {name}")


def _segment_of(frame: Any, shared: Any) -> int:
    group = _group(frame, shared, "SegmentIdentificationSequence")
    return int(group.ReferencedSegmentNumber)


def _plane_of(
    path: Path, frame: Any, shared: Any, shape: Any, grid: VolumeGrid
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The voxel of the PET (3,) under the first pixel of a frame of the mask, and moves (2, 3)."""
    origin = _group(frame, shared, "PlanePositionSequence").ImagePositionPatient
    turn = np.array(
        _group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient, float
    )
    row_mm, column_mm = map(float, _group(frame, shared, "PixelMeasuresSequence").PixelSpacing)
    steps = np.stack([turn[3:] * row_mm, turn[:3] * column_mm])
    first = np.array(origin, float)
    found = _turned_onto(grid, first, steps, shape)
    if found is None:
        theirs = f"{shape[1]} x {shape[0]} pixels of {column_mm:.4g} x {row_mm:.4g} mm from "
        raise _other_grid(path, theirs + "({:.4g} x {:.4g} x {:.4g}) mm".format(*first), grid)
    if (found[0] < 0).any() or (found[0] >= grid.shape).any():
        raise InputError(f"the mask {path.name} has slices beyond the PET ({grid})")
    return found


# --- RTSTRUCT -------------------------------------------------------------------------------------
def _contoured(data: Any) -> dict[int, str]:
    found = data.get("StructureSetROISequence") or []
    return {int(item.ROINumber): str(item.get("ROIName", "")) for item in found}


def _of_contours(path: Path, data: Any, grid: VolumeGrid, label: int | None) -> VoiMask:
    regions = {int(item.ROINumber): item for item in data.get("StructureSetROISequence") or []}
    number = _chosen(label, _contoured(data), path)
    _check_reference(str(regions[number].get("ReferencedFrameOfReferenceUID", "")), grid, path)
    contours = [
        _points(path, contour)
        for item in data.get("ROIContourSequence") or []
        if int(item.ReferencedROINumber) == number
        for contour in item.get("ContourSequence") or []
    ]
    if not contours:
        raise InputError(f"region {number} of {path.name} has no contour")
    planes, thickness_mm = _planes(path, contours, grid)
    out = np.zeros(grid.shape, bool)
    volume_ml = 0.0
    deep, high, wide = grid.spacing_mm
    half = thickness_mm / deep / 2
    for place, shape in planes.items():
        volume_ml += shape.area * high * wide * thickness_mm / 1000
        # A slice takes the contours of a plane that is at most half a distance away.
        first, end = (int(np.ceil(place + by - 1e-6)) for by in (-half, half))
        if end > max(first, 0):
            out[max(first, 0) : end] |= _covered(shape, grid.shape[1:])
    warnings = _contour_warnings(path, volume_ml, float(out.sum()) * grid.voxel_ml)
    return VoiMask(out, f"RTSTRUCT, region {number}, contours of {volume_ml:.4g} mL", warnings)


def _points(path: Path, contour: Any) -> FloatArray:
    """Points (n, 3) of a closed contour, mm in the patient."""
    if str(contour.get("ContourGeometricType", "")).upper() != "CLOSED_PLANAR":
        kind = contour.get("ContourGeometricType", "no type")
        raise InputError(f"{path.name} has a contour of the type {kind}, not CLOSED_PLANAR")
    points = np.array(contour.ContourData, float)
    if points.size % 3 or points.size < 3 * _MIN_POINTS:
        raise InputError(f"{path.name} has a contour of {points.size / 3:g} points")
    return points.reshape(-1, 3)


def _planes(
    path: Path, contours: list[FloatArray], grid: VolumeGrid
) -> tuple[dict[float, Any], float]:
    """Shape of each plane (in rows and columns) by its slice number, and their distance in mm.

    Contours that lie within others are holes: what an odd number of them encloses is inside.
    """
    found: dict[float, Any] = {}
    ends = np.asarray(grid.shape) - 0.5
    for points in contours:
        index = grid.index(points)
        if np.ptp(index[:, 0]) > _SAME_VOXEL:
            raise InputError(
                f"{path.name} has contours that are not parallel to the slices of the PET; export "
                "the mask as DICOM SEG or NIfTI on its voxels"
            )
        if (index < -0.5 - _SAME_VOXEL).any() or (index > ends + _SAME_VOXEL).any():
            raise InputError(f"the contours of {path.name} reach beyond the PET ({grid})")
        shape = shapely.make_valid(shapely.Polygon(index[:, :0:-1]))
        place = round(float(index[:, 0].mean()), 3)
        known = next((one for one in found if abs(one - place) < _SAME_VOXEL), place)
        found[known] = found[known].symmetric_difference(shape) if known in found else shape
    places = np.sort(np.array(list(found)))
    if len(places) == 1:
        return found, grid.spacing_mm[0]
    apart = np.diff(places)
    return found, float(np.median(apart)) * grid.spacing_mm[0]


def _covered(shape: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Voxels (rows, columns) whose centre lies in a shape."""
    out = np.zeros(size, bool)
    left, top, right, bottom = shape.bounds
    window = tuple(
        slice(max(int(np.floor(low)), 0), max(int(np.ceil(high)) + 1, 0))
        for low, high in ((top, bottom), (left, right))
    )
    rows, columns = np.mgrid[: size[0], : size[1]][(slice(None), *window)]
    shapely.prepare(shape)
    out[window] = shapely.intersects_xy(shape, columns, rows)
    return out


def _contour_warnings(path: Path, contours_ml: float, voxels_ml: float) -> tuple[str, ...]:
    if abs(voxels_ml - contours_ml) <= _CONTOUR_DIFFERENCE * contours_ml:
        return ()
    return (
        f"the contours of {path.name} enclose {contours_ml:.3g} mL, the voxels whose centre they "
        f"enclose {voxels_ml:.3g} mL: the region is small for these voxels, or planes are missing",
    )
