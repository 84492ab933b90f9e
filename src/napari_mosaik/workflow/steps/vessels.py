"""Find the vessels on the CD34 slide in one pass; lumens and vessels are whole across block seams.

    slide ──one pass──► wall of each block ──join holes──► filled ──join objects──► numbers
                     (runs, sums of colour)             (kept as runs)    │
                              measured and judged block by block ◄────────┤
                                        painted while they are stored ◄───┘

No array of the size of the slide is ever in memory: the labels are painted block by block from the
kept runs when they are written.  Sums over the pixels of each part of a wall are taken in the pass
and added up per whole object, so that pigment and other brown (`segment.false_positives`) is judged
as if the slide had not been cut.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.blocks import Block
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
from napari_mosaik.core.dilation import within
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment import VesselParams
from napari_mosaik.workflow.lazy_labels import (
    LazyLabels,
    blocks_with_tissue,
    resample_mask,
    sample_blocks,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import BlockResults, StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment.run_length import Runs
    from napari_mosaik.segment.stitch import SeamLabels
    from napari_mosaik.segment.vessels import Staining

__all__ = ["FIND_VESSELS"]

Arrays = Mapping[str, NDArray[Any]]
SAMPLE_PX = 256
SAMPLED_BLOCKS = 96
SAMPLE_STRIDE = 4


def _body(inputs: StepContext, params: VesselParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.io.slide import View
    from napari_mosaik.segment.vessels import halo_um

    mask = inputs.read(TISSUE["cd34"])
    edge = yield from inputs.cached("edge", params.edge_um, partial(_edge, mask, params))
    with inputs.slide("cd34") as slide:
        stream = slide.blocks(View(params.spacing_um, halo_um(params)))
        lattice = stream.lattices[0]
        blocks = stream.blocks()
        tissue = [block.index for block in blocks_with_tissue(blocks, mask)]
        whole = slide.working_lattice(params.spacing_um)
        staining = yield from _staining(inputs, slide, whole, mask, params)

        def find(index: int, views: tuple[Raster, ...]) -> Arrays:
            found = _wall(views[0], blocks[index], mask, edge, params, staining)
            return {**found, **_sound(slide, blocks[index])}

        walls = yield from inputs.stream(
            "walls", stream, tissue, find, "finding vessel walls", start=0.05, stop=0.6
        )
    chosen = [blocks[index] for index in tissue]
    vessels = _Vessels(blocks, tissue, walls)
    yield from vessels.fill(inputs, params)
    parts = yield from inputs.blocks(
        "measures", chosen, vessels.measured, "measuring vessels", start=0.75, stop=0.88
    )
    vessels.exclusion_codes(parts, params, staining)
    results = vessels.tables(parts, lattice, params, staining)
    inputs.note(STAINING, vessels.noted(params, staining))
    inputs.note(EXCLUDED, vessels.left_out())
    for artifact, number, start in ((VESSELS, 0, 0.88), (EXCLUDED_DAB, 1, 0.94)):
        paint = partial(vessels.painted, number)
        holds = partial(vessels.holds, number)
        painted = LazyLabels(lattice.shape, blocks, paint, np.dtype(np.int32), holds)
        results[artifact] = yield from inputs.write_labels(
            LabelImage(painted, lattice), "storing vessels", name=artifact.name, start=start,
            stop=start + 0.06,
        )  # fmt: skip
    return results


def _edge(mask: Raster, params: VesselParams) -> Generator[Progress, None, Raster]:
    """Where the tissue is nearer to its outline than the settings say; a cut slide has none."""
    yield Progress(0, 1, "finding the outline of the tissue")
    inside = np.asarray(mask.values, bool)
    near = within(~inside, params.edge_um, mask.lattice.spacing_um)
    return Raster(inside & near, mask.lattice)


def _staining(
    inputs: StepContext, slide: Slide, lattice: Lattice, mask: Raster, params: VesselParams
) -> Generator[Progress, None, Staining]:
    """The slide's stains and DAB threshold, from small blocks spread evenly over its tissue."""
    from napari_mosaik.segment.slide_stain import SampledPixels, estimate_staining

    chosen = sample_blocks(lattice, SAMPLE_PX, mask, SAMPLED_BLOCKS)

    def sample(block: Block) -> Arrays:
        pixels = slide.read_lattice(block.core).values[::SAMPLE_STRIDE, ::SAMPLE_STRIDE]
        return {"rgb": pixels[resample_mask(block.core, mask)[::SAMPLE_STRIDE, ::SAMPLE_STRIDE]]}

    def pooled() -> Generator[Progress, None, SampledPixels]:
        text = "estimating the stain"
        samples = yield from inputs.blocks("samples", chosen, sample, text, stop=0.05)
        return SampledPixels(np.concatenate([np.zeros((0, 3), np.uint8), *samples.column("rgb")]))

    return estimate_staining(
        (yield from inputs.cached("samples", lattice.spacing_um, pooled)), params
    )


