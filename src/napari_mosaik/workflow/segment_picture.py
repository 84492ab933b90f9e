"""Segment a picture or a region of a slide without a case, with the steps of a case.

    file ──► `PictureCase` ──► steps ──► labels at the method's pixel size, table, record
                                               └──► label image on the pixels of the picture

The whole picture counts as tissue, because it may be a part of a section without any glass; only
`kind="tissue"` looks for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_file
from napari_mosaik.core.catalogue import (
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    EXCLUDED,
    NUCLEI,
    NUCLEUS_OBJECTS,
    STAIN_FIT,
    STAINING,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
    WARNINGS,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.io.files import saving
from napari_mosaik.workflow.picture_case import Picture, PictureCase, PictureContext
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.io.slide.types.tiles import RegionUm

__all__ = ["SegmentedPicture", "labels_on", "segment_picture", "write_label_tiff"]

_MAX_LABEL_PIXELS = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedPicture:
    """A segmentation of a picture.

    Parameters
    ----------
    labels
        Objects (label) or class codes at the pixel size of the method.
    table
        The measured objects, or the area of each class.
    record
        JSON-able: method, weights, settings, counts and areas (µm²), warnings.
    """

    labels: LabelImage
    table: Table
    record: dict[str, Any]


def segment_picture(
    kind: str,
    path: Path,
    labels_path: Path,
    spacing_um: float | Sequence[float] | None = None,
    *,
    method: str = "",
    weights: Path | None = None,
    region: RegionUm | None = None,
    label_spacing_um: float | None = None,
    page: int | None = None,
    scheduler: str = "",
) -> Generator[Progress, None, SegmentedPicture]:
    """Segment a picture, a slide or a region of a slide, and write its labels as a TIFF file.

    The label image lies on the picture (or the region of it) pixel by pixel, whatever pixel size
    the method works at.

    Parameters
    ----------
    kind
        "tissue", "vessels", "nuclei" or "classes".
    path
        Picture or slide.
    labels_path
        Label image to write (TIFF).
    spacing_um
        Pixel size of the picture, µm, if the file does not state it.
    method
        "dab" or "hsv" for vessels, "classical" or "stardist" for nuclei, "fast" or "densenet" for
        classes; if empty the default, or the method of the weights.
    weights
        For nuclei a file or folder with the weights of a StarDist network; for classes the folder
        of a trained model (required).
    region
        Origin and size (row, column), µm; the whole slide if None.
    label_spacing_um
        Pixel size of the label image, µm: its shape is then round(size / *label_spacing_um*).
    scheduler
        Address of a dask.distributed scheduler; threads of this process if empty.  Its workers
        must see the files: finished blocks then lie beside the label image.

    Returns
    -------
    SegmentedPicture
        Its label image lies in a temporary folder that is gone; the labels are in *labels_path*.

    Raises
    ------
    InputError
        For what cannot be read, lacks its pixel size, or contradicts itself.
    """
    _check(kind, method, weights)
    if label_spacing_um is not None and not 0 < label_spacing_um < np.inf:
        raise InputError(f"label_spacing_um is {label_spacing_um:g} µm; give more than 0")
    picture = Picture(path, spacing_um, region, page)
    stain = "cd34" if kind == "vessels" else "he"
    with picture.open(stain) as slide:
        lattice = slide.lattice
        tissue, reason = _all_tissue(slide, none_if_empty=kind in ("nuclei", "vessels"))
    shared = labels_path.absolute().parent if scheduler else None
    if shared is not None and not shared.is_dir():
        raise InputError(f"there is no folder {shared} for {labels_path.name}; create it first")
    with tempfile.TemporaryDirectory(prefix="mosaik-picture-", dir=shared) as folder:
        case = PictureCase(Path(folder), {stain: picture}, weights=weights, scheduler=scheduler)
        if kind != "tissue":
            case.results[TISSUE[stain].name] = tissue
        segmented = yield from _KINDS[kind](case, lattice, method)
        written = lattice if label_spacing_um is None else _resized(lattice, label_spacing_um)
        yield Progress(0.98, 1, "writing the labels")
        write_label_tiff(labels_path, segmented.labels, written)
    doubts = [] if kind == "tissue" or not reason else [f"no tissue was found: {reason}"]
    record = {
        "what": kind,
        "weights": None,
        **segmented.record,
        "warnings": list(dict.fromkeys([*segmented.record["warnings"], *doubts])),
        "spacing_um": list(written.spacing_um),
        "shape": list(written.shape),
        "working_spacing_um": list(segmented.labels.lattice.spacing_um),
    }
    return SegmentedPicture(segmented.labels, segmented.table, record)


_METHODS = {
    "tissue": (),
    "vessels": ("dab", "hsv"),
    "nuclei": ("classical", "stardist"),
    "classes": ("fast", "densenet"),
}


def _check(kind: str, method: str, weights: Path | None) -> None:
    """Refuse what contradicts itself."""
    if kind not in _METHODS:
        raise InputError(f"'{kind}' cannot be segmented; use one of: {', '.join(_METHODS)}")
    offered = _METHODS[kind]
    if method and method not in offered:
        advice = f"use one of: {', '.join(offered)}" if offered else "run without --method"
        raise InputError(f"the method '{method}' is not available for {kind}; {advice}")
    if weights is not None and (kind not in ("nuclei", "classes") or method == "classical"):
        raise InputError("only nuclei (by the method 'stardist') and tissue classes take --weights")
    if weights is None and kind == "classes":
        raise InputError(
            "tissue classes need a trained model: --weights FOLDER (a models/HASH folder of a "
            "case); train one with 'napari-mosaik retrain'"
        )


_MASK_PX = 1024
"""Most pixels of the tissue mask along the longer axis of a picture."""
_NOISE_PX = 8
"""Pixels of a picture along each axis over which noise is averaged."""


def _all_tissue(slide: Slide, *, none_if_empty: bool) -> tuple[Raster, str]:
    """A mask (rows, columns) of all of a picture, or of nothing, and why it shows no tissue."""
    from napari_mosaik.tissue.mask import empty_reason

    lattice, native = slide.lattice, max(slide.lattice.spacing_um)
    coarse = lattice.resized(max(native, max(lattice.extent_um) / _MASK_PX))
    overview = slide.thumbnail(max(coarse.spacing_um[0], native * _NOISE_PX))
    reason = empty_reason(overview)
    # One sample more on each side: samples of a working lattice may reach beyond the picture.
    (rows, cols), step, origin = coarse.shape, coarse.spacing_um, coarse.origin_um
    around = Lattice(
        lattice.frame, (rows + 2, cols + 2), step, (origin[0] - step[0], origin[1] - step[1])
    )
    return Raster(np.full(around.shape, not (reason and none_if_empty)), around), reason


def _tissue(
    case: PictureCase, lattice: Lattice, method: str
) -> Generator[Progress, None, SegmentedPicture]:
    from napari_mosaik.features import measure_objects
    from napari_mosaik.segment.masks import label_mask
    from napari_mosaik.tissue import TissueParams

    params = TissueParams()
    yield from case.run("tissue_he", params)
    mask = case.result(TISSUE["he"])
    labels, _ = label_mask(np.ascontiguousarray(mask.values, bool))
    table = measure_objects(labels, mask.lattice)
    record = {
        "method": "Otsu on luma",
        "params": params.model_dump(mode="json"),
        "warnings": [],
        **_areas(table),
    }
    return SegmentedPicture(LabelImage(labels, mask.lattice), table, record)


def _vessels(
    case: PictureCase, lattice: Lattice, method: str
) -> Generator[Progress, None, SegmentedPicture]:
    from napari_mosaik.segment import VesselParams

    params = VesselParams.parse({"method": method} if method else {}, "--method")
    yield from case.run("vessels", params)
    table, notes = case.result(VESSEL_OBJECTS), case.notes["vessels"]
    record = {
        "method": params.method,
        **notes[STAINING],
        "warnings": [*notes[STAINING]["warnings"], *notes.get(WARNINGS, [])],
        "left_out": notes[EXCLUDED],
        "params": params.model_dump(mode="json"),
        **{
            f"{part}_area_um2": float(np.sum(table[f"{part}_area_um2"]))
            for part in ("wall", "lumen")
        },
        **_areas(table),
    }
    return SegmentedPicture(case.result(VESSELS), table, record)


def _nuclei(
    case: PictureCase, lattice: Lattice, method: str
) -> Generator[Progress, None, SegmentedPicture]:
    from napari_mosaik.features.morphology import OBJECT_ABOUT
    from napari_mosaik.segment import ClassicalNuclei, NucleiParams
    from napari_mosaik.segment.stardist import StarDistNuclei

    values = {"spacing_um": max(min(lattice.spacing_um), 0.5)}
    params = NucleiParams.parse({**values, **({"method": method} if method else {})}, "--method")
    if case.weights is not None:
        params = params.model_copy(update={"method": "stardist"})
    weights = PictureContext(case, step_named("nuclei")).nuclei_weights("")
    model = ClassicalNuclei(params) if params.method == "classical" else StarDistNuclei(weights)
    yield from case.run("nuclei", params)
    table = case.result(NUCLEUS_OBJECTS)
    table = Table(
        {name: table[name] for name in table if name in OBJECT_ABOUT},
        {name: unit for name, unit in table.units.items() if name in OBJECT_ABOUT},
    )
    warnings = case.notes["nuclei"].get(WARNINGS, [])
    record = {**model.provenance, "warnings": warnings, **_areas(table)}
    return SegmentedPicture(case.result(NUCLEI), table, record)


def _classes(
    case: PictureCase, lattice: Lattice, method: str
) -> Generator[Progress, None, SegmentedPicture]:
    from napari_mosaik.segment.tissue_models import load_tissue_model
    from napari_mosaik.tissue import MacenkoParams
    from napari_mosaik.workflow.steps.classes import ClassParams

    assert case.weights is not None  # `_check` has seen to it
    model = load_tissue_model(case.weights)
    if method not in ("", model.name):
        raise InputError(
            f"the model in {case.weights} is of the method '{model.name}', not '{method}'"
        )
    yield from case.run("stain", MacenkoParams())
    yield from case.run("classes", ClassParams(model=model.hash))
    labels, summary, fit = case.result(CLASSES), case.result(CLASS_RECORD), case.result(STAIN_FIT)
    case.results.pop(CLASS_PROBABILITY.name)
    areas = np.array([summary["area_mm2"][name] for name in model.classes]) * 1e6
    warnings = list(case.notes["stain"][STAINING]["warnings"])
    if not fit["usable"]:
        warnings.append(f"the stains were not normalised: {fit['reason']}")
    record = {
        "method": model.name,
        "weights": model.hash,
        "count": int((areas > 0).sum()),
        "area_um2": dict(zip(model.classes, areas.tolist(), strict=True)),
        "mean_uncertainty": summary["mean_uncertainty"],
        "stain_normalised": fit["usable"],
        "warnings": [*warnings, *summary["warnings"], *case.notes["classes"].get(WARNINGS, [])],
    }
    table = Table({"class": np.array(model.classes), "area_um2": areas}, {"area_um2": "µm²"})
    return SegmentedPicture(labels, table, record)


_KINDS: dict[
    str, Callable[[PictureCase, Lattice, str], Generator[Progress, None, SegmentedPicture]]
] = {"tissue": _tissue, "vessels": _vessels, "nuclei": _nuclei, "classes": _classes}


def _areas(table: Table) -> dict[str, Any]:
    """Number and areas (µm²) of the objects of a table."""
    areas = np.asarray(table["area_um2"])
    return {
        "count": len(table),
        "area_um2": float(areas.sum()),
        "mean_area_um2": float(areas.mean()) if len(table) else None,
    }


_TILE_PX = 512
_MAX_READ_PX = 1 << 24
"""Most label pixels that are read at once."""


def _resized(lattice: Lattice, spacing_um: float) -> Lattice:
    """The lattice over the same area whose shape is round(size / *spacing_um*), at least 1 x 1."""
    extent = lattice.extent_um
    shape = (max(1, round(extent[0] / spacing_um)), max(1, round(extent[1] / spacing_um)))
    if shape[0] * shape[1] > _MAX_LABEL_PIXELS:
        raise InputError(
            f"labels of {spacing_um:g} µm would be an image of {shape[0]} x {shape[1]} pixels; "
            "give a larger --label-spacing"
        )
    spacing = (extent[0] / shape[0], extent[1] / shape[1])
    return Lattice(lattice.frame, shape, spacing, lattice.origin_um)


def labels_on(image: LabelImage, lattice: Lattice) -> NDArray[Any]:
    """Labels at the pixel centres of a lattice, shape (rows, columns).

    Each is the label of the pixel of *image* that holds the centre; beyond the edge of *image*, of
    its nearest pixel.  At most about `_MAX_READ_PX` labels are read at once.
    """
    rows, cols = (_nearest(image.lattice, lattice, axis) for axis in (0, 1))
    out = np.zeros(lattice.shape, image.values.dtype)
    left, right = int(cols[0]), int(cols[-1]) + 1
    height = max(1, _MAX_READ_PX // (right - left))
    begin = 0
    while begin < rows.size:
        top = int(rows[begin])
        end = int(np.searchsorted(rows, top + height, "left"))
        part = image.block(slice(top, int(rows[end - 1]) + 1), slice(left, right))
        out[begin:end] = part[np.ix_(rows[begin:end] - top, cols - left)]
        begin = end
    return out


def _nearest(source: Lattice, target: Lattice, axis: int) -> NDArray[np.int64]:
    """(n,) index along an axis of the sample of *source* that holds each centre of *target*."""
    centre_um = (
        target.origin_um[axis] + (np.arange(target.shape[axis]) + 0.5) * (target.spacing_um[axis])
    )
    position = (centre_um - source.origin_um[axis]) / source.spacing_um[axis]
    # A centre on the edge of two samples belongs to the second, rounding errors or not.
    index = np.floor(position + 1e-6).astype(np.int64)
    inside: NDArray[np.int64] = np.clip(index, 0, source.shape[axis] - 1)
    return inside


def write_label_tiff(path: Path, image: LabelImage, lattice: Lattice) -> None:
    """Write labels (rows, columns) at the pixels of a lattice as a TIFF file with its pixel size.

    Tile by tile: neither image is ever in memory as a whole.
    """
    import tifffile

    rows, cols = lattice.shape

    def tiles() -> Iterator[NDArray[Any]]:
        for r in range(0, rows, _TILE_PX):
            for c in range(0, cols, _TILE_PX):
                part = lattice.crop(slice(r, min(r + _TILE_PX, rows)), slice(c, c + _TILE_PX))
                tile = np.zeros((_TILE_PX, _TILE_PX), image.values.dtype)
                tile[: part.shape[0], : part.shape[1]] = labels_on(image, part)
                yield tile

    with saving(path.name, path.parent), atomic_file(path) as scratch:
        tifffile.imwrite(
            scratch,
            tiles(),
            shape=lattice.shape,
            dtype=image.values.dtype,
            tile=(_TILE_PX, _TILE_PX),
            photometric="minisblack",
            compression="zlib",
            resolution=(1e4 / lattice.spacing_um[1], 1e4 / lattice.spacing_um[0]),
            resolutionunit="CENTIMETER",
            metadata={"axes": "YX", "spacing_um": list(lattice.spacing_um)},
            ome=".ome." in path.name.lower(),
        )
