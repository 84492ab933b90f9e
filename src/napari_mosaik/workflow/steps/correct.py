"""Apply manual corrections to vessels and nuclei, in a step of their own after each of them.

    vessels ──────────────────────► corrected_vessels ──► parameters, tile_kinetics, predict
    corrections:vessels (journal) ─────────┘

The segmentation itself never changes: a correction makes only this light step and what follows it
out of date, and undoing it makes the earlier results valid again.  Only corrected objects are
read, measured again on the slide and written; all other pixels are copied.  Corrections that no
longer match an object are listed in the record and change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.catalogue import (
    CORRECTED,
    CORRECTED_NUCLEI,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    CORRECTED_VESSELS,
    CORRECTIONS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    SLIDES,
    STAIN_FIT,
    STAINING,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.corrections import describe_correction
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.params import Params
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.slide_blocks import resample_mask
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["CORRECT_NUCLEI", "CORRECT_VESSELS", "CorrectParams"]

Measure = Callable[["StepContext", "Slide", Lattice, NDArray[np.int32]], Table]
"""Context, slide, lattice of a window and (rows, columns) labels of one object there: its row."""


class CorrectParams(Params):
    """Corrections have no settings."""


def _step(
    objects: str,
    stain: str,
    segmented: tuple[Artifact[LabelImage], Artifact[Table]],
    corrected: tuple[Artifact[LabelImage], Artifact[Table]],
    measure: Measure,
) -> Step[CorrectParams]:
    def body(inputs: StepContext, params: CorrectParams) -> Generator[Progress, None, Results]:
        from napari_mosaik.segment.label_editing import (
            ObjectEditor,
            apply_corrections,
            corrected_table,
        )

        labels, table = inputs.read(segmented[0]), inputs.read(segmented[1])
        corrections = inputs.corrections(objects)
        yield Progress(0.05, 1, "finding the corrected objects")
        editor = ObjectEditor(labels.values, labels.lattice, table, objects)
        problems = apply_corrections(editor, corrections)
        edited = editor.compact()
        lost = [
            {"correction": describe_correction(one), "reader": one.reader, "why": why}
            for one, why in zip(corrections, problems, strict=True)
            if why
        ]
        inputs.note(CORRECTED, {"made": len(corrections) - len(lost), "lost": lost})
        rows: dict[int, Table] = {}
        if edited.made:
            with inputs.slide(stain) as slide:
                for label, (window, _) in sorted(edited.made.items()):
                    mask = (editor[window] == label).astype(np.int32)
                    rows[label] = measure(inputs, slide, labels.lattice.crop(*window), mask)
                    done = 0.1 + 0.4 * len(rows) / len(edited.made)
                    yield Progress(done, 1, "measuring corrected objects")
        changed = LabelImage(editor, labels.lattice, labels.names)
        before = inputs.previous_result(corrected[0], CORRECTIONS[objects])
        earlier = None if before is None else corrected[0]
        written = yield from inputs.rewrite_labels(
            segmented[0], changed, edited.windows, f"storing {objects}", earlier
        )
        return {corrected[0]: written, corrected[1]: corrected_table(table, edited, rows)}

    more: tuple[Artifact[Any], ...] = (TISSUE["cd34"],) if objects == "vessels" else ()
    fit: tuple[Artifact[Any], ...] = (STAIN_FIT,) if objects == "nuclei" else ()
    return Step(
        name=f"correct_{objects}",
        title=f"Corrected {objects}",
        about=f"Applies the manual corrections (add, delete, split, merge, set class) to the "
        f"{objects}.",
        page=objects.capitalize(),
        params=CorrectParams,
        reads=(SLIDES[stain], *more, *segmented),
        may_read=(CORRECTIONS[objects], *fit),
        writes=corrected,
        body=body,
    )


def _vessel(inputs: StepContext, slide: Slide, lattice: Lattice, mask: NDArray[np.int32]) -> Table:
    """Shape, wall and lumen of one vessel; its wall is segmented as in the vessel step."""
    from napari_mosaik.features import measure_objects
    from napari_mosaik.segment.vessel_params import VesselParams
    from napari_mosaik.segment.vessels import halo_um, vessel_wall

    record = inputs.record(VESSELS)
    params = VesselParams.parse(record["params"], "the record of the vessels")
    staining = record[STAINING]
    stains = staining["stains"]
    vectors = np.array([stains[name] for name in ("haematoxylin", "dab")], float).T
    margin = math.ceil(halo_um(params) / min(lattice.spacing_um))
    outer, inner = _with_margin(lattice, margin)
    spacing_um = math.sqrt(lattice.sample_area_um2)
    image = slide.read_lattice(outer).values
    wall = vessel_wall(image, spacing_um, params, staining["threshold_od"], vectors)[inner]
    wall = wall & resample_mask(lattice, inputs.read(TISSUE["cd34"]))
    table = measure_objects(mask, lattice, masks={"wall": wall}, n_labels=1)
    lumen = table["area_um2"] - table["wall_area_um2"]
    return table.with_columns({"lumen_area_um2": lumen})


def _with_margin(lattice: Lattice, margin: int) -> tuple[Lattice, tuple[slice, slice]]:
    rows, cols = lattice.shape
    origin = [
        start - margin * step
        for start, step in zip(lattice.origin_um, lattice.spacing_um, strict=True)
    ]
    outer = Lattice(
        lattice.frame,
        (rows + 2 * margin, cols + 2 * margin),
        lattice.spacing_um,
        (origin[0], origin[1]),
    )
    return outer, (slice(margin, margin + rows), slice(margin, margin + cols))


def _nucleus(inputs: StepContext, slide: Slide, lattice: Lattice, mask: NDArray[np.int32]) -> Table:
    """Shape, stain and texture of one nucleus, as in the nuclei step."""
    from napari_mosaik.workflow.slide_nuclei import measured_nuclei, stain_vectors

    return measured_nuclei(mask, lattice, stain_vectors(inputs), slide.read_lattice(lattice).values)


CORRECT_VESSELS = _step(
    "vessels",
    "cd34",
    (VESSELS, VESSEL_OBJECTS),
    (CORRECTED_VESSELS, CORRECTED_VESSEL_OBJECTS),
    _vessel,
)
CORRECT_NUCLEI = _step(
    "nuclei",
    "he",
    (NUCLEI, NUCLEUS_OBJECTS),
    (CORRECTED_NUCLEI, CORRECTED_NUCLEUS_OBJECTS),
    _nucleus,
)