def _wall(
    image: Raster,
    block: Block,
    mask: Raster,
    edge: Raster,
    params: VesselParams,
    staining: Staining,
) -> Arrays:
    """The wall of one block within the tissue, as runs, its holes, and sums over its colours."""
    from napari_mosaik.segment.false_positives import SUMS, any_rule_enabled, wall_sums
    from napari_mosaik.segment.run_length import find_runs
    from napari_mosaik.segment.vessels import vessel_wall

    spacing_um, vectors = math.sqrt(block.lattice.sample_area_um2), staining.stains.matrix
    wall = vessel_wall(image.values, spacing_um, params, staining.threshold, vectors)[block.inner]
    runs = find_runs(wall & resample_mask(block.core, mask))
    sums = np.zeros((runs.n_objects, len(SUMS)), np.int64)
    if runs.n_objects and any_rule_enabled(params):
        near = resample_mask(block.core, edge)
        sums = wall_sums(image.values[block.inner], runs, vectors, params, near)
    return {**runs.arrays(), **runs.holes().arrays("holes"), "colour": sums}


def _sound(slide: Slide, block: Block) -> Arrays:
    """Which pixels of a block are sound, where it touches a damaged tile; nothing elsewhere."""
    sound = slide.sound(block.core) if slide.damaged else np.ones(0, bool)
    return {} if sound.all() else {"sound": np.packbits(sound).reshape(-1)}


