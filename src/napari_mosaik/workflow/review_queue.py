"""The review queue of a case, and the agreement of its readers."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from napari_mosaik.annotate import (
    AnnotationDocument,
    ReviewQueueParams,
    TileEvidence,
    compare_readers,
    open_document,
    rank_tiles,
)
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLASS_PROBABILITY,
    PREDICTION,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.case import Case
from napari_mosaik.segment.training_pixels import class_codes, class_list
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.steps.align import transform_of

__all__ = ["reader_agreement", "reader_documents", "review_queue"]

POINTS = 8
AGREEMENT_SPACING_UM = 4.0


def _done(case: Case, artifact: Artifact[Any]) -> bool:
    return case_status(case).states[maker_of(artifact).name].word == "done"


def review_queue(case: Case, params: ReviewQueueParams | None = None) -> list[dict[str, Any]]:
    """Tiles in order of review priority: index, priority (0 to 1), reason.

    Based on measured and predicted uptake, and on the uncertainty of the tissue classes, as far as
    they are computed.  Raises `InputError` if neither is.
    """
    if not _done(case, TILES):
        raise InputError(f"case {case.name} has no tiles yet; run: napari-mosaik run {case.root}")
    grid = case.store.read(TILES)
    compared = _done(case, UPTAKE) and _done(case, PREDICTION)
    classified = _done(case, CLASS_PROBABILITY) and _done(case, ALIGNMENT["he"])
    if not compared and not classified:
        raise InputError(
            f"case {case.name} has neither tissue classes nor a prediction to review yet; run: "
            f"napari-mosaik run {case.root}"
        )
    evidence = TileEvidence(
        centres_um=grid.centres_um,
        measured=np.asarray(case.store.read(UPTAKE)["suv"]) if compared else None,
        predicted=np.asarray(case.store.read(PREDICTION)["suv"]) if compared else None,
        class_probability=_class_probability(case, grid) if classified else None,
    )
    return [
        {"tile": item.tile, "priority": item.priority, "reason": item.reason}
        for item in rank_tiles(evidence, params)
    ]


def _class_probability(case: Case, grid: TileGrid) -> FloatArray:
    """Mean probability (n, classes) of the tissue classes in each tile, fractions."""
    probability = case.store.read(CLASS_PROBABILITY)
    to_he = transform_of(case.store.read(ALIGNMENT["he"])).inverse()
    step = (np.arange(POINTS) + 0.5) / POINTS * grid.size_um
    offsets = np.stack(np.meshgrid(step, step, indexing="ij"), axis=-1).reshape(-1, 2)
    points = grid.corners_um[:, None, :] + offsets
    values = probability.at(to_he.apply(points).reshape(-1, 2)) / 255.0
    values = values.reshape(len(grid), POINTS**2, -1)
    values[values.sum(axis=2) < 0.5] = np.nan
    with np.errstate(invalid="ignore"):
        count = np.isfinite(values[..., 0]).sum(axis=1)
        total = np.nansum(values, axis=1)
        return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)


def reader_documents(case: Case, stain: str = "he") -> dict[str, AnnotationDocument]:
    """The annotations of each reader of a case, from the journals."""
    documents = {}
    for path in sorted((case.root / "journal").glob("*.jsonl")):
        if path.name == "runs.jsonl":
            continue
        document = open_document(path, stain)
        if document.shapes:
            documents[path.stem] = document
    return documents


def reader_agreement(case: Case, stain: str = "he") -> dict[str, Any]:
    """Cohen's kappa and Dice per class of every two readers, where both have annotated."""
    documents = reader_documents(case, stain)
    if len(documents) < 2:
        readers = ", ".join(documents) or "none"
        raise InputError(
            f"agreement needs annotations of two readers on case {case.name}; so far: {readers}"
        )
    drawings = [shape for document in documents.values() for shape in document.shapes]
    names = class_codes(class_list(drawings))
    with case.slide(stain) as slide:
        lattice = slide.lattice.resized(AGREEMENT_SPACING_UM)
    drawn = {
        reader: rasterise(document.shapes, lattice, names) for reader, document in documents.items()
    }
    pairs = []
    for one, other in combinations(drawn, 2):
        result = compare_readers(drawn[one], drawn[other])
        dice = {name: result.dice.get(code) for name, code in names.items()}
        pairs.append(
            {
                "readers": [one, other],
                "kappa": result.kappa,
                "observed": result.observed,
                "dice": dice,
                "area_mm2": result.n_compared * lattice.sample_area_um2 / 1e6,
            }
        )
    return {"case": case.name, "classes": list(names), "pairs": pairs}
