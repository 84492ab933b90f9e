"""Find the vessels on the CD34 slide in one pass over its blocks (`segment.vessels`)."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.blocks import Block, LazyLabels
from napari_mosaik.core.catalogue import (
    EXCLUDED,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    SLIDES,
    STAINING,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.distance import within
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment import VesselParams
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.slide_blocks import (
    blocks_with_tissue,
    mask_mm2,
    resample_mask,
    sample_tissue,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment.slide_stain import SampledPixels
    from napari_mosaik.segment.vessels import JoinedObjects, ObjectKind

__all__ = ["FIND_VESSELS"]

_OUTLINED, _SAMPLED = 0.08, 0.12
"""Shares of the step's time (fractions of 1) after its first two parts, on a large slide."""


def _body(inputs: StepContext, params: VesselParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.features import merge_measures
    from napari_mosaik.io.slide import View
    from napari_mosaik.segment.plausible import vessel_doubts
    from napari_mosaik.segment.slide_stain import estimate_staining
    from napari_mosaik.segment.vessels import (
        AssessedVessels,
        JoinedObjects,
        WallBlocks,
        halo_um,
        pixel_limits,
        wall_block,
    )

    mask = inputs.read(TISSUE["cd34"])
    edge = yield from inputs.cached("edge", params.edge_um, partial(_edge, mask, params))
    with inputs.slide("cd34") as slide:
        stream = slide.blocks(View(params.spacing_um, halo_um(params)))
        lattice, blocks = stream.lattices[0], stream.blocks()
        present = [block.index for block in blocks_with_tissue(blocks, mask)]
        whole = slide.working_lattice(params.spacing_um)
        sampled = partial(_sampled, inputs, slide, whole, mask)
        pixels = yield from inputs.cached("samples", whole.spacing_um, sampled)
        staining = estimate_staining(pixels, params)

        def find(index: int, views: tuple[Raster, ...]) -> dict[str, NDArray[Any]]:
            core = blocks[index].core
            return wall_block(
                views[0].values,
                math.sqrt(lattice.sample_area_um2),
                params,
                staining,
                blocks[index].inner,
                resample_mask(core, mask),
                resample_mask(core, edge),
                slide.valid_mask(core) if slide.damaged else None,
            )

        walls = yield from inputs.stream(
            "walls", stream, present, find, "finding vessel walls", start=_SAMPLED, stop=0.65
        )
    yield Progress(0.65, 1, "joining lumens across blocks")
    max_lumen, min_pixels = pixel_limits(params, lattice.sample_area_um2)
    windows = [(block.rows, block.cols) for block in blocks]
    joined = WallBlocks(windows, present, walls, max_lumen)
    filled = yield from inputs.blocks(
        "filled", present, joined.filled, "filling lumens", start=0.66, stop=0.72
    )
    objects = JoinedObjects(joined, filled, min_pixels)
    chosen = [blocks[index] for index in present]
    parts = yield from inputs.blocks(
        "measures", chosen, partial(_measured, objects), "measuring vessels", start=0.72, stop=0.84
    )
    owners = (parts.array(place, "owner") for place in range(len(parts)))
    vessels = AssessedVessels(objects, owners, lattice.sample_area_um2, params, staining)
    measured = merge_measures(parts, lattice, objects.pixels.size, masks=("wall",))
    table, excluded = vessels.tables(measured)
    inputs.note(STAINING, vessels.record())
    for doubt in vessel_doubts(table, mask_mm2(mask)):
        inputs.warn(doubt)
    inputs.note(EXCLUDED, vessels.excluded)
    results: dict[Artifact[Any], object] = {VESSEL_OBJECTS: table, EXCLUDED_DAB_OBJECTS: excluded}
    kinds: tuple[tuple[Artifact[LabelImage], ObjectKind, float], ...] = (
        (VESSELS, "vessel", 0.84),
        (EXCLUDED_DAB, "excluded", 0.92),
    )
    for artifact, kind, start in kinds:
        paint, holds = partial(vessels.painted, kind), partial(vessels.holds, kind)
        painted = LazyLabels(lattice.shape, blocks, paint, np.dtype(np.int32), holds)
        labels = LabelImage(painted, lattice)
        results[artifact] = yield from inputs.write_labels(
            labels, "storing vessels", name=artifact.name, start=start, stop=start + 0.08
        )
    return results


def _edge(mask: Raster, params: VesselParams) -> Generator[Progress, None, Raster]:
    """Tissue within `VesselParams.edge_um` of its outline, of which the slide's edge is no part."""
    inside = np.asarray(mask.values, bool)
    find = partial(within, ~inside, params.edge_um, mask.lattice.spacing_um)
    near = yield from beside(find, Progress(0, 1, "finding the outline of the tissue"))
    return Raster(inside & near, mask.lattice)


def _sampled(
    inputs: StepContext, slide: Slide, lattice: Lattice, mask: Raster
) -> Generator[Progress, None, SampledPixels]:
    from napari_mosaik.segment.slide_stain import SampledPixels

    pixels = yield from sample_tissue(
        inputs, slide, lattice, mask, n_blocks=96, stride=4, start=_OUTLINED, stop=_SAMPLED
    )
    return SampledPixels(pixels)


def _measured(objects: JoinedObjects, block: Block) -> dict[str, NDArray[Any]]:
    """What one block adds to the measurements of the objects in it, and who owns its wall."""
    from napari_mosaik.features import measure_block

    labels = objects.with_border(block.index)
    measures = measure_block(
        labels,
        (block.rows.start - 1, block.cols.start - 1),
        window=(slice(1, -1), slice(1, -1)),
        masks={"wall": objects.walls.runs(block.index).mask()},
    )
    return {**measures, "owner": objects.wall_owner(block.index, labels[1:-1, 1:-1])}


FIND_VESSELS = Step(
    name="vessels",
    title="Vessels",
    about="Segments vessels by their CD34 (DAB) endothelium, fills and measures their lumens, and "
    "excludes non-vascular DAB.",
    page="Vessels",
    params=VesselParams,
    reads=(SLIDES["cd34"], TISSUE["cd34"]),
    writes=(VESSELS, VESSEL_OBJECTS, EXCLUDED_DAB, EXCLUDED_DAB_OBJECTS),
    body=_body,
    previews="cd34",
    revision=4,
    coarsest_um=2.5,
)
