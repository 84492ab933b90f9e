"""Score the CAIX membrane staining of every cell on the CAIX slide."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASSES,
    NEOPLASTIC,
    SLIDES,
    STAINING,
    TISSUE,
    WARNINGS,
)
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.params import setting
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.table import Table
from napari_mosaik.register import transform_of
from napari_mosaik.segment import CaixParams, ClassicalNuclei, NucleiParams, score_caix
from napari_mosaik.workflow.slide_blocks import (
    BLOCK_PX,
    blocks_with_tissue,
    drop_damaged_objects,
    join_tables,
    mask_mm2,
    sample_tissue,
    split_table,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.classes import class_at
from napari_mosaik.workflow.steps.nuclei import slide_threshold

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment.stain_vectors import HDabStains

__all__ = ["CAIX"]


class CaixStepParams(CaixParams):
    """Settings of the CAIX score and of the nuclei on the same slide."""

    stains: Literal["slide", "ruifrok"] = setting(
        "slide",
        "Stain vectors of haematoxylin and DAB: estimated from the slide, or those of Ruifrok and "
        "Johnston 2001.",
        label="Stain vectors",
        choices={"slide": "From the slide", "ruifrok": "Ruifrok and Johnston"},
    )

    sensitivity: float = setting(
        1.2,
        "Factor by which the slide's haematoxylin threshold (Otsu) is divided; higher finds paler "
        "nuclei.",
        gt=0.2,
        le=5,
        advanced=True,
    )
    min_nucleus_um2: float = setting(
        7.0,
        "Minimum area of the nucleus of a cell.",
        label="Minimum nucleus area",
        unit="µm²",
        ge=0,
        advanced=True,
    )


def _body(inputs: StepContext, params: CaixStepParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.io.slide import View
    from napari_mosaik.segment.plausible import cell_doubts

    mask = inputs.read(TISSUE["caix"])
    scored = inputs.previous_result(CAIX_CELLS, *_TUMOUR)
    if scored is not None:  # only which tissue the cells lie in may have changed
        for name in (STAINING, WARNINGS):
            if name in inputs.previous_record():
                inputs.note(name, inputs.previous_record()[name])
        yield Progress(0.9, 1, "tumour cells")
        return {CAIX_CELLS: _with_tumour(inputs, scored)}
    settings = NucleiParams(
        spacing_um=params.spacing_um,
        sensitivity=params.sensitivity,
        min_area_um2=params.min_nucleus_um2,
    )
    with inputs.slide("caix") as slide:
        view = View(params.spacing_um, ClassicalNuclei(settings).halo_um + params.halo_um)
        stream = slide.blocks(view, block_px=BLOCK_PX)
        lattice, blocks = stream.lattices[0], stream.blocks()
        tissue = [block.index for block in blocks_with_tissue(blocks, mask)]
        stains = yield from _stains(inputs, slide, lattice, mask, params)
        model = ClassicalNuclei(settings, stains.matrix)
        threshold = yield from slide_threshold(inputs, slide, lattice, mask, model)
        model = ClassicalNuclei(settings, stains.matrix, threshold)

        def score(index: int, views: tuple[Raster, ...]) -> dict[str, NDArray[Any]]:
            return split_table(_block_cells(views[0], blocks[index], model, params, slide))

        parts = yield from inputs.stream(
            "cells", stream, tissue, score, "scoring membranes", start=0.05, stop=0.95
        )
    empty = Raster(np.full((1, 1, 3), 255, np.uint8), lattice.crop(slice(0, 1), slice(0, 1)))
    table = join_tables(parts, score_caix(empty, np.zeros((1, 1), np.int32), params, None))
    for doubt in cell_doubts(table, mask_mm2(mask), "CAIX cell", "CAIX cells"):
        inputs.warn(doubt)
    yield Progress(0.97, 1, "tumour cells")
    return {CAIX_CELLS: _with_tumour(inputs, table)}


def _stains(
    inputs: StepContext, slide: Slide, lattice: Lattice, mask: Raster, params: CaixStepParams
) -> Generator[Progress, None, HDabStains]:
    """The slide's haematoxylin and DAB, from pixels sampled over its tissue."""
    from napari_mosaik.segment.slide_stain import SampledPixels

    pixels = yield from sample_tissue(
        inputs, slide, lattice, mask, n_blocks=96, stride=4, stage="stains", stop=0.02
    )
    sampled = SampledPixels(pixels)
    stains, warnings = sampled.stains(params.stains)
    guess = sampled.guess.to_dict()
    inputs.note(STAINING, {"stains": stains.to_dict(), "look": guess, "warnings": list(warnings)})
    return stains


def _block_cells(
    image: Raster, block: Block, model: ClassicalNuclei, params: CaixStepParams, slide: Slide
) -> Table:
    """Cells whose nucleus has its centroid in the block's core."""
    spacing_um = math.sqrt(block.lattice.sample_area_um2)
    nuclei = model.segment(image.values, spacing_um)
    nuclei = drop_damaged_objects(nuclei, slide, block.outer, params.halo_um)
    cells = score_caix(image, nuclei, params, None, model.vectors)
    core, points = block.core, cells.points_um()
    low = np.asarray(core.origin_um)
    high = low + np.asarray(core.extent_um)
    return cells.rows(((points >= low) & (points < high)).all(axis=1))


_TUMOUR = (CLASSES, ALIGNMENT["he"], ALIGNMENT["caix"])
"""What says which cells lie in neoplastic tissue."""


def _with_tumour(inputs: StepContext, cells: Table) -> Table:
    """Mark the cells that lie in neoplastic tissue; all cells if there is no class map."""
    ready = all(inputs.has(entry) for entry in _TUMOUR)
    if not ready:
        about = {"tumour": "every cell, because there is no map of neoplastic tissue"}
        return cells.with_columns({"tumour": np.ones(len(cells), bool)}, about=about)
    to_reference = transform_of(inputs.read(ALIGNMENT["caix"]))
    to_he = to_reference.then(transform_of(inputs.read(ALIGNMENT["he"])).inverse())
    codes = class_at(inputs.read(CLASSES), to_he.apply(cells.points_um()))
    about = {"tumour": "the cell's nucleus lies in neoplastic tissue of the aligned H&E section"}
    return cells.with_columns({"tumour": codes == NEOPLASTIC}, about=about)


CAIX = Step(
    name="caix",
    title="CAIX",
    about="Measures the CAIX (DAB) membrane staining of each cell and scores it 0 to 3+.",
    page="CAIX",
    params=CaixStepParams,
    reads=(SLIDES["caix"], TISSUE["caix"]),
    may_read=_TUMOUR,
    writes=(CAIX_CELLS,),
    body=_body,
    revision=3,
    coarsest_um=1.5,
)
