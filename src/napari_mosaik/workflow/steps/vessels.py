"""Find the vessels on the CD34 slide in one pass; lumens and vessels are whole across block seams.

    slide ──one pass──► wall of each block ──join holes──► filled ──join objects──► numbers
                           (kept as runs)               (kept as runs)    │
                                        measured block by block ◄─────────┤
                                        painted while they are stored ◄───┘

No array of the size of the slide is ever in memory: the labels are painted block by block from the
kept runs when they are written.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.catalogue import SLIDES, TISSUE, VESSEL_OBJECTS, VESSELS
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.segment import VesselParams
from napari_mosaik.workflow.inputs import Inputs, KeptBlocks
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.steps.blocks import PaintedLabels, sample_blocks, tissue_in, with_tissue

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment.runs import Runs
    from napari_mosaik.segment.stitch import SeamLabels

__all__ = ["FIND_VESSELS"]

Arrays = Mapping[str, NDArray[Any]]
SAMPLE_PX = 256
SAMPLED_BLOCKS = 96


def _body(inputs: Inputs, params: VesselParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.io.slide import View
    from napari_mosaik.segment.vessels import halo_um

    mask = inputs.read(TISSUE["cd34"])
    with inputs.slide("cd34") as slide:
        stream = slide.blocks(View(params.spacing_um, halo_um(params)))
        lattice = stream.lattices[0]
        blocks = stream.blocks()
        tissue = [block.index for block in with_tissue(blocks, mask)]
        threshold = yield from _threshold(inputs, slide, lattice, mask, params)

        def find(index: int, views: tuple[Raster, ...]) -> Arrays:
            found = _wall(views[0], blocks[index], mask, params, threshold)
            return {**found, **_sound(slide, blocks[index])}

        walls = yield from inputs.stream(
            "walls", stream, tissue, find, "finding vessel walls", start=0.05, stop=0.6
        )
    chosen = [blocks[index] for index in tissue]
    vessels = _Vessels(blocks, tissue, walls)
    yield from vessels.fill(inputs, params)
    parts = yield from inputs.blocks(
        "measures", chosen, vessels.measured, "measuring vessels", start=0.75, stop=0.9
    )
    table = _table(parts, lattice, vessels.count, threshold)
    painted = PaintedLabels(lattice.shape, blocks, vessels.labels, np.dtype(np.int32))
    labels = yield from inputs.write_labels(
        LabelImage(painted, lattice), "storing vessels", start=0.9
    )
    return {VESSELS: labels, VESSEL_OBJECTS: table}


def _threshold(
    inputs: Inputs, slide: Slide, lattice: Lattice, mask: Raster, params: VesselParams
) -> Generator[Progress, None, float]:
    """The slide's own DAB threshold, from small blocks spread evenly over its tissue."""
    from napari_mosaik.segment.vessels import estimate_threshold, vessel_density

    if params.method == "hsv" or params.threshold == "fixed":
        return params.dab_od
    chosen = sample_blocks(lattice, SAMPLE_PX, mask, SAMPLED_BLOCKS)

    def sample(block: Block) -> Arrays:
        density = vessel_density(slide.read_lattice(block.core).values)[::2, ::2]
        return {"od": density[tissue_in(block.core, mask)[::2, ::2]]}

    samples = yield from inputs.blocks("samples", chosen, sample, "estimating the stain", stop=0.05)
    return estimate_threshold(np.concatenate([np.zeros(0), *samples.column("od")]), params)


def _wall(
    image: Raster, block: Block, mask: Raster, params: VesselParams, threshold: float
) -> Arrays:
    """The wall of one block within the tissue, as runs, and its holes."""
    from napari_mosaik.segment.runs import find_runs
    from napari_mosaik.segment.vessels import vessel_wall

    spacing_um = math.sqrt(block.lattice.sample_area_um2)
    wall = vessel_wall(image.values, spacing_um, params, threshold)[block.inner]
    runs = find_runs(wall & tissue_in(block.core, mask))
    return {**runs.arrays(), **runs.holes().arrays("holes")}


def _sound(slide: Slide, block: Block) -> Arrays:
    """Which pixels of a block are sound, where it touches a damaged tile; nothing elsewhere."""
    sound = slide.sound(block.core) if slide.damaged else np.ones(0, bool)
    return {} if sound.all() else {"sound": np.packbits(sound).reshape(-1)}


class _Vessels:
    """The masks of all blocks on their way to vessels with final numbers."""

    def __init__(self, blocks: list[Block], tissue: list[int], walls: KeptBlocks) -> None:
        self.blocks = blocks
        self.count = 0
        self._place = {index: place for place, index in enumerate(tissue)}
        self._walls = walls
        self._filled: KeptBlocks | None = None
        self._seams: SeamLabels | None = None

    def fill(self, inputs: Inputs, params: VesselParams) -> Generator[Progress, None, None]:
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
        self.count = len(seams.join(least))
        self._seams = seams

    def _joined(self, kept: KeptBlocks, prefix: str) -> SeamLabels:
        from napari_mosaik.segment.runs import Parts, find_runs
        from napari_mosaik.segment.stitch import SeamLabels

        seams = SeamLabels([(b.rows, b.cols) for b in self.blocks], holes=prefix == "holes")
        for block in self.blocks:
            if block.index in self._place:
                stored = kept.starting(self._place[block.index], prefix)
                parts = Parts.from_arrays(stored, prefix)
            else:
                empty = find_runs(np.zeros(block.core.shape, bool))
                parts = empty.holes() if prefix == "holes" else empty.objects()
            seams.put(block.index, parts)
        return seams

    def _fill_one(self, fills: list[NDArray[np.bool_]], block: Block) -> Arrays:
        from napari_mosaik.segment.runs import find_runs

        filled = self._runs(self._walls, block.index).filled(fills[block.index])
        for sound in self._walls.starting(self._place[block.index], "sound").values():
            bits = np.unpackbits(sound, count=filled.size)
            filled = filled & bits.reshape(filled.shape).view(bool)
        runs = find_runs(filled)
        return {**runs.arrays(), **runs.objects().arrays("objects")}

    def _runs(self, kept: KeptBlocks, index: int) -> Runs:
        from napari_mosaik.segment.runs import Runs

        return Runs.from_arrays(kept.starting(self._place[index], "runs:"))

    def labels(self, index: int) -> NDArray[np.int32]:
        """Final labels of one block's core."""
        if index not in self._place or self._filled is None or self._seams is None:
            return np.zeros(self.blocks[index].core.shape, np.int32)
        return self._runs(self._filled, index).painted(self._seams.numbers(index))

    def measured(self, block: Block) -> Arrays:
        """What one block adds to the measurements of the vessels in it."""
        from napari_mosaik.features import measure_block

        assert self._seams is not None
        around = self._seams.bordered(block.index, self.labels(block.index))
        return measure_block(
            around,
            (block.rows.start - 1, block.cols.start - 1),
            window=(slice(1, -1), slice(1, -1)),
            masks={"wall": self._runs(self._walls, block.index).mask()},
        )


def _table(parts: KeptBlocks, lattice: Lattice, n_vessels: int, threshold: float) -> Table:
    from napari_mosaik.features import merge_measures

    table = merge_measures(parts, lattice, n_vessels, masks=("wall",))
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
    revision=2,
    coarsest_um=2.5,
)
