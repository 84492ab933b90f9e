"""Find the tissue on each section."""

from __future__ import annotations

from collections.abc import Generator

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import DAMAGED, SLIDES, STAIN_TITLES, STAINS, TISSUE
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step

__all__ = ["FIND_TISSUE"]


def _step(stain: str) -> Step[TissueParams]:
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
        yield Progress(0.7, 1, "finding the tissue")
        return {TISSUE[stain]: tissue_mask(overview, params, sound)}

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
        revision=2,
    )


FIND_TISSUE = tuple(_step(stain) for stain in STAINS)
