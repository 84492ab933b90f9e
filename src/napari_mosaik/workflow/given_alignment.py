"""Lay a section or the PET by hand, by landmarks or by a file, and say how well it lies."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, TISSUE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.shapes import AnnotatedShape, moved
from napari_mosaik.io.case import Case, GivenAlignment
from napari_mosaik.register import (
    AlignKind,
    Alignment,
    LandmarkOutlier,
    OutlineParams,
    PetAlignParams,
    assess_masks,
    assess_sections,
    blurred_outline,
    find_landmark_outliers,
    fit_landmarks,
    fit_landmarks_robustly,
    iter_assess_pet,
    landmark_errors_um,
    outlier_messages,
    pet_mask,
)
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps.align import density_of, transform_of

__all__ = [
    "AssessmentInputs",
    "LandmarkPairs",
    "current_transform",
    "given_alignment_entry",
    "read_assessment_inputs",
    "reset_alignment",
    "set_alignment",
    "set_alignment_by_landmarks",
    "set_alignment_by_matrix",
    "shapes_on_reference",
]

FRAMES = ("he", "caix", "pet")
GivenBy = Literal["hand", "landmarks", "file"]


@dataclass(frozen=True, slots=True, eq=False)
class AssessmentInputs:
    """What a section and the reference show of themselves, read once and judged often.

    ``params`` are those of the case's recipe.  The PET has no densities, and a section no slice.
    """

    frame: str
    moving: Raster
    fixed: Raster
    params: OutlineParams
    moving_density: Raster | None = None
    fixed_density: Raster | None = None
    pet: Raster | None = None
    section: Raster | None = None

    def assess(self, transform: Transform, method: str = "by hand") -> Alignment:
        """The figures of a map; of the PET only how far the outlines overlap."""
        if self.moving_density is None or self.fixed_density is None:
            return assess_masks(self.moving, self.fixed, transform, self.params, method=method)
        return assess_sections(
            self.moving,
            self.fixed,
            self.moving_density,
            self.fixed_density,
            transform,
            self.params,
            method=method,
        )

    def assess_uptake(self, transform: Transform) -> Generator[float, None, Alignment | None]:
        """The PET's values asked as well (seconds), in pieces; None where there is no more to ask.

        The expected error of the position and how far it lies from the most likely one nearby.
        """
        if self.pet is None or self.section is None or not isinstance(self.params, PetAlignParams):
            return None
        asked = iter_assess_pet(self.pet, self.section, transform, self.params, method="by hand")
        return (yield from asked)


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkPairs:
    """Landmarks (n, 2) in µm on a section, and their partners on CD34."""

    moving_um: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    fixed_um: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.moving_um)

    def residuals_um(self, transform: Transform) -> FloatArray:
        """Distance (n,) of each moved landmark from its partner, µm."""
        return landmark_errors_um(self.moving_um, self.fixed_um, transform)

    def fit(self, kind: AlignKind, frame: str) -> Transform:
        """The map of least squares through all pairs."""
        return fit_landmarks(self.moving_um, self.fixed_um, kind, frame, REFERENCE)

    def outliers(self, kind: AlignKind, frame: str) -> list[LandmarkOutlier]:
        """Pairs that slipped or were exchanged, judged by the map that most agree on."""
        if len(self) < 5:
            return []
        robust = fit_landmarks_robustly(self.moving_um, self.fixed_um, kind, frame, REFERENCE)
        return find_landmark_outliers(self.moving_um, self.fixed_um, robust)

    def warnings(self, kind: AlignKind, frame: str) -> list[str]:
        """The same in sentences; landmarks are called by their number from 1."""
        return outlier_messages(self.outliers(kind, frame), [str(n + 1) for n in range(len(self))])


def read_assessment_inputs(case: Case, frame: str) -> AssessmentInputs:
    """What is compared when a map of *frame* to CD34 is judged; the tissue must be found first."""
    _check(frame)
    for stain in (REFERENCE, *([frame] if frame != "pet" else [])):
        if case.store.origin(TISSUE[stain]) is None:
            raise InputError(f"find the tissue of {case.name} first (step tissue_{stain})")
    section = case.store.read(TISSUE[REFERENCE])
    params = read_recipe(case.root)[f"align_{frame}"]
    assert isinstance(params, OutlineParams)
    if isinstance(params, PetAlignParams):
        outline = blurred_outline(section, params.fwhm_um, fraction=params.edge)
        pet = case.pet().raster
        mask = pet_mask(pet, fraction=params.edge)
        return AssessmentInputs(frame, mask, outline, params, pet=pet, section=section)
    densities = []
    for stain in (frame, REFERENCE):
        with case.slide(stain) as slide:
            densities.append(density_of(slide))
    return AssessmentInputs(frame, case.store.read(TISSUE[frame]), section, params, *densities)


def current_transform(case: Case, frame: str) -> Transform | None:
    """Where a section lies now: as given, else as it was aligned; None when it is neither."""
    _check(frame)
    entry = case.file.given_alignment(frame)
    if entry is not None:
        return Transform(frame, REFERENCE, np.array(entry.matrix_um))
    if case.store.origin(ALIGNMENT[frame]) is None:
        return None
    return transform_of(case.store.read(ALIGNMENT[frame]))


def shapes_on_reference(
    case: Case, stain: str, shapes: Sequence[AnnotatedShape]
) -> tuple[AnnotatedShape, ...]:
    """Shapes of a section where they lie on CD34; the section must have been aligned."""
    if stain == REFERENCE:
        return tuple(shapes)
    transform = current_transform(case, stain)
    if transform is None:
        raise InputError(f"{stain} is not aligned yet; run the step align_{stain} first")
    return tuple(moved(shape, transform) for shape in shapes)


def given_alignment_entry(
    transform: Transform, source: GivenBy, note: str = "", marks: LandmarkPairs | None = None
) -> GivenAlignment:
    """What ``case.toml`` holds of a position; see `set_alignment`."""
    _check(transform.source)
    rows = [tuple(float(value) for value in row) for row in transform.matrix]
    values: dict[str, Any] = {"matrix_um": rows, "source": source, "note": note}
    if marks is not None and len(marks):
        values["landmarks_um"] = [tuple(map(float, point)) for point in marks.moving_um]
        values["reference_landmarks_um"] = [tuple(map(float, point)) for point in marks.fixed_um]
    return GivenAlignment.model_validate(values)


def set_alignment(
    case: Case,
    transform: Transform,
    source: GivenBy,
    note: str = "",
    marks: LandmarkPairs | None = None,
) -> GivenAlignment:
    """Store where a section or the PET lies in ``case.toml``; the alignment becomes stale.

    Parameters
    ----------
    case
        The case.
    transform
        From the section ("he", "caix" or "pet") to CD34.
    source, note
        Who or what gave it.
    marks
        Landmarks that tell how good it is; their residuals are stored with the alignment.
    """
    entry = given_alignment_entry(transform, source, note, marks)
    case.update(given_alignments={**case.file.given_alignments, transform.source: entry})
    return entry


def reset_alignment(case: Case, frame: str) -> None:
    """Let the automatic alignment count again."""
    _check(frame)
    case.update(
        given_alignments={
            key: one for key, one in case.file.given_alignments.items() if key != frame
        }
    )


def set_alignment_by_matrix(
    case: Case, frame: str, matrix_um: ArrayLike, note: str
) -> GivenAlignment:
    """Take over the map of another program, from a section to CD34."""
    return set_alignment(
        case, Transform(frame, REFERENCE, np.asarray(matrix_um, float)), "file", note
    )


def set_alignment_by_landmarks(
    case: Case, frame: str, marks: LandmarkPairs, kind: AlignKind
) -> GivenAlignment:
    """Take over the map of least squares through landmarks on a section and on CD34."""
    note = f"{len(marks)} pairs, {kind}"
    return set_alignment(case, marks.fit(kind, frame), "landmarks", note, marks)


def landmark_spacing_um(case: Case, frame: str) -> tuple[float, float]:
    """Size of the pixels (of the PET: voxels) in which landmark files count, µm."""
    return case.pet().raster.lattice.spacing_um if frame == "pet" else case.spacing_um(frame)


def _check(frame: str) -> None:
    if frame not in FRAMES:
        raise InputError(f"only {', '.join(FRAMES)} can be laid on CD34, not '{frame}'")
