"""Segment the nuclei of the H&E slide block by block, each nucleus once and whole."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.catalogue import (
    COMPUTED_ON,
    NUCLEI,
    NUCLEUS_OBJECTS,
    SLIDES,
    STAIN_FIT,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment import NucleiParams
from napari_mosaik.workflow.parallel import (
    beside,
    give_back_memory,
    n_workers,
    require_address_space,
)
from napari_mosaik.workflow.slide_blocks import (
    BLOCK_PX,
    blocks_with_tissue,
    join_tables,
    mask_mm2,
    sample_tissue,
    stage_on,
    tissue_areas,
)
from napari_mosaik.workflow.slide_nuclei import (
    FOUND,
    JOINED,
    block_nuclei,
    join_nuclei,
    measured_nuclei,
    share_before,
    stain_vectors,
    tissue_near,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment import ClassicalNuclei, NucleiModel

__all__ = ["FIND_NUCLEI", "slide_threshold"]

NETWORK_BLOCK_PX = 4864
"""A multiple of 16, so that the network's grid lies on the same pixels in every block; so large
that the margins are 15 % of the pixels."""
_BESIDE_PX = 32
"""Nuclei are looked for in the tissue and up to so many pixels of the network beside it."""
_SAMPLED_BLOCKS, _STRIDE = 192, 2
_READING = 0.1
"""Time of a pixel that is only read beside that of one in which nuclei are looked for."""
_MIN_RANGE = 12.0
"""Grey levels that tissue spans at least; a network would amplify the noise of anything else."""


def _body(inputs: StepContext, params: NucleiParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.io.slide import View

    mask = inputs.read(TISSUE["he"])
    vectors = stain_vectors(inputs)
    with inputs.slide("he") as slide:
        model, about = yield from _slide_model(inputs, slide, mask, params, vectors)
    is_network = params.method == "stardist"
    before = share_before(mask, model.spacing_um)
    # Opened a second time: the tiles that were sampled make way for the blocks.
    with inputs.slide("he") as slide:
        size = NETWORK_BLOCK_PX if is_network else BLOCK_PX
        near = tissue_near(mask, _BESIDE_PX * model.spacing_um) if is_network else mask
        stream = slide.blocks(View(model.spacing_um, model.halo_um), block_px=size)
        if is_network:
            from napari_mosaik.segment.stardist import READING_SHARE

            stream.told_share = READING_SHARE
        lattice, blocks = stream.lattices[0], stream.blocks()
        tissue = [block.index for block in blocks_with_tissue(blocks, near)]

        def find(index: int, views: tuple[Raster, ...]) -> dict[str, NDArray[Any]]:
            within = near if is_network else None
            try:
                return block_nuclei(views[0], blocks[index], model, vectors, slide, within)
            finally:
                give_back_memory()

        parts = yield from inputs.stream(
            stage_on("nuclei", model.computed_on),
            stream,
            tissue,
            find,
            "finding nuclei",
            start=before,
            stop=FOUND,
            at_once=_blocks_at_once() if is_network else 0,
            weights=_weights([blocks[index] for index in tissue], near),
        )
    joined = yield from join_nuclei(lattice, [blocks[index] for index in tissue], parts)
    labels = yield from inputs.write_labels(
        LabelImage(joined, lattice), "storing nuclei", start=JOINED
    )
    from napari_mosaik.segment.plausible import cell_doubts

    empty = measured_nuclei(np.zeros((1, 1), np.int32), lattice, vectors, None)
    table = join_tables(parts, empty, joined.rows)
    about = "; ".join([about, *model.notes])
    inputs.note(COMPUTED_ON, dict(model.computed_on))
    for doubt in cell_doubts(table, mask_mm2(mask)):
        inputs.warn(doubt)
    table = table.with_columns({}, about={"method": about})
    return {NUCLEI: labels, NUCLEUS_OBJECTS: table}


def _blocks_at_once() -> int:
    """Blocks in work where a network uses all cores: enough of them that no core waits.

    Each takes 0.25 GiB, so on many cores a network has several of them.
    """
    cores = n_workers()
    return max(min(cores, 4), 2 + cores // 4)


def _weights(blocks: list[Block], near: Raster) -> list[float]:
    """How long each block takes: its pixels that are looked at, and reading it."""
    areas = tissue_areas(blocks, near)
    return [
        area + _READING * math.prod(block.core.shape)
        for area, block in zip(areas, blocks, strict=True)
    ]


def _slide_model(
    inputs: StepContext,
    slide: Slide,
    mask: Raster,
    params: NucleiParams,
    vectors: NDArray[np.float64] | None,
) -> Generator[Progress, None, tuple[NucleiModel, str]]:
    """The method with what it estimates from the slide, and its description for the record."""
    if params.method == "stardist":
        return (yield from _network(inputs, slide, mask, params))
    from napari_mosaik.segment import ClassicalNuclei

    model = ClassicalNuclei(params, vectors)
    lattice = slide.working_lattice(params.spacing_um)
    threshold = yield from slide_threshold(inputs, slide, lattice, mask, model)
    about = f"{model.name} method, haematoxylin of at least {threshold:.3g} OD (natural)"
    return ClassicalNuclei(params, vectors, threshold), about


def _network(
    inputs: StepContext, slide: Slide, mask: Raster, params: NucleiParams
) -> Generator[Progress, None, tuple[NucleiModel, str]]:
    """The network with the intensity range of the slide's tissue."""
    require_address_space(1.0, "the network library")
    loading = Progress(0.0, 1, "loading the network library, about 3 s")
    weights = yield from beside(partial(inputs.nuclei_weights, params.weights), loading)
    from napari_mosaik.segment.stardist import StarDistNuclei, intensity_range

    lattice = slide.working_lattice(weights.spacing_um)
    before = share_before(mask, weights.spacing_um)
    pixels = yield from sample_tissue(
        inputs,
        slide,
        lattice,
        mask,
        n_blocks=_SAMPLED_BLOCKS,
        stride=_STRIDE,
        start=0.6 * before,
        stop=before,
    )
    low, high = intensity_range(pixels)
    if high - low < _MIN_RANGE:
        raise InputError(
            f"the H&E slide shows no tissue within its tissue mask: grey levels differ by only "
            f"{high - low:.1f} of 255"
        )
    model = StarDistNuclei(
        weights, (low, high), prob_threshold=params.probability or None, at_once=_blocks_at_once()
    )
    about = (
        f"{model.name} method, network {weights.name} (weights {weights.hash}), probability above "
        f"{model.prob_threshold:.3g}, overlap up to {model.nms_threshold:.3g}"
    )
    return model, about


