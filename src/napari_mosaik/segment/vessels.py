"""Vessels on a CD34 slide: the wall of each block, and whole vessels from all blocks.

The wall is DAB above a threshold, gaps closed.  A wall shows as a ring; the vessel is the ring with
its lumen.  A block needs a halo (`halo_um`) for its wall to be that of the whole slide.

    WallBlocks ──join holes──► filled ──join objects──► JoinedObjects ──assess──► AssessedVessels
    (runs, colour sums)        (runs)                                              (labels, tables)

Three stages, each complete when it is made; an image in memory is one block.  Lumens and vessels
are joined at the block seams, so a lumen that a seam cuts is filled as if it were whole, and false
positives (`segment.false_positives`) are assessed on whole objects.  Nothing here holds an array of
the size of the slide: labels are painted block by block from the stored runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.window import Slices
from napari_mosaik.segment.false_positives import (
    SUMS,
    add_block_sums,
    any_rule_enabled,
    count_by_reason,
    excluded_objects_table,
    exclusion_codes,
    wall_colours,
    wall_sums,
)
from napari_mosaik.segment.filters import gaussian, require_rgb, stain_amount
from napari_mosaik.segment.masks import close_mask
from napari_mosaik.segment.run_length import BlockComponents, Labels, Runs, find_runs
from napari_mosaik.segment.slide_stain import (
    H_DAB,
    Staining,
    estimate_staining,
    result_warnings,
)
from napari_mosaik.segment.stitch import SeamLabels, holes_to_fill
from napari_mosaik.segment.vessel_params import VesselParams

__all__ = [
    "AssessedVessels",
    "InMemoryBlocks",
    "JoinedObjects",
    "ObjectKind",
    "StoredBlocks",
    "VesselSegmentation",
    "WallBlocks",
    "dab_by_hue",
    "find_vessels",
    "halo_um",
    "pixel_limits",
    "segment_vessels",
    "vessel_wall",
    "wall_block",
]


def halo_um(params: VesselParams) -> float:
    """Halo around a block on which its wall depends, µm.

    Twice the closing radius and the reach of the smoothing.  Lumens need none: they are filled
    once they are whole (`segment.vessels`).
    """
    return 2 * params.closing_um + 3 * params.smoothing_um + 4 * params.spacing_um


def dab_by_hue(rgb: NDArray[np.uint8]) -> Mask:
    """Mask of brown pixels, (rows, columns): hue in [350°, 360°) or [0°, 45°), S ≥ 0.15, V 0.1-0.9.

    *rgb* holds 8-bit levels, (rows, columns, 3).
    """
    red, green, blue = (require_rgb(rgb)[..., k].astype(float) for k in range(3))
    top, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    coloured = (top >= 0.1 * 255) & (top <= 0.9 * 255) & (top - low >= 0.15 * top) & (top > low)
    with np.errstate(divide="ignore", invalid="ignore"):
        hue = 60.0 * (green - blue) / (top - low)
    return np.asarray(coloured & (top == red) & (hue >= -10.0) & (hue < 45.0))


def vessel_wall(
    rgb: NDArray[np.uint8],
    spacing_um: float,
    params: VesselParams,
    threshold: float,
    vectors: ArrayLike | None = None,
) -> Mask:
    """Mask of the closed vessel wall of one block with halo, (rows, columns).

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels, the block's core surrounded by `halo_um`.
    spacing_um
        Pixel size, µm.
    params
        Settings.
    threshold
        Amount of DAB from which a pixel is wall, natural OD (`slide_stain.estimate_threshold`).
    vectors
        (3, 2) OD vectors of haematoxylin and DAB.
    """
    if not spacing_um > 0:
        raise InputError(f"the pixel size must be positive, not {spacing_um} µm")
    if params.method == "hsv":
        wall = dab_by_hue(rgb)
    else:
        sigma_px = params.smoothing_um / spacing_um
        density = stain_amount(rgb, H_DAB if vectors is None else vectors, 1)
        wall = gaussian(density, sigma_px) >= np.float32(threshold)
    return close_mask(wall, params.closing_um / spacing_um)


def pixel_limits(params: VesselParams, pixel_area_um2: float) -> tuple[int, int]:
    """Maximum pixel count of a lumen that is filled, minimum pixel count of a vessel."""
    max_lumen = math.floor(params.max_lumen_um2 / pixel_area_um2)
    return max_lumen, max(1, math.ceil(params.min_area_um2 / pixel_area_um2))


_Arrays = Mapping[str, NDArray[Any]]
ObjectKind = Literal["vessel", "excluded"]
_SAMPLES = 400_000
"""The stains of an image are estimated from at most about four times as many pixels."""


class StoredBlocks(Protocol):
    """Named arrays of several blocks, in memory or on the disk."""

    def starting(self, index: int, prefix: str) -> _Arrays:
        """The arrays of one block whose names start with *prefix*."""

    def array(self, index: int, name: str) -> NDArray[Any]:
        """One array of one block, of its own shape (n, ...), a mask, label or count."""


class InMemoryBlocks:
    """`StoredBlocks` in a list."""

    def __init__(self, blocks: Sequence[_Arrays]) -> None:
        self._blocks = blocks

    def starting(self, index: int, prefix: str) -> _Arrays:
        """The arrays of one block whose names start with *prefix*."""
        return {k: v for k, v in self._blocks[index].items() if k.startswith(prefix)}

    def array(self, index: int, name: str) -> NDArray[Any]:
        """One array of one block, of its own shape (n, ...), a mask, label or count."""
        return self._blocks[index][name]


def wall_block(
    rgb: NDArray[np.uint8],
    spacing_um: float,
    params: VesselParams,
    staining: Staining,
    inner: Slices | None = None,
    tissue: Mask | None = None,
    edge: Mask | None = None,
    valid: Mask | None = None,
) -> dict[str, NDArray[Any]]:
    """The vessel wall of one block as runs, with its holes and the colour sums of its objects.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels of the block with its halo (`vessels.halo_um`).
    spacing_um
        Pixel size, µm.
    params, staining
        Settings; stains and threshold of the slide.
    inner
        Window of the block without its halo; all of it if None.
    tissue, edge, valid
        Masks of the inner part, (inner rows, inner columns): tissue, tissue near its outline, and
        pixels that are not on damaged tiles.  None: everywhere, nowhere, everywhere.
    """
    rgb = require_rgb(rgb)
    inner = inner or (slice(0, rgb.shape[0]), slice(0, rgb.shape[1]))
    vectors = staining.stains.matrix
    wall = vessel_wall(rgb, spacing_um, params, staining.threshold, vectors)[inner]
    checkpoint()
    runs = find_runs(wall if tissue is None else wall & tissue)
    sums = np.zeros((runs.n_objects, len(SUMS)), np.int64)
    if runs.n_objects and any_rule_enabled(params):
        sums = wall_sums(rgb[inner], runs, vectors, params, edge)
    arrays = {**runs.arrays(), **runs.holes().arrays("holes"), "colour": sums}
    if valid is not None and not valid.all():
        arrays["valid"] = np.packbits(valid).reshape(-1)
    return arrays


class WallBlocks:
    """The walls of all blocks, with lumens joined across seams.

    Parameters
    ----------
    windows
        Rows and columns of every block, in raster order.
    present
        Numbers of the blocks in *walls*, in the same order; the others hold no tissue.
    walls
        What `wall_block` gave for them.
    max_lumen_px
        Most pixels of a hole that is filled as a lumen.
    """

    def __init__(
        self,
        windows: Sequence[Slices],
        present: Sequence[int],
        walls: StoredBlocks,
        max_lumen_px: int,
    ) -> None:
        self.windows, self.walls = windows, walls
        self.place = {index: place for place, index in enumerate(present)}
        self._fills = holes_to_fill(self.joined(walls, "holes"), max_lumen_px)

    def joined(self, blocks: StoredBlocks, kind: Literal["holes", "objects"]) -> SeamLabels:
        """The holes or objects of all blocks, ready to be joined at the seams."""
        seams = SeamLabels(self.windows, holes=kind == "holes")
        for index, (rows, cols) in enumerate(self.windows):
            if index in self.place:
                stored = blocks.starting(self.place[index], kind)
                parts = BlockComponents.from_arrays(stored, kind)
            else:
                empty = find_runs(np.zeros((rows.stop - rows.start, cols.stop - cols.start), bool))
                parts = empty.holes() if kind == "holes" else empty.objects()
            seams.put(index, parts)
        return seams

    def runs(self, index: int) -> Runs:
        """The wall of one block."""
        return Runs.from_arrays(self.walls.starting(self.place[index], "runs:"))

    def filled(self, index: int) -> dict[str, NDArray[Any]]:
        """One block with its lumens filled: runs and the objects that they form."""
        mask = self.runs(index).filled(self._fills[index])
        for packed in self.walls.starting(self.place[index], "valid").values():
            bits = np.unpackbits(packed, count=mask.size)
            mask = mask & bits.reshape(mask.shape).view(bool)
        runs = find_runs(mask)
        return {**runs.arrays(), **runs.objects().arrays("objects")}


class JoinedObjects:
    """Vessels and false positives joined across seams, numbered by first pixel in raster order.

    Parameters
    ----------
    walls
        The wall blocks.
    filled
        `WallBlocks.filled` of each block that is present, in the same order.
    min_pixels
        Smaller objects are dropped.
    """

    def __init__(self, walls: WallBlocks, filled: StoredBlocks, min_pixels: int) -> None:
        self.walls, self._filled = walls, filled
        self._seams = walls.joined(filled, "objects")
        self.pixels = self._seams.join(min_pixels).pixels

    def numbers(self, index: int) -> Labels:
        """(n + 1,) label of each object of one block; 0 for none or a dropped one."""
        return self._seams.numbers(index)

    def runs(self, index: int) -> Runs:
        """One block with its lumens filled."""
        return Runs.from_arrays(self._filled.starting(self.walls.place[index], "runs:"))

    def with_border(self, index: int) -> Labels:
        """(rows + 2, columns + 2) labels of one block and of one pixel around it."""
        labels = self.runs(index).painted(self.numbers(index), border=1)
        self._seams.fill_border(index, labels)
        return labels

    def wall_owner(self, index: int, labels: Labels) -> NDArray[np.int32]:
        """(n,) label of the object that holds each part of the wall in a block.

        *labels* are those of the block, (rows, columns).
        """
        first = self.walls.runs(index).objects().first
        owner: NDArray[np.int32] = labels[np.divmod(first, labels.shape[1])]
        return owner


class AssessedVessels:
    """Vessels told from false positives, each kind with labels 1, 2, ... of its own.

    Parameters
    ----------
    objects
        The joined objects.
    owners
        `JoinedObjects.wall_owner` of each block that is present, in their order.
    pixel_area_um2
        Area of a pixel, µm².
    params, staining
        Settings; stains and threshold of the slide.
    """

    def __init__(
        self,
        objects: JoinedObjects,
        owners: Iterable[NDArray[np.int32]],
        pixel_area_um2: float,
        params: VesselParams,
        staining: Staining,
    ) -> None:
        self._objects, self._params, self._staining = objects, params, staining
        totals = np.zeros((objects.pixels.size, len(SUMS)), np.int64)
        for place, owner in enumerate(owners):
            add_block_sums(totals, owner, objects.walls.walls.array(place, "colour"))
        vectors = staining.stains.matrix
        self.codes = exclusion_codes(totals, objects.pixels, pixel_area_um2, vectors, params)
        self._colours = wall_colours(totals, vectors)
        is_vessel = np.concatenate([[False], self.codes == 0])
        is_excluded = np.concatenate([[False], self.codes != 0])
        self._renumbered: dict[ObjectKind, NDArray[np.int32]] = {
            "vessel": np.where(is_vessel, np.cumsum(is_vessel), 0).astype(np.int32),
            "excluded": np.where(is_excluded, np.cumsum(is_excluded), 0).astype(np.int32),
        }

    def painted(self, kind: ObjectKind, index: int) -> Labels:
        """(rows, columns) labels of one kind in one block."""
        if not self.holds(kind, index):
            rows, cols = self._objects.walls.windows[index]
            return np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.int32)
        return self._objects.runs(index).painted(self._numbers(kind, index))

    def holds(self, kind: ObjectKind, index: int) -> bool:
        """Whether a block holds any object of a kind."""
        return index in self._objects.walls.place and bool(self._numbers(kind, index).any())

    def _numbers(self, kind: ObjectKind, index: int) -> Labels:
        return self._renumbered[kind][self._objects.numbers(index)]

    @property
    def excluded(self) -> dict[str, int]:
        """Number of excluded objects by reason."""
        return count_by_reason(self.codes)

    def record(self) -> dict[str, Any]:
        """JSON-able record: stains, threshold, the guessed stain and all warnings."""
        n_vessels = int((self.codes == 0).sum())
        warnings = result_warnings(n_vessels, self.excluded, self._staining, self._params)
        return {**self._staining.to_dict(), "warnings": [*self._staining.warnings, *warnings]}

    def tables(self, measured: Table) -> tuple[Table, Table]:
        """Vessels with their lumen area (µm²), and excluded objects with reason and colours.

        *measured* has a row for each object and the columns ``area_um2`` and ``wall_area_um2``.
        """
        lumen = measured["area_um2"] - measured["wall_area_um2"]
        about = {
            "lumen_area_um2": "area of the filled vessel without its wall",
            "wall_area_um2": "area of the wall, DAB of at least "
            f"{self._staining.threshold:.3g} OD (natural)",
        }
        table = measured.with_columns({"lumen_area_um2": lumen}, {"lumen_area_um2": "µm²"}, about)
        excluded = excluded_objects_table(table, self.codes, self._colours, self._params)
        return table.rows(self.codes == 0), excluded


@dataclass(frozen=True, slots=True, eq=False)
class VesselSegmentation:
    """Vessels of an image and the excluded DAB objects.

    Parameters
    ----------
    vessels, excluded
        (rows, columns) labels 1 to n and 1 to m.
    reasons
        (m,) codes of `false_positives.REASONS`.
    wall
        (rows, columns) mask of the closed vessel wall.
    staining
        Stains, threshold and warnings.
    """

    vessels: LabelImage
    excluded: LabelImage
    reasons: NDArray[np.uint8]
    wall: Mask
    staining: Staining


def find_vessels(
    image: Raster, params: VesselParams | None = None, edge: Mask | None = None
) -> VesselSegmentation:
    """Segment the vessels of an image in memory, and the non-vascular DAB.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels, used at its own pixel size (µm).
    params
        Settings.
    edge
        (rows, columns) mask, True near the edge of the tissue; nowhere if None.

    Returns
    -------
    VesselSegmentation
        Vessels and excluded objects are numbered by their first pixel in raster order.
    """
    params = params or VesselParams()
    rgb, spacing_um = require_rgb(image.values), image.lattice.spacing_um[0]
    step = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // _SAMPLES))
    staining = estimate_staining(rgb[::step, ::step].reshape(-1, 3), params)
    max_lumen, min_pixels = pixel_limits(params, spacing_um**2)
    window = (slice(0, rgb.shape[0]), slice(0, rgb.shape[1]))
    block = wall_block(rgb, spacing_um, params, staining, edge=edge)
    walls = WallBlocks([window], [0], InMemoryBlocks([block]), max_lumen)
    objects = JoinedObjects(walls, InMemoryBlocks([walls.filled(0)]), min_pixels)
    labels = objects.runs(0).painted(objects.numbers(0))
    assessed = AssessedVessels(
        objects, [objects.wall_owner(0, labels)], spacing_um**2, params, staining
    )
    vessels, excluded = (
        LabelImage(assessed.painted(kind, 0), image.lattice) for kind in ("vessel", "excluded")
    )
    reasons = assessed.codes[assessed.codes > 0]
    return VesselSegmentation(vessels, excluded, reasons, walls.runs(0).mask(), staining)


def segment_vessels(image: Raster, params: VesselParams | None = None) -> LabelImage:
    """Vessels of an image in memory, numbered by their first pixel in raster order.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels, used at its own pixel size (µm).
    params
        Settings.

    Returns
    -------
    LabelImage
        (rows, columns) int32 labels, lumen included, on the lattice of the image; 0 elsewhere.
    """
    return find_vessels(image, params).vessels