class _Vessels:
    """The masks of all blocks on their way to vessels with final numbers."""

    def __init__(self, blocks: list[Block], tissue: list[int], walls: BlockResults) -> None:
        self.blocks = blocks
        self._pixels = np.zeros(0, np.int64)
        self._verdict = np.zeros(0, np.uint8)
        self._colour: Mapping[str, NDArray[np.float64]] = {}
        self._place = {index: place for place, index in enumerate(tissue)}
        self._walls = walls
        self._filled: BlockResults | None = None
        self._seams: SeamLabels | None = None

    def fill(self, inputs: StepContext, params: VesselParams) -> Generator[Progress, None, None]:
        """Fill the lumens, join the vessels and number those that are large enough."""
        from napari_mosaik.segment.stitch import holes_to_fill
        from napari_mosaik.segment.vessels import pixel_limits

        most, least = pixel_limits(params, self.blocks[0].lattice.sample_area_um2)
        chosen = [self.blocks[index] for index in self._place]
        yield Progress(0.6, 1, "joining lumens across blocks")
        fills = holes_to_fill(self._joined(self._walls, "holes"), most)
        self._filled = yield from inputs.blocks(
            "filled", chosen, partial(self._fill_one, fills), "filling lumens", start=0.6, stop=0.75
        )
        seams = self._joined(self._filled, "objects")
        self._pixels = seams.join(least).pixels
        self._seams = seams

    def _joined(self, kept: BlockResults, prefix: str) -> SeamLabels:
        from napari_mosaik.segment.run_length import BlockComponents, find_runs
        from napari_mosaik.segment.stitch import SeamLabels

        seams = SeamLabels([(b.rows, b.cols) for b in self.blocks], holes=prefix == "holes")
        for block in self.blocks:
            if block.index in self._place:
                stored = kept.starting(self._place[block.index], prefix)
                parts = BlockComponents.from_arrays(stored, prefix)
            else:
                empty = find_runs(np.zeros(block.core.shape, bool))
                parts = empty.holes() if prefix == "holes" else empty.objects()
            seams.put(block.index, parts)
        return seams

    def _fill_one(self, fills: list[NDArray[np.bool_]], block: Block) -> Arrays:
        from napari_mosaik.segment.run_length import find_runs

        filled = self._runs(self._walls, block.index).filled(fills[block.index])
        for sound in self._walls.starting(self._place[block.index], "sound").values():
            bits = np.unpackbits(sound, count=filled.size)
            filled = filled & bits.reshape(filled.shape).view(bool)
        runs = find_runs(filled)
        return {**runs.arrays(), **runs.objects().arrays("objects")}

    def _runs(self, kept: BlockResults, index: int) -> Runs:
        from napari_mosaik.segment.run_length import Runs

        return Runs.from_arrays(kept.starting(self._place[index], "runs:"))

    def painted(self, which: int, index: int) -> NDArray[np.int32]:
        """Final labels of the vessels (0) or of the objects left out (1) in one block's core."""
        if self._filled is None or not self.holds(which, index):
            return np.zeros(self.blocks[index].core.shape, np.int32)
        return self._runs(self._filled, index).painted(self._numbers(which, index))

    def holds(self, which: int, index: int) -> bool:
        """Whether a block holds any vessel (0) or object left out (1)."""
        return index in self._place and bool(self._numbers(which, index).any())

    def _numbers(self, which: int, index: int) -> NDArray[np.int32]:
        from napari_mosaik.segment.vessels import renumbered

        assert self._seams is not None
        return renumbered(self._verdict)[which][self._seams.numbers(index)]

    def measured(self, block: Block) -> Arrays:
        """What one block adds to the measurements and colours of the objects in it."""
        from napari_mosaik.features import measure_block
        from napari_mosaik.segment.vessels import owners

        assert self._seams is not None
        assert self._filled is not None
        wall = self._runs(self._walls, block.index)
        filled = self._runs(self._filled, block.index)
        around = filled.painted(self._seams.numbers(block.index), border=1)
        self._seams.fill_border(block.index, around)
        measures = measure_block(
            around,
            (block.rows.start - 1, block.cols.start - 1),
            window=(slice(1, -1), slice(1, -1)),
            masks={"wall": wall.mask()},
        )
        return {**measures, "owner": owners(wall.objects(), around[1:-1, 1:-1])}

    def exclusion_codes(
        self, parts: BlockResults, params: VesselParams, staining: Staining
    ) -> None:
        """Tell vessels from other brown objects, each as a whole."""
        from napari_mosaik.segment.false_positives import (
            SUMS,
            add_block_sums,
            exclusion_codes,
            wall_colours,
        )

        totals = np.zeros((self._pixels.size, len(SUMS)), np.int64)
        for place in range(len(parts)):
            add_block_sums(totals, parts.array(place, "owner"), self._walls.array(place, "colour"))
        vectors, area_um2 = staining.stains.matrix, self.blocks[0].lattice.sample_area_um2
        self._verdict = exclusion_codes(totals, self._pixels, area_um2, vectors, params)
        self._colour = wall_colours(totals, vectors)

    def left_out(self) -> dict[str, int]:
        """How many objects were left out, by reason."""
        from napari_mosaik.segment.false_positives import count_by_reason

        return count_by_reason(self._verdict)

    def noted(self, params: VesselParams, staining: Staining) -> dict[str, Any]:
        """Stains, threshold, look and warnings for the record."""
        from napari_mosaik.segment.slide_stain import result_warnings

        n_vessels = int((self._verdict == 0).sum())
        told = result_warnings(n_vessels, self.left_out(), staining, params)
        return {**staining.to_dict(), "warnings": [*staining.warnings, *told]}

    def tables(
        self, parts: BlockResults, lattice: Lattice, params: VesselParams, staining: Staining
    ) -> dict[Artifact[Any], object]:
        """The measured vessels, and the objects left out with the reason."""
        from napari_mosaik.features import merge_measures
        from napari_mosaik.segment.false_positives import excluded_objects_table

        table = merge_measures(parts, lattice, self._pixels.size, masks=("wall",))
        lumen = table["area_um2"] - table["wall_area_um2"]
        about = {
            "lumen_area_um2": "area of the filled vessel without its wall",
            "wall_area_um2": "area of the wall (DAB of at least "
            f"{staining.threshold:.3g} natural OD)",
        }
        table = table.with_columns({"lumen_area_um2": lumen}, {"lumen_area_um2": "µm²"}, about)
        others = excluded_objects_table(table, self._verdict, self._colour, params)
        return {VESSEL_OBJECTS: table.rows(self._verdict == 0), EXCLUDED_DAB_OBJECTS: others}


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