def slide_threshold(
    inputs: StepContext, slide: Slide, lattice: Lattice, mask: Raster, model: ClassicalNuclei
) -> Generator[Progress, None, float]:
    """The slide's haematoxylin threshold, natural OD, from pixels sampled over its tissue.

    *mask* is the (rows, columns) tissue mask of the slide, of any pixel size.
    """
    from napari_mosaik.segment.nuclei import estimate_nuclear_threshold

    def density(image: Raster) -> NDArray[np.float32]:
        return model.density(image.values, math.sqrt(image.lattice.sample_area_um2))

    def pooled() -> Generator[Progress, None, NDArray[np.float64]]:
        return sample_tissue(
            inputs,
            slide,
            lattice,
            mask,
            n_blocks=_SAMPLED_BLOCKS,
            stride=_STRIDE,
            stop=share_before(mask, max(lattice.spacing_um)),
            measure=density,
        )

    depends = [model.vectors.tolist(), lattice.spacing_um, model.params.smoothing_um]

    def threshold() -> Generator[Progress, None, float]:
        od = yield from inputs.cached("haematoxylin", depends, pooled)
        return estimate_nuclear_threshold(od, model.params)

    more = [*depends, model.params.sensitivity, model.params.min_threshold_od]
    return (yield from inputs.cached("threshold", more, threshold))


FIND_NUCLEI = Step(
    name="nuclei",
    title="Nuclei",
    about="Segments nuclei on H&E by haematoxylin density or with StarDist, and measures their "
    "shape, staining and texture.",
    page="Nuclei",
    params=NucleiParams,
    reads=(SLIDES["he"], TISSUE["he"]),
    may_read=(STAIN_FIT,),
    writes=(NUCLEI, NUCLEUS_OBJECTS),
    body=_body,
    previews="he",
    revision=5,
    coarsest_um=1.5,
)
