"""Fit the H&E stain vectors once per slide."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import SLIDES, STAIN_FIT, STAINING, TISSUE
from napari_mosaik.tissue import MacenkoParams
from napari_mosaik.workflow.slide_blocks import blocks_with_tissue, resample_mask, sample_stride
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["STAIN"]

BLOCK_PX = 1024
SAMPLED_BLOCKS = 16
STRIDE = 5


def _body(inputs: StepContext, params: MacenkoParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.segment.stain_vectors import guess_stain, stain_mismatch_warning
    from napari_mosaik.tissue import fit_macenko

    mask = inputs.read(TISSUE["he"])
    with inputs.slide("he") as slide:
        blocks = blocks_with_tissue(cut(slide.working_lattice(1.0), BLOCK_PX, 0.0), mask)
        chosen = blocks[:: max(1, len(blocks) // SAMPLED_BLOCKS)]
        step = sample_stride(chosen, STRIDE)

        def sample(block: Block) -> dict[str, NDArray[Any]]:
            pixels = slide.read_lattice(block.core).values[::step, ::step]
            return {"rgb": pixels[resample_mask(block.core, mask)[::step, ::step]]}

        samples = yield from inputs.blocks("samples", chosen, sample, "sampling colours", stop=0.9)
    pixels = np.concatenate([item["rgb"] for item in samples] or [np.zeros((0, 3), np.uint8)])
    yield Progress(0.95, 1, "fitting stain vectors")
    guess = guess_stain(pixels)
    warnings = [text for text in (stain_mismatch_warning(guess, "H&E"),) if text]
    inputs.note(STAINING, {"look": guess.to_dict(), "warnings": warnings})
    return {STAIN_FIT: fit_macenko(pixels, params).to_dict()}


STAIN = Step(
    name="stain",
    title="H&E stain",
    about="Estimates the haematoxylin and eosin stain vectors of the H&E slide (Macenko).",
    page="Tissue classes",
    params=MacenkoParams,
    reads=(SLIDES["he"], TISSUE["he"]),
    writes=(STAIN_FIT,),
    body=_body,
)
