"""Segment the nuclei of the H&E slide block by block, each nucleus once and whole."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.catalogue import NUCLEI, NUCLEUS_OBJECTS, SLIDES, STAIN_FIT, TISSUE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.segment import NucleiParams
from napari_mosaik.workflow.lazy_labels import RenumberedLabels
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
from napari_mosaik.workflow.step_context import BlockResults, StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment import ClassicalNuclei, NucleiModel

__all__ = ["FIND_NUCLEI", "measured_nuclei", "slide_threshold", "stain_vectors"]

NETWORK_BLOCK_PX = 2048
"""A multiple of 16, so that the network's grid lies on the same pixels in every block."""
_SAMPLED_BLOCKS, _STRIDE = 192, 2
_LEAST_RANGE = 12.0
"""Grey levels that tissue spans at least; a network would amplify the noise of anything else."""


def _body(inputs: StepContext, params: NucleiParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.io.slide import View

    mask = inputs.read(TISSUE["he"])
    vectors = stain_vectors(inputs)
    with inputs.slide("he") as slide:
        model, about = yield from _slide_model(inputs, slide, mask, params, vectors)
        size = NETWORK_BLOCK_PX if params.method == "stardist" else BLOCK_PX
        stream = slide.blocks(View(model.spacing_um, model.halo_um), block_px=size)
        lattice, blocks = stream.lattices[0], stream.blocks()
        tissue = [block.index for block in blocks_with_tissue(blocks, mask)]

        def find(index: int, views: tuple[Raster, ...]) -> dict[str, NDArray[Any]]:
            return _block_nuclei(views[0], blocks[index], model, vectors, slide)

        parts = yield from inputs.stream(
            "nuclei", stream, tissue, find, "finding nuclei", start=0.05, stop=0.8
        )
    joined, rows = yield from _join(inputs, lattice, [blocks[index] for index in tissue], parts)
    labels = yield from inputs.write_labels(
        LabelImage(joined, lattice), "storing nuclei", start=0.9
    )
    from napari_mosaik.segment.plausible import cell_doubts

    table = join_tables(parts, measured_nuclei(np.zeros((1, 1), np.int32), lattice, vectors, None))
    about = "; ".join([about, *model.notes])
    for doubt in cell_doubts(table, mask_mm2(mask)):
        inputs.warn(doubt)
    table = table.rows(rows).with_columns({}, about={"method": about})
    return {NUCLEI: labels, NUCLEUS_OBJECTS: table}


def stain_vectors(inputs: StepContext) -> NDArray[np.float64] | None:
    """OD vectors of the H&E slide's own stains, shape (3, 2), dimensionless; None where unknown."""
    fit = inputs.read(STAIN_FIT) if inputs.has(STAIN_FIT) else None
    return np.array(fit["vectors"], float).T if fit and fit["usable"] else None


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
    about = f"{model.name} method, haematoxylin of at least {threshold:.3g} natural OD"
    return ClassicalNuclei(params, vectors, threshold), about


def _network(
    inputs: StepContext, slide: Slide, mask: Raster, params: NucleiParams
) -> Generator[Progress, None, tuple[NucleiModel, str]]:
    """The network with the intensity range of the slide's tissue."""
    from napari_mosaik.segment.stardist import StarDistNuclei, intensity_range

    weights = inputs.nuclei_weights(params.weights)
    lattice = slide.working_lattice(weights.spacing_um)
    pixels = yield from sample_tissue(
        inputs, slide, lattice, mask, n_blocks=_SAMPLED_BLOCKS, stride=_STRIDE
    )
    low, high = intensity_range(pixels)
    if high - low < _LEAST_RANGE:
        raise InputError(
            f"the H&E slide shows no tissue within its tissue mask: grey levels differ by only "
            f"{high - low:.1f} of 255"
        )
    model = StarDistNuclei(weights, (low, high), prob_threshold=params.probability or None)
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
            inputs, slide, lattice, mask, n_blocks=_SAMPLED_BLOCKS, stride=_STRIDE, measure=density
        )

    depends = [model.vectors.tolist(), lattice.spacing_um, model.params.smoothing_um]

    def threshold() -> Generator[Progress, None, float]:
        od = yield from inputs.cached("haematoxylin", depends, pooled)
        return estimate_nuclear_threshold(od, model.params)

    more = [*depends, model.params.sensitivity, model.params.min_threshold_od]
    return (yield from inputs.cached("threshold", more, threshold))


def _block_nuclei(
    image: Raster,
    block: Block,
    model: NucleiModel,
    vectors: NDArray[np.float64] | None,
    slide: Slide,
) -> dict[str, NDArray[Any]]:
    """Nuclei whose centroid lies in the block's core, and their measurements."""
    from napari_mosaik.segment.stitch import keep_centroid_in_core

    spacing_um = math.sqrt(block.lattice.sample_area_um2)
    labels = drop_damaged_objects(model.segment(image.values, spacing_um), slide, block.outer)
    checkpoint()
    owned = keep_centroid_in_core(labels, block.inner)
    table = measured_nuclei(owned, block.outer, vectors, image.values)
    return {"labels": owned.astype(np.int32), **split_table(table)}


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


def _join(
    inputs: StepContext, lattice: Lattice, blocks: list[Block], parts: BlockResults
) -> Generator[Progress, None, tuple[RenumberedLabels, NDArray[np.int64]]]:
    """All nuclei in one label image, and the row of the joined tables of each of them."""
    from napari_mosaik.io.files import saving
    from napari_mosaik.segment.stitch import ObjectStitcher

    labels = inputs.working_array("joined", lattice.shape, np.int32)
    stitcher = ObjectStitcher(labels)
    for place, block in enumerate(blocks):
        with saving("a working file", inputs.scratch):
            stitcher.paste(block.window, parts.array(place, "labels"))
        yield Progress(0.8 + 0.1 * place / len(blocks), 1, "joining nuclei across blocks")
    numbers, rows = stitcher.numbering()
    return RenumberedLabels(labels, numbers), rows


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
    revision=3,
    coarsest_um=1.5,
)
