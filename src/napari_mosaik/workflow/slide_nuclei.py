"""The nuclei of a slide block by block: found, owned by one block, measured, and joined.

    image of a block with its margin ─► nuclei, part by part ─► those with the centroid in the part
    ─► run-lengths and measurements of the part ─► one label image, one table

The mask of a block and its labels are let go of part by part: the peak is that of the pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.catalogue import STAIN_FIT
from napari_mosaik.core.distance import within
from napari_mosaik.core.frame import Lattice, Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.slide_blocks import (
    drop_damaged_objects,
    mask_mm2,
    resample_mask,
    split_table,
)
from napari_mosaik.workflow.step_context import BlockResults, StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment import NucleiModel
    from napari_mosaik.segment.run_length import LabelRuns
    from napari_mosaik.segment.stitch import ObjectStitcher

__all__ = [
    "FOUND",
    "JOINED",
    "block_nuclei",
    "join_nuclei",
    "measured_nuclei",
    "share_before",
    "stain_vectors",
    "tissue_near",
]

FOUND, JOINED = 0.97, 0.98
"""Shares of the step's time (fractions of 1) when all blocks are found, and joined."""
_BEFORE_S, _S_PER_MPX, _BEFORE_LIMIT = 2.0, 0.2, 0.3
"""Time until the blocks begin, and of a million pixels of tissue on two cores, s; the largest share
of the step (fraction of 1) that the first is told to be."""

_PART_PX = 1216
"""Edge of the parts of a block that are labelled and measured one after the other."""


def stain_vectors(inputs: StepContext) -> NDArray[np.float64] | None:
    """OD vectors of the H&E slide's own stains, shape (3, 2), dimensionless; None where unknown."""
    fit = inputs.read(STAIN_FIT) if inputs.has(STAIN_FIT) else None
    return np.array(fit["vectors"], float).T if fit and fit["usable"] else None


def share_before(mask: Raster, spacing_um: float) -> float:
    """What is done of the step (fraction of 1) when the blocks begin: little on a large slide.

    *mask* is that of the tissue (rows, columns); nuclei are looked for at *spacing_um*, µm.
    """
    tissue_mpx = mask_mm2(mask) / spacing_um**2
    return min(_BEFORE_LIMIT, _BEFORE_S / (_BEFORE_S + _S_PER_MPX * tissue_mpx))


def tissue_near(mask: Raster, distance_um: float) -> Raster:
    """The tissue mask (rows, columns) with what lies within a distance in µm of it."""
    tissue = np.asarray(mask.values, bool)
    return Raster(within(tissue, distance_um, mask.lattice.spacing_um), mask.lattice)


def _wanted(block: Block, near: Raster, model: NucleiModel) -> Mask:
    """Where a network looks for nuclei within a block with its margin, (rows, columns).

    In the tissue of the core, and as far beside it as nuclei compete with one another.
    """
    from napari_mosaik.segment.stardist import NEIGHBOURS_PX

    where = resample_mask(block.outer, near)
    room = math.ceil(NEIGHBOURS_PX * model.spacing_um / min(block.lattice.spacing_um))
    for axis, core in enumerate(block.inner):
        beyond = np.ones(where.shape[axis], bool)
        beyond[max(0, core.start - room) : core.stop + room] = False
        where[(slice(None),) * axis + (beyond,)] = False
    return where


def _parts(block: Block) -> list[Block]:
    """A block in parts that are labelled and measured one after the other, with its margins."""
    spans = [
        [slice(at, min(at + _PART_PX, side.stop)) for at in range(side.start, side.stop, _PART_PX)]
        for side in (block.rows, block.cols)
    ]
    return [replace(block, rows=rows, cols=cols) for rows, cols in itertools.product(*spans)]


