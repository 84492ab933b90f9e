"""Detect the tissue and the artefacts of each section."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

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
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.raster import Raster
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.tissue.artefacts import (
    BLUR_HALO_UM,
    BLUR_SPACING_UM,
    apply_artefact_corrections,
    artefact_areas_mm2,
    blurred_cells,
    sharpness_sums,
)
from napari_mosaik.tissue.mask import (
    apply_mask_corrections,
    exclude_artefacts,
    find_artefacts,
    red_marks,
)
from napari_mosaik.workflow.parallel import beside, n_workers
from napari_mosaik.workflow.slide_blocks import blocks_with_tissue, resample_mask
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["FIND_TISSUE"]

_MIN_RED_MM2 = 0.02
_READ, _DETECTED, _MEASURED, _MARKED = range(4)
_TIMES_S = (0.4, 1.85, 5.2, 0.5, 0.4)
"""Processor time of the parts on a large slide, s: until the overview is read, tissue is detected,
sharpness is measured (on all cores), artefacts are detected, and excluded."""
_PARALLEL = 0.5
"""Exponent of the cores for what they gain: they read one file, and others may use them, too."""


def _shares(before: float) -> list[float]:
    """What is done of the step (fraction of 1) after each of its parts, with *before* earlier."""
    times = np.array(_TIMES_S)
    times[_MEASURED] /= n_workers() ** _PARALLEL
    return [float(x) for x in before + (1 - before) * np.cumsum(times) / times.sum()]


def _blurred(
    inputs: StepContext, slide: Slide, tissue: Raster, params: TissueParams, shares: list[float]
) -> Generator[Progress, None, Mask | None]:
    """Mask of blur on the lattice of *tissue*, from one pass over it; None where not looked for.

    *shares* of the step are done after its parts.
    """
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

    start, stop = shares[_DETECTED], shares[_MEASURED]
    parts = yield from inputs.stream(
        "sharpness", stream, chosen, measure, "measuring sharpness", start=start, stop=stop
    )
    cells = blurred_cells(parts, stream.lattices[0], params)
    return resample_mask(tissue.lattice, cells)


def _red_doubt(overview: Raster, tissue: Mask) -> str:
    """A sentence about red that counts as tissue, on the mask (rows, columns), but may be pen."""
    red = red_marks(overview.values, overview.lattice.spacing_um)[1] & tissue
    area_mm2 = np.count_nonzero(red) * overview.lattice.sample_area_um2 / 1e6
    if area_mm2 < _MIN_RED_MM2:
        return ""
    return (
        f"{area_mm2:.3g} mm² of the tissue have the red of blood or of a pen and count as tissue; "
        "if it is a pen, mark it as an artefact"
    )


def _step(stain: str) -> Step[TissueParams]:
    edits, marks = CORRECTIONS[f"tissue_{stain}"], CORRECTIONS[f"artefacts_{stain}"]

    def body(inputs: StepContext, params: TissueParams) -> Generator[Progress, None, Results]:
        with inputs.slide(stain) as slide:
            before = 0.5 if slide.damage_policy == "skip" else 0.0
            shares = _shares(before)
            if slide.damage_policy == "skip":
                # A coarse level may be intact where the finest one is not: all tiles are tried.
                for done, total in slide.find_damage():
                    yield Progress(before * done / total, 1, "looking for damaged tiles")
            reading = Progress(before, 1, "reading the overview")
            overview = yield from beside(partial(slide.thumbnail, params.spacing_um), reading)
            slide.forget_pixels()  # what follows reads another level
            valid = slide.valid_mask(overview.lattice)
            if slide.damage_policy == "skip":
                inputs.note(DAMAGED, slide.damage_record())
            detecting = Progress(shares[_READ], 1, "detecting tissue")
            detect = partial(tissue_mask, overview, params, valid)
            tissue = yield from beside(detect, detecting, shares[_DETECTED])
            artefacts = inputs.previous_result(ARTEFACT_MASK[stain], edits, marks)
            if artefacts is None:  # a pass over the slide, on which no correction depends
                blurred = yield from _blurred(inputs, slide, tissue, params, shares)
                looking = Progress(shares[_MEASURED], 1, "detecting pen, folds and bubbles")
                look = partial(find_artefacts, overview, tissue.values, blurred, params)
                artefacts = yield from beside(look, looking, shares[_MARKED])
        yield Progress(shares[_MARKED], 1, "excluding artefacts")
        marked = inputs.corrections(f"artefacts_{stain}")
        manual = apply_artefact_corrections(artefacts, marked)
        inputs.note(ARTEFACT_AREAS, artefact_areas_mm2(manual.mask))
        inputs.note(ARTEFACTS_MANUAL, {"made": len(marked), "mm2": manual.areas_mm2()})
        clean = exclude_artefacts(overview, tissue, artefacts, manual, params, valid)
        edited = inputs.corrections(f"tissue_{stain}")
        inputs.note(CORRECTED, {"made": len(edited), "lost": []})
        allowed = ~manual.flagged if valid is None else valid & ~manual.flagged
        mask = apply_mask_corrections(clean, edited, allowed)
        if text := _red_doubt(overview, np.asarray(mask.values)):
            inputs.warn(text)
        return {
            TISSUE[stain]: mask,
            ARTEFACT_MASK[stain]: artefacts,
            CORRECTED_ARTEFACT_MASK[stain]: manual.mask,
        }

    title = STAIN_TITLES[stain]
    return Step(
        name=f"tissue_{stain}",
        title=f"Tissue on {title}",
        about=f"Detects tissue on the {title} slide and excludes glass, pen and artefacts.",
        page="Tissue and tiles",
        params=TissueParams,
        reads=(SLIDES[stain],),
        may_read=(edits, marks),
        writes=(TISSUE[stain], ARTEFACT_MASK[stain], CORRECTED_ARTEFACT_MASK[stain]),
        body=body,
        revision=6,
    )


FIND_TISSUE = tuple(_step(stain) for stain in STAINS)
