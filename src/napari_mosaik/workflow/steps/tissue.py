"""Find the tissue on each section."""

from __future__ import annotations

from collections.abc import Generator

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import SLIDES, STAIN_TITLES, STAINS, TISSUE
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step

__all__ = ["FIND_TISSUE"]


def _step(stain: str) -> Step[TissueParams]:
    def body(inputs: Inputs, params: TissueParams) -> Generator[Progress, None, Results]:
        with inputs.slide(stain) as slide:
            yield Progress(0.1, 1, "reading the overview")
            overview = slide.thumbnail(params.spacing_um)
        yield Progress(0.6, 1, "finding the tissue")
        return {TISSUE[stain]: tissue_mask(overview, params)}

    title = STAIN_TITLES[stain]
    return Step(
        name=f"tissue_{stain}",
        title=f"Tissue on {title}",
        about=f"Finds where the tissue lies on the {title} slide, leaving out glass and pen.",
        page="Tissue and tiles",
        params=TissueParams,
        reads=(SLIDES[stain],),
        writes=(TISSUE[stain],),
        body=body,
    )


FIND_TISSUE = tuple(_step(stain) for stain in STAINS)
