"""What the slide steps share: which blocks hold tissue, samples of their pixels, block tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.params import digest
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.table import Table

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.workflow.step_context import BlockResults, StepContext

__all__ = [
    "BLOCK_PX",
    "blocks_with_tissue",
    "drop_damaged_objects",
    "join_tables",
    "resample_mask",
    "sample_blocks",
    "sample_stride",
    "sample_tissue",
    "split_table",
    "stage_on",
]

BLOCK_PX = 1024
"""Edge of a block whose work takes long: a cancelled run ends after the blocks in work."""
_SAMPLE_PX = 256
_MIN_SAMPLES = 50_000
"""At least so many pixels of a slide or picture are sampled, if it has them."""
_COLUMN = "column:"


def stage_on(stage: str, computed_on: Mapping[str, str]) -> str:
    """A stage's name for one device and its packages.

    A run that ended early leaves its blocks to the next one; those of another device, or of other
    versions, are not among them, so that the record names what computed all of them.
    """
    return f"{stage}-{digest(sorted(computed_on.items()))[:8]}"


def blocks_with_tissue(blocks: list[Block], mask: Raster) -> list[Block]:
    """The blocks whose core holds tissue.

    *mask* is a (rows, columns) mask in the same frame, of any pixel size.
    """
    return [block for block in blocks if _holds_tissue(block.core, mask)]


def tissue_areas(blocks: Sequence[Block], mask: Raster) -> list[float]:
    """Pixels (count) of each block's core that are tissue on a (rows, columns) mask."""
    marked, areas = np.asarray(mask.values, bool), []
    for block in blocks:
        samples = [np.unique(index) for _, index in _looked_up(block.core, mask)]
        inside = marked[np.ix_(*samples)]
        areas.append(float(inside.mean()) * math.prod(block.core.shape) if inside.size else 0.0)
    return areas


def _holds_tissue(lattice: Lattice, mask: Raster) -> bool:
    samples = [np.unique(index) for _, index in _looked_up(lattice, mask)]
    return bool(np.asarray(mask.values, bool)[np.ix_(*samples)].any())


def resample_mask(lattice: Lattice, mask: Raster) -> NDArray[np.bool_]:
    """A tissue mask on another lattice of the same frame, by nearest neighbour.

    Parameters
    ----------
    lattice
        Where the mask is wanted (µm).
    mask
        (rows, columns) boolean mask.

    Returns
    -------
    numpy.ndarray
        Mask of shape ``lattice.shape``; False beyond *mask*.
    """
    (part_rows, rows), (part_cols, cols) = _looked_up(lattice, mask)
    out = np.zeros(lattice.shape, bool)
    if rows.size and cols.size:  # few rows are stretched as wide as the lattice, then copied whole
        first = int(rows[0])
        wide = np.asarray(mask.values, bool)[first : int(rows[-1]) + 1].take(cols, axis=1)
        out[part_rows, part_cols] = wide.take(rows - first, axis=0)
    return out


def _looked_up(lattice: Lattice, mask: Raster) -> list[tuple[slice, NDArray[np.int64]]]:
    """Per axis: the part of the lattice that lies on the mask, and which samples of the mask."""
    low, axes = mask.lattice, []
    for axis in (0, 1):
        centre = (np.arange(lattice.shape[axis]) + 0.5) * lattice.spacing_um[axis]
        position = (centre + lattice.origin_um[axis] - low.origin_um[axis]) / low.spacing_um[axis]
        index = np.floor(position).astype(np.int64)
        start, stop = np.searchsorted(index, (0, low.shape[axis]))
        axes.append((slice(int(start), int(stop)), index[start:stop]))
    return axes


def mask_mm2(mask: Raster) -> float:
    """Area of a (rows, columns) mask, mm²."""
    return float(np.count_nonzero(mask.values)) * mask.lattice.sample_area_um2 / 1e6


def sample_blocks(lattice: Lattice, block_px: int, mask: Raster, count: int) -> list[Block]:
    """At most *count* small blocks spread evenly over the tissue, without margins.

    Parameters
    ----------
    lattice
        Working lattice of the slide (µm).
    block_px
        Edge of a block (count of pixels).
    mask
        (rows, columns) tissue mask in the same frame, of any pixel size.
    count
        Maximum number of blocks.
    """
    inside = np.flatnonzero(np.asarray(mask.values, bool))
    chosen = inside[np.linspace(0, inside.size - 1, min(count, inside.size)).astype(np.int64)]
    index = np.stack(np.divmod(chosen, mask.lattice.shape[1]), axis=-1)
    position = lattice.to_index(mask.lattice.to_um(index))
    cells = np.clip(position + 0.5, 0, np.asarray(lattice.shape) - 1).astype(np.int64) // block_px
    blocks: list[Block] = []
    for row, column in sorted({(int(r), int(c)) for r, c in cells}):
        spans = [
            slice(cell * block_px, min((cell + 1) * block_px, length))
            for cell, length in zip((row, column), lattice.shape, strict=True)
        ]
        blocks.append(Block(len(blocks), spans[0], spans[1], 0, lattice))
    return blocks


