"""Segment the nuclei of the H&E slide block by block, each nucleus once and whole."""

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
from napari_mosaik.core.catalogue import (
    COMPUTED_ON,
    NUCLEI,
    NUCLEUS_OBJECTS,
    SLIDES,
    STAIN_FIT,
    TISSUE,
)
from napari_mosaik.core.distance import within
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice, Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.segment import NucleiParams
from napari_mosaik.workflow.parallel import give_back_memory, n_workers
from napari_mosaik.workflow.slide_blocks import (
    BLOCK_PX,
    blocks_with_tissue,
    drop_damaged_objects,
    join_tables,
    mask_mm2,
    resample_mask,
    sample_tissue,
    split_table,
    stage_on,
    tissue_areas,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import BlockResults, StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment import ClassicalNuclei, NucleiModel
    from napari_mosaik.segment.stitch import ObjectStitcher

__all__ = ["FIND_NUCLEI", "measured_nuclei", "slide_threshold", "stain_vectors"]

NETWORK_BLOCK_PX = 4864
"""A multiple of 16, so that the network's grid lies on the same pixels in every block; so large
that the margins are 15 % of the pixels."""
_PART_PX = 1216
"""Edge of the parts of a block that are labelled and measured one after the other."""
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
    # Opened a second time: the tiles that were sampled make way for the blocks.
    with inputs.slide("he") as slide:
        size = NETWORK_BLOCK_PX if is_network else BLOCK_PX
        near = _near(mask, _BESIDE_PX * model.spacing_um) if is_network else mask
        stream = slide.blocks(View(model.spacing_um, model.halo_um), block_px=size)
        lattice, blocks = stream.lattices[0], stream.blocks()
        tissue = [block.index for block in blocks_with_tissue(blocks, near)]

        def find(index: int, views: tuple[Raster, ...]) -> dict[str, NDArray[Any]]:
            within = near if is_network else None
            try:
                return _block_nuclei(views[0], blocks[index], model, vectors, slide, within)
            finally:
                give_back_memory()

        parts = yield from inputs.stream(
            stage_on("nuclei", model.computed_on),
            stream,
            tissue,
            find,
            "finding nuclei",
            start=0.05,
            stop=0.94,
            at_once=_blocks_at_once() if is_network else 0,
            weights=_weights([blocks[index] for index in tissue], near),
        )
    joined = yield from _join(lattice, [blocks[index] for index in tissue], parts)
    labels = yield from inputs.write_labels(
        LabelImage(joined, lattice), "storing nuclei", start=0.96
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
    about = f"{model.name} method, haematoxylin of at least {threshold:.3g} OD (natural)"
    return ClassicalNuclei(params, vectors, threshold), about


def _network(
    inputs: StepContext, slide: Slide, mask: Raster, params: NucleiParams
) -> Generator[Progress, None, tuple[NucleiModel, str]]:
    """The network with the intensity range of the slide's tissue."""
    from napari_mosaik.segment.stardist import StarDistNuclei, intensity_range

    weights = inputs.nuclei_weights(params.weights)
    lattice = slide.working_lattice(weights.spacing_um)
    pixels = yield from sample_tissue(
        inputs,
        slide,
        lattice,
        mask,
        n_blocks=_SAMPLED_BLOCKS,
        stride=_STRIDE,
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
            inputs, slide, lattice, mask, n_blocks=_SAMPLED_BLOCKS, stride=_STRIDE, measure=density
        )

    depends = [model.vectors.tolist(), lattice.spacing_um, model.params.smoothing_um]

    def threshold() -> Generator[Progress, None, float]:
        od = yield from inputs.cached("haematoxylin", depends, pooled)
        return estimate_nuclear_threshold(od, model.params)

    more = [*depends, model.params.sensitivity, model.params.min_threshold_od]
    return (yield from inputs.cached("threshold", more, threshold))


def _near(mask: Raster, distance_um: float) -> Raster:
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


def _block_nuclei(
    image: Raster,
    block: Block,
    model: NucleiModel,
    vectors: NDArray[np.float64] | None,
    slide: Slide,
    near: Raster | None,
) -> dict[str, NDArray[Any]]:
    """The nuclei of a block part by part: those whose centroid lies in it, and measurements.

    A network looks for them in the mask *near* alone.
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


def _join(
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
        yield Progress(0.94 + 0.02 * done / len(parts), 1, "joining nuclei across blocks")
    return joined


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