def block_nuclei(
    image: Raster,
    block: Block,
    model: NucleiModel,
    vectors: NDArray[np.float64] | None,
    slide: Slide,
    near: Raster | None,
) -> dict[str, NDArray[Any]]:
    """The nuclei of a block part by part: those whose centroid lies in it, and measurements.

    *image* is (rows, columns, 3), 8-bit levels of the block with its margin; *vectors* (3, 2) are
    the stains.  A network looks for nuclei in the mask *near* (rows, columns) alone.
    """
    from napari_mosaik.segment.run_length import LabelRuns
    from napari_mosaik.segment.stitch import keep_centroid_in_core

    top, left = (side.start for side in block.window)
    parts = _parts(block)
    windows = [
        (
            slice(part.window[0].start - top, part.window[0].stop - top),
            slice(part.window[1].start - left, part.window[1].stop - left),
        )
        for part in parts
    ]
    found: dict[str, NDArray[Any]] = {}
    tables: list[dict[str, NDArray[Any]]] = []
    spacing_um = math.sqrt(block.lattice.sample_area_um2)
    # The mask of the block is held by nothing but the call, which lets go of it.
    segmented = model.segment_parts(
        image.values,
        spacing_um,
        windows,
        None if near is None else _wanted(block, near, model),
    )
    for number, (part, window, labels) in enumerate(zip(parts, windows, segmented, strict=True)):
        labels = drop_damaged_objects(labels, slide, part.outer)
        checkpoint()
        owned = keep_centroid_in_core(labels, part.inner)
        runs = LabelRuns.of(owned)
        found |= {f"{number}:{name}": values for name, values in runs.arrays().items()}
        table = measured_nuclei(owned, part.outer, vectors, image.values[window])
        tables.append(split_table(table))
    columns = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    return {**found, **columns}


def measured_nuclei(
    labels: NDArray[np.int32],
    lattice: Lattice,
    vectors: NDArray[np.float64] | None,
    rgb: NDArray[np.uint8] | None,
) -> Table:
    """Shape, stain and texture of each nucleus of a block.

    Parameters
    ----------
    labels
        (rows, columns) int32 labels on *lattice*.
    lattice
        Where the labels lie, µm; cropped to their shape.
    vectors
        (3, 2) OD vectors of haematoxylin and eosin; Ruifrok and Johnston's if None.
    rgb
        (rows, columns, 3) 8-bit levels of the block; no stain if None.
    """
    from napari_mosaik.features import TEXTURE_ABOUT, measure_objects, texture_table
    from napari_mosaik.segment.nuclei import nuclear_density

    lattice = lattice.crop(slice(0, labels.shape[0]), slice(0, labels.shape[1]))
    density = np.zeros(labels.shape, np.float32)
    if rgb is not None:
        density = nuclear_density(rgb, vectors)
    checkpoint()
    table = measure_objects(labels, lattice, intensity={"haematoxylin_od": density})
    checkpoint()
    texture = texture_table(labels, density, len(table))
    return table.with_columns(texture, about=TEXTURE_ABOUT)


def join_nuclei(
    lattice: Lattice, blocks: list[Block], results: BlockResults
) -> Generator[Progress, None, ObjectStitcher]:
    """All nuclei in one label image, and the row of the joined tables of each of them."""
    from napari_mosaik.segment.run_length import LabelRuns
    from napari_mosaik.segment.stitch import ObjectStitcher

    parts = [
        (place, f"{number}:", part.window)
        for place, block in enumerate(blocks)
        for number, part in enumerate(_parts(block))
    ]

    def load(index: int) -> LabelRuns:
        place, prefix, _ = parts[index]
        named = results.starting(place, prefix)
        return LabelRuns.from_arrays({k.removeprefix(prefix): v for k, v in named.items()})

    joined = ObjectStitcher(lattice.shape, [window for _, _, window in parts], load)
    for done in joined.join():
        share = FOUND + (JOINED - FOUND) * done / len(parts)
        yield Progress(share, 1, "joining nuclei across blocks")
    return joined
