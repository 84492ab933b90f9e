"""Find the tissue on each section."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ARTEFACT_AREAS,
    ARTEFACT_MASK,
    ARTEFACTS_MANUAL,
    CORRECTED,
    CORRECTED_ARTEFACT_MASK,
    CORRECTIONS,
    DAMAGED,
    SLIDES,
    STAIN_TITLES,
    STAINS,
    TISSUE,
)
from napari_mosaik.core.colour import luma
from napari_mosaik.core.raster import Raster
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.tissue.artefacts import (
    BLUR_HALO_UM,
    BLUR_SPACING_UM,
    artefact_areas_mm2,
    artefact_mask,
    blurred_cells,
    sharpness_sums,
)
from napari_mosaik.tissue.by_hand import (
    ManualArtefacts,
    apply_artefact_corrections,
    apply_mask_corrections,
)
from napari_mosaik.tissue.mask import ink_mask
from napari_mosaik.workflow.slide_blocks import blocks_with_tissue, resample_mask
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["FIND_TISSUE"]


def _blurred(
    inputs: StepContext, slide: Slide, tissue: Raster, params: TissueParams
) -> Generator[Progress, None, Raster | None]:
    """Blurred cells of a slide, from one pass over its tissue; None where not looked for."""
    from napari_mosaik.io.slide import View

    if not params.look_for_blur or max(slide.lattice.spacing_um) > BLUR_SPACING_UM * 1.3:
        return None
    stream = slide.blocks(View(BLUR_SPACING_UM, BLUR_HALO_UM))
    blocks = stream.blocks()
    chosen = [block.index for block in blocks_with_tissue(blocks, tissue)]

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
    blur = None if blurred is None else resample_mask(overview.lattice, blurred)
    return artefact_mask(overview, inside, ink, blur, params)


def _left_out(quality: ManualArtefacts, params: TissueParams) -> NDArray[np.bool_]:
    """The places that the settings leave out of the tissue, and all that a reader flagged."""
    wanted = {
        1: params.exclude_ink,  # the mask leaves pen out, but fills small holes within tissue
        2: params.exclude_folds,
        3: params.exclude_blur,
        4: params.exclude_bubbles,
    }
    codes = [code for code, out in wanted.items() if out]
    return np.isin(np.asarray(quality.mask.values), codes) | quality.flagged


def _sound(sound: NDArray[np.bool_] | None, quality: ManualArtefacts) -> NDArray[np.bool_]:
    """Where tissue may be added by hand: not on damaged tiles, nor where a reader flagged."""
    return ~quality.flagged if sound is None else sound & ~quality.flagged


def _kept(
    overview: Raster,
    tissue: Raster,
    found: Raster,
    quality: ManualArtefacts,
    params: TissueParams,
    sound: NDArray[np.bool_] | None,
) -> Raster:
    """The tissue without bad places; what was no pen after all is looked at again."""
    kept = np.asarray(tissue.values, bool) & ~_left_out(quality, params)
    no_pen = quality.cleared & (np.asarray(found.values) == 1)
    if no_pen.any() and params.exclude_ink:
        again = tissue_mask(overview, params.model_copy(update={"exclude_ink": False}), sound)
        kept |= no_pen & np.asarray(again.values, bool)
    return Raster(kept, tissue.lattice)


def _step(stain: str) -> Step[TissueParams]:
    by_hand, bad_by_hand = CORRECTIONS[f"tissue_{stain}"], CORRECTIONS[f"artefacts_{stain}"]

    def body(inputs: StepContext, params: TissueParams) -> Generator[Progress, None, Results]:
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
            found = inputs.previous_result(ARTEFACT_MASK[stain], by_hand, bad_by_hand)
            if found is None:  # a pass over the slide, which no correction changes
                blurred = yield from _blurred(inputs, slide, tissue, params)
                yield Progress(0.95, 1, "looking for pen, folds and bubbles")
                found = _judged(overview, tissue, blurred, params)
        bad = inputs.corrections(f"artefacts_{stain}")
        quality = apply_artefact_corrections(found, bad)
        inputs.note(ARTEFACT_AREAS, artefact_areas_mm2(quality.mask))
        inputs.note(ARTEFACTS_MANUAL, {"made": len(bad), "mm2": quality.areas_mm2()})
        kept = _kept(overview, tissue, found, quality, params, sound)
        corrections = inputs.corrections(f"tissue_{stain}")
        inputs.note(CORRECTED, {"made": len(corrections), "lost": []})
        corrected = apply_mask_corrections(kept, corrections, _sound(sound, quality))
        return {
            TISSUE[stain]: corrected,
            ARTEFACT_MASK[stain]: found,
            CORRECTED_ARTEFACT_MASK[stain]: quality.mask,
        }

    title = STAIN_TITLES[stain]
    return Step(
        name=f"tissue_{stain}",
        title=f"Tissue on {title}",
        about=f"Detects tissue on the {title} slide and excludes glass, pen and artefacts.",
        page="Tissue and tiles",
        params=TissueParams,
        reads=(SLIDES[stain],),
        may_read=(by_hand, bad_by_hand),
        writes=(TISSUE[stain], ARTEFACT_MASK[stain], CORRECTED_ARTEFACT_MASK[stain]),
        body=body,
        revision=4,
    )


FIND_TISSUE = tuple(_step(stain) for stain in STAINS)