def sample_tissue(
    inputs: StepContext,
    slide: Slide,
    lattice: Lattice,
    mask: Raster,
    *,
    n_blocks: int,
    stride: int,
    stage: str = "samples",
    start: float = 0.0,
    stop: float = 0.05,
    measure: Callable[[Raster], NDArray[Any]] | None = None,
) -> Generator[Progress, None, NDArray[Any]]:
    """Every *stride*-th pixel within the tissue in small blocks spread evenly over it.

    Of a small picture more pixels are sampled (`sample_stride`).

    Parameters
    ----------
    inputs, slide
        Of the running step.
    lattice, mask
        Working lattice of the slide; (rows, columns) mask of its tissue, of any pixel size.
    n_blocks, stride
        Maximum number of blocks of 256 x 256 pixels; step between sampled pixels.
    stage, start, stop
        Name of the stage in the scratch folder; progress at its begin and end (fraction).
    measure
        Values (rows, columns, ...) of a block that are sampled; its 8-bit RGB levels if None.

    Returns
    -------
    numpy.ndarray
        (n, 3) 8-bit levels, or (n, ...) values of *measure*; of length 0 without tissue.
    """
    blocks = sample_blocks(lattice, _SAMPLE_PX, mask, n_blocks)
    step = sample_stride(blocks, stride)

    def sample(block: Block) -> dict[str, NDArray[Any]]:
        image = slide.read_lattice(block.core)
        values = image.values if measure is None else measure(image)
        return {"values": values[::step, ::step][resample_mask(block.core, mask)[::step, ::step]]}

    samples = yield from inputs.blocks(
        stage, blocks, sample, "estimating the stain", start=start, stop=stop
    )
    empty = np.zeros((0, 3), np.uint8) if measure is None else np.zeros(0)
    return np.concatenate([empty, *samples.column("values")])


def sample_stride(blocks: Sequence[Block], usual: int) -> int:
    """Step (count) between sampled pixels of blocks along each axis.

    The *usual* one, or a smaller one where it would leave fewer than `_MIN_SAMPLES` pixels.
    """
    n_pixels = sum(math.prod(block.core.shape) for block in blocks)
    return max(1, min(usual, math.isqrt(n_pixels // _MIN_SAMPLES)))


def drop_damaged_objects(
    labels: NDArray[np.int32], slide: Slide, lattice: Lattice, margin_um: float = 0.0
) -> NDArray[np.int32]:
    """Labels of a block without the objects that touch a damaged tile or lie near one.

    Part of such an object may be missing, so its measurements would be wrong.

    Parameters
    ----------
    labels
        (rows, columns) labels of the block.
    slide, lattice
        The slide and the block's lattice (µm).
    margin_um
        Objects within this distance of a damaged tile are dropped, too, µm.

    Returns
    -------
    numpy.ndarray
        (rows, columns) int32 labels; 0 for dropped objects.
    """
    if not slide.damaged:
        return labels
    damaged = ~slide.valid_mask(lattice)
    if not damaged.any():
        return labels
    away_um = scipy.ndimage.distance_transform_edt(~damaged, sampling=lattice.spacing_um)
    near = away_um <= margin_um + max(lattice.spacing_um) * 1.5
    return np.where(np.isin(labels, np.unique(labels[near])), 0, labels).astype(np.int32)


def split_table(table: Table) -> dict[str, NDArray[Any]]:
    """A table's columns under names that do not clash with other arrays of a block."""
    return {f"{_COLUMN}{name}": np.asarray(table[name]) for name in table}


def join_tables(parts: BlockResults, like: Table, rows: NDArray[np.int64] | None = None) -> Table:
    """The tables of all blocks below one another, with the columns, units and texts of *like*.

    *rows* are the indices (n,) of those that are kept; all if None.  Columns are joined one after
    the other: of millions of objects nothing exists twice.
    """
    columns = {}
    for name in like:
        joined = np.concatenate([np.asarray(like[name])[:0], *parts.column(_COLUMN + name)])
        columns[name] = joined if rows is None else joined[rows]
    return Table(columns, like.units, like.about, like.frame)
