"""The annotations of a case: open document, effect of a retraining, review queue, agreement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate import (
    AnnotationDocument,
    Journal,
    ReviewQueueParams,
    TileEvidence,
    check_reader_name,
    compare_readers,
    open_document,
    rank_tiles,
)
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    METRICS,
    PREDICTION,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io.annotations import write_geojson
from napari_mosaik.io.case import Case

__all__ = [
    "AnnotationResults",
    "OpenAnnotations",
    "RetrainingEffect",
    "annotation_results",
    "reader_agreement",
    "reader_documents",
    "retraining_effect",
    "review_queue",
]

T = TypeVar("T")

_STAIN = "he"


class OpenAnnotations:
    """The annotations of one reader on the H&E of a case, open for editing.

    Every edit is in the reader's journal at once; `save` writes all of them to the GeoJSON file,
    which training and other programs read.

    Parameters
    ----------
    case
        The case; needs an H&E slide.
    reader
        Name of the reader, which names the journal.

    Raises
    ------
    InputError
        The name cannot be used, or the slide or the annotations cannot be read.
    CaseLocked
        The journal is open in another program.
    """

    def __init__(self, case: Case, reader: str) -> None:
        self.case = case
        with case.slide(_STAIN) as slide:
            self.lattice = slide.lattice
        self._journal = Journal(case.root / "journal" / f"{check_reader_name(reader)}.jsonl")
        try:
            self.document = AnnotationDocument.open(self._journal, _STAIN, overlap="new wins")
            # The journal of a new reader begins with what was imported or drawn before.
            drawn = case.annotations(_STAIN)
            if not len(self.document.snapshot) and drawn:
                self.document.add_many(drawn)
        except BaseException:
            self._journal.close()
            raise

    def save(self, shapes: tuple[AnnotatedShape, ...] | None = None) -> None:
        """Write the GeoJSON file, of the given shapes or of all present ones.

        To write in the background, take the shapes on the thread that edits them.
        """
        path = self.case.annotations_path(_STAIN)
        write_geojson(path, self.document.shapes if shapes is None else shapes, self.lattice)

    def close(self) -> None:
        """Release the journal."""
        self._journal.close()


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationResults:
    """What annotations lead to, at one time; None for what was missing.

    Parameters
    ----------
    codes
        Tissue classes (rows, columns), code of each pixel.
    areas_mm2
        Area of each class, mm².
    mae, mae_suv
        Mean absolute error of the prediction: dimensionless (normalised), and in the unit of SUV.
    unit
        Unit of *mae_suv*.
    """

    codes: NDArray[Any] | None = None
    areas_mm2: dict[str, float] | None = None
    mae: float | None = None
    mae_suv: float | None = None
    unit: str = ""


def annotation_results(case: Case) -> AnnotationResults:
    """The stored tissue classes and prediction error of a case; damaged ones count as absent."""

    def known(artifact: Artifact[T]) -> T | None:
        try:
            return case.store.read(artifact) if case.store.origin(artifact) else None
        except CorruptArtifact:
            return None

    classes, record, metrics = known(CLASSES), known(CLASS_RECORD), known(METRICS)
    codes = None if classes is None else classes.array()
    areas = None if record is None else record["area_mm2"]
    if metrics is None:
        return AnnotationResults(codes, areas)
    errors = metrics["suv_norm"]["mae"], metrics["suv_bsa"]["mae"]
    return AnnotationResults(codes, areas, *errors, str(metrics.get("unit", "")))


@dataclass(frozen=True, slots=True, eq=False)
class RetrainingEffect:
    """What changed between two times.

    Parameters
    ----------
    before, after
        The results at both times.
    compared
        Whether both times have a map of tissue classes.
    changed_fraction
        Fraction of the tissue whose class changed; None if not compared, or if the size of the map
        changed.
    """

    before: AnnotationResults
    after: AnnotationResults
    compared: bool
    changed_fraction: float | None

    @property
    def any_change(self) -> bool:
        """Whether anything that was there before is different now."""
        before, after = self.before, self.after
        classes = self.compared and self.changed_fraction != 0
        return classes or (before.mae is not None and before.mae != after.mae)


def retraining_effect(before: AnnotationResults, after: AnnotationResults) -> RetrainingEffect:
    """What changed between two times."""
    old, new = before.codes, after.codes
    if old is None or new is None:
        return RetrainingEffect(before, after, False, None)
    if old.shape != new.shape:
        return RetrainingEffect(before, after, True, None)
    tissue = (old > 0) | (new > 0)
    fraction = float(np.mean(old[tissue] != new[tissue])) if tissue.any() else 0.0
    return RetrainingEffect(before, after, True, fraction)


POINTS = 8
AGREEMENT_SPACING_UM = 4.0


def _done(case: Case, artifact: Artifact[Any]) -> bool:
    from napari_mosaik.workflow.case_status import case_status  # numba loads here
    from napari_mosaik.workflow.steps import maker_of

    state = case_status(case).states[maker_of(artifact).name]
    if state.damaged:
        raise CorruptArtifact(state.reason)
    return state.word == "done"


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
    uptake = case.store.read(UPTAKE) if compared else None
    evidence = TileEvidence(
        centres_um=grid.centres_um,
        measured=np.asarray(uptake["suv"]) if uptake is not None else None,
        predicted=np.asarray(case.store.read(PREDICTION)["suv"]) if compared else None,
        class_probability=_class_probability(case, grid) if classified else None,
        unit=uptake.unit("suv") if uptake is not None else "",
    )
    return [
        {"tile": item.tile, "score": item.priority, "reason": item.reason}
        for item in rank_tiles(evidence, params)
    ]


def _class_probability(case: Case, grid: TileGrid) -> FloatArray:
    """Mean probability (n, classes) of the tissue classes in each tile, fractions."""
    from napari_mosaik.workflow.steps.align import transform_of

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
    from napari_mosaik.core.rasterise import rasterise
    from napari_mosaik.segment.training_pixels import class_codes, class_list

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
