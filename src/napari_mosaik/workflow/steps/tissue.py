"""Find the tissue on each section."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    CORRECTED,
    CORRECTIONS,
    DAMAGED,
    QUALITY,
    QUALITY_AREAS,
    SLIDES,
    STAIN_TITLES,
    STAINS,
    TISSUE,
)
from napari_mosaik.core.colour import luma
from napari_mosaik.core.raster import Raster
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.tissue.by_hand import mask_by_hand
from napari_mosaik.tissue.mask import ink_mask
from napari_mosaik.tissue.quality import (
    BLUR_HALO_UM,
    BLUR_SPACING_UM,
    blurred_cells,
    quality_areas_mm2,
    quality_mask,
    sharpness_sums,
)
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.steps.blocks import tissue_in, with_tissue

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["FIND_TISSUE"]


def _blurred(
    inputs: Inputs, slide: Slide, tissue: Raster, params: TissueParams
) -> Generator[Progress, None, Raster | None]:
    """Blurred cells of a slide, from one pass over its tissue; None where not looked for."""
    from napari_mosaik.io.slide import View

    if not params.look_for_blur or max(slide.lattice.spacing_um) > BLUR_SPACING_UM * 1.3:
        return None
    stream = slide.blocks(View(BLUR_SPACING_UM, BLUR_HALO_UM))
    blocks = stream.blocks()
    chosen = [block.index for block in with_tissue(blocks, tissue)]

    def measure(index: int, views: tuple[Raster, ...]) -> dict[str, Any]:
        block = blocks[index]
        start = (block.rows.start, block.cols.start)
        return sharpness_sums(luma(views[0].values), start, block.inner)

    parts = yield from inputs.stream(
        "sharpness", stream, chosen, measure, "measuring the sharpness", start=0.6, stop=0.95
    )
    return blurred_cells(parts, stream.lattices[0], params)


def _judged(
    overview: Raster, tissue: Raster, blurred: Raster | None, params: TissueParams
) -> Raster:
    """The quality mask."""
    inside = np.asarray(tissue.values, bool)
    ink = ink_mask(overview.values, overview.lattice.spacing_um, params)
    blur = None if blurred is None else tissue_in(overview.lattice, blurred)
    return quality_mask(overview, inside, ink, blur, params)


def _left_out(quality: Raster, params: TissueParams) -> NDArray[np.bool_]:
    """The places that the settings leave out of the tissue."""
    wanted = {2: params.leave_out_folds, 3: params.leave_out_blur, 4: params.leave_out_bubbles}
    return np.isin(np.asarray(quality.values), [code for code, out in wanted.items() if out])


def _step(stain: str) -> Step[TissueParams]:
    by_hand = CORRECTIONS[f"tissue_{stain}"]

    def body(inputs: Inputs, params: TissueParams) -> Generator[Progress, None, Results]:
        with inputs.slide(stain) as slide:
            if slide.damage_policy == "skip":
                # A coarse level may look sound where the finest one is not: all tiles are tried.
                for done, total in slide.find_damage():
                    yield Progress(0.5 * done / total, 1, "looking for damaged tiles")
            yield Progress(0.5, 1, "reading the overview")
            overview = slide.thumbnail(params.spacing_um)
            sound = slide.sound(overview.lattice)
            if slide.damage_policy == "skip":
                inputs.note(DAMAGED, slide.damage_record())
            yield Progress(0.55, 1, "finding the tissue")
            tissue = tissue_mask(overview, params, sound)
            quality = inputs.earlier(QUALITY[stain], by_hand)
            if quality is None:  # a pass over the slide, which no correction changes
                blurred = yield from _blurred(inputs, slide, tissue, params)
                yield Progress(0.95, 1, "looking for pen, folds and bubbles")
                quality = _judged(overview, tissue, blurred, params)
        inputs.note(QUALITY_AREAS, quality_areas_mm2(quality))
        kept = np.asarray(tissue.values, bool) & ~_left_out(quality, params)
        corrections = inputs.corrections(f"tissue_{stain}")
        inputs.note(CORRECTED, {"made": len(corrections), "lost": []})
        corrected = mask_by_hand(Raster(kept, tissue.lattice), corrections, sound)
        return {TISSUE[stain]: corrected, QUALITY[stain]: quality}

    title = STAIN_TITLES[stain]
    return Step(
        name=f"tissue_{stain}",
        title=f"Tissue on {title}",
        about=f"Finds where the tissue lies on the {title} slide, leaving out glass and pen.",
        page="Tissue and tiles",
        params=TissueParams,
        reads=(SLIDES[stain],),
        may_read=(by_hand,),
        writes=(TISSUE[stain], QUALITY[stain]),
        body=body,
        revision=3,
    )


FIND_TISSUE = tuple(_step(stain) for stain in STAINS)
