"""The annotations of a case: its open document, and what a retraining from them has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate import AnnotationDocument, Journal, check_reader_name
from napari_mosaik.core.catalogue import CLASS_RECORD, CLASSES, METRICS
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.annotations import write_geojson
from napari_mosaik.io.case import Case

__all__ = [
    "AnnotationResults",
    "OpenAnnotations",
    "RetrainingEffect",
    "annotation_results",
    "retraining_effect",
]

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
    """The stored tissue classes and prediction error of a case."""
    store = case.store
    codes = store.read(CLASSES).array() if store.origin(CLASSES) else None
    areas = store.read(CLASS_RECORD)["area_mm2"] if store.origin(CLASS_RECORD) else None
    if not store.origin(METRICS):
        return AnnotationResults(codes, areas)
    metrics = store.read(METRICS)
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
