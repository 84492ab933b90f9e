"""Find the vessels on the CD34 slide, block by block, whole across block seams."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import SLIDES, TISSUE, VESSEL_OBJECTS, VESSELS
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.segment import VesselParams
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.parallel import n_workers
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.steps.blocks import scratch_array, tissue_in, with_tissue

__all__ = ["FIND_VESSELS"]

BLOCK_PX = 1024
SAMPLED_BLOCKS = 24


def _body(inputs: Inputs, params: VesselParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.segment.vessels import halo_um

    mask = inputs.read(TISSUE["cd34"])
    with inputs.slide("cd34") as slide:
        lattice = slide.working_lattice(params.spacing_um)
        blocks = cut(lattice, BLOCK_PX, halo_um(params))
        tissue_blocks = with_tissue(blocks, mask)
        threshold = yield from _threshold(inputs, slide, tissue_blocks, mask, params)

        def find(block: Block) -> dict[str, NDArray[Any]]:
            return _block_masks(slide, block, mask, params, threshold)

        masks = yield from inputs.blocks(
            "masks", tissue_blocks, find, "finding vessel walls", start=0.1, stop=0.7
        )
    labels, counts = yield from _join(inputs, lattice, blocks, tissue_blocks, masks, params)
    yield Progress(0.85, 1, "measuring vessels")
    wall = _assemble(lattice, tissue_blocks, masks)
    table = _measure(lattice, labels, wall, len(counts), threshold)
    yield Progress(0.95, 1, "storing vessels")
    return {VESSELS: LabelImage(labels, lattice), VESSEL_OBJECTS: table}


def _threshold(
    inputs: Inputs, slide: Any, blocks: list[Block], mask: Raster, params: VesselParams
) -> Generator[Progress, None, float]:
    """The slide's own DAB threshold, from blocks spread evenly over its tissue."""
    from napari_mosaik.segment.vessels import estimate_threshold, vessel_density

    if params.method == "hsv" or params.threshold == "fixed":
        return params.dab_od
    step = max(1, len(blocks) // SAMPLED_BLOCKS)
    chosen = blocks[::step]

    def sample(block: Block) -> dict[str, NDArray[Any]]:
        density = vessel_density(slide.read_lattice(block.core).values)[::4, ::4]
        return {"od": density[tissue_in(block.core, mask)[::4, ::4]]}

    samples = yield from inputs.blocks("samples", chosen, sample, "estimating the stain", stop=0.1)
    return estimate_threshold(np.concatenate([s["od"] for s in samples] or [np.zeros(0)]), params)


def _block_masks(
    slide: Any, block: Block, mask: Raster, params: VesselParams, threshold: float
) -> dict[str, NDArray[Any]]:
    from napari_mosaik.segment.vessels import vessel_mask

    image = slide.read_lattice(block.outer)
    spacing_um = math.sqrt(block.lattice.sample_area_um2)
    wall, filled = vessel_mask(image.values, spacing_um, params, threshold)
    inside = tissue_in(block.core, mask)
    filled = filled[block.inner] & inside
    wall = wall[block.inner] & inside
    return {"wall": np.packbits(wall), "filled": np.packbits(filled)}


def _unpack(packed: NDArray[Any], block: Block) -> NDArray[np.bool_]:
    shape = block.core.shape
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def _join(
    inputs: Inputs,
    lattice: Lattice,
    blocks: list[Block],
    tissue_blocks: list[Block],
    masks: list[dict[str, NDArray[Any]]],
    params: VesselParams,
) -> Generator[Progress, None, tuple[NDArray[np.int32], Any]]:
    """Label every block, join the labels at the seams and write the final labels."""
    from napari_mosaik.segment.stitch import SeamLabels

    found = {block.index: item["filled"] for block, item in zip(tissue_blocks, masks, strict=True)}
    labels = scratch_array(inputs.scratch, "labels", lattice.shape, np.int32)
    seams = SeamLabels(lattice.shape, BLOCK_PX)
    for block in blocks:
        if block.index in found:
            mask = _unpack(found[block.index], block)
        else:
            mask = np.zeros(block.core.shape, bool)
        labels[block.rows, block.cols] = seams.add(block.index, mask)
        if block.index % (4 * n_workers()) == 0:
            share = 0.7 + 0.1 * block.index / len(blocks)
            yield Progress(share, 1, "joining vessels across blocks")
    counts = seams.join(max(1, math.ceil(params.min_area_um2 / lattice.sample_area_um2)))
    for block in blocks:
        if block.index in found:
            part = seams.relabel(block.index, np.asarray(labels[block.rows, block.cols]))
            labels[block.rows, block.cols] = part
    return labels, counts


def _assemble(
    lattice: Lattice, blocks: list[Block], masks: list[dict[str, NDArray[Any]]]
) -> NDArray[np.bool_]:
    wall = np.zeros(lattice.shape, bool)
    for block, item in zip(blocks, masks, strict=True):
        wall[block.rows, block.cols] = _unpack(item["wall"], block)
    return wall


def _measure(
    lattice: Lattice,
    labels: NDArray[np.int32],
    wall: NDArray[np.bool_],
    n_objects: int,
    threshold: float,
) -> Table:
    from napari_mosaik.features import measure_objects

    table = measure_objects(labels, lattice, masks={"wall": wall}, n_labels=n_objects)
    lumen = table["area_um2"] - table["wall_area_um2"]
    about = {
        "lumen_area_um2": "area of the filled vessel without its wall",
        "wall_area_um2": f"area of the wall (DAB of at least {threshold:.3g} natural OD)",
    }
    return table.with_columns({"lumen_area_um2": lumen}, {"lumen_area_um2": "µm²"}, about)


FIND_VESSELS = Step(
    name="vessels",
    title="Vessels",
    about="Finds vessels by their brown CD34 wall, fills their lumen and measures each of them.",
    page="Vessels",
    params=VesselParams,
    reads=(SLIDES["cd34"], TISSUE["cd34"]),
    writes=(VESSELS, VESSEL_OBJECTS),
    body=_body,
    coarsest_um=2.5,
)
