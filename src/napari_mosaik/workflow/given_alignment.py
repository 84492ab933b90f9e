"""Given alignments: set manually, by landmarks or by a file, and assessed before they are saved."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, TISSUE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.shapes import AnnotatedShape, moved
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import GivenAlignment
from napari_mosaik.io.seen_uptake import seen_by
from napari_mosaik.register import (
    AlignKind,
    Alignment,
    LandmarkPairs,
    OutlineParams,
    PetAlignParams,
    assess_masks,
    assess_sections,
    blurred_outline,
    check_partners,
    iter_assess_pet,
    pet_mask,
    read_landmarks,
    read_matrix,
    transform_of,
)
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps.align import density_of

__all__ = [
    "Alignment",
    "AssessmentInputs",
    "GivenBy",
    "LandmarkPairs",
    "PetAlignParams",
    "current_transform",
    "given_alignment_entry",
    "landmark_pairs_from_files",
    "landmark_spacing_um",
    "read_assessment_inputs",
    "reset_alignment",
    "set_alignment",
    "set_alignment_by_landmarks",
    "set_alignment_by_matrix",
    "shapes_on_reference",
    "transform_from_file",
]

ALIGNED_FRAMES = ("he", "caix", "pet")
GivenBy = Literal["manual", "landmarks", "file"]


@dataclass(frozen=True, slots=True, eq=False)
class AssessmentInputs:
    """The images by which a transform is assessed, read once and used for many transforms.

    Masks and images are (rows, columns).  ``params`` are those of the case's recipe.  The PET has
    no densities, and a section no ``pet`` and ``section``.
    """

    frame: str
    moving: Raster
    fixed: Raster
    params: OutlineParams
    moving_density: Raster | None = None
    fixed_density: Raster | None = None
    pet: Raster | None = None
    section: Raster | None = None

    def assess(self, transform: Transform, method: str = "manual") -> Alignment:
        """Assess a transform; for the PET only by the overlap of the outlines."""
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
        """Assess a transform of the PET by its likelihood (seconds); None for a section.

        Yields the fraction done.  The result has the expected registration error, and the distance
        from the most likely transform nearby.
        """
        if self.pet is None or self.section is None or not isinstance(self.params, PetAlignParams):
            return None
        return (
            yield from iter_assess_pet(
                self.pet, self.section, transform, self.params, method="manual"
            )
        )


def read_assessment_inputs(case: Case, frame: str) -> AssessmentInputs:
    """Read the images by which a transform of *frame* to CD34 is assessed.

    Raises
    ------
    InputError
        If *frame* is none of he, caix and pet, or the tissue masks were not computed yet.
    """
    _check_frame(frame)
    for stain in (REFERENCE, *([frame] if frame != "pet" else [])):
        if case.store.origin(TISSUE[stain]) is None:
            raise InputError(
                f"case {case.name} has no tissue mask of {stain} yet; run the step tissue_{stain}"
            )
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
    """The given alignment of *frame*, else the computed one; None where there is neither."""
    _check_frame(frame)
    entry = case.file.given_alignment(frame)
    if entry is not None:
        return Transform(frame, REFERENCE, np.array(entry.matrix_um))
    if case.store.origin(ALIGNMENT[frame]) is None:
        return None
    return transform_of(case.store.read(ALIGNMENT[frame]))


def shapes_on_reference(
    case: Case, stain: str, shapes: Sequence[AnnotatedShape]
) -> tuple[AnnotatedShape, ...]:
    """Shapes of a section, transformed to CD34.

    Raises
    ------
    InputError
        If the section was not aligned yet.
    """
    if stain == REFERENCE:
        return tuple(shapes)
    transform = current_transform(case, stain)
    if transform is None:
        raise InputError(f"{stain} is not aligned yet; run the step align_{stain} first")
    return tuple(moved(shape, transform) for shape in shapes)


def given_alignment_entry(
    transform: Transform, source: GivenBy, note: str = "", landmarks: LandmarkPairs | None = None
) -> GivenAlignment:
    """The entry of ``case.toml`` for a given alignment; see `set_alignment`."""
    _check_frame(transform.source)
    rows = [tuple(float(value) for value in row) for row in transform.matrix]
    values: dict[str, Any] = {"matrix_um": rows, "source": source, "note": note}
    if landmarks is not None and len(landmarks):
        values["landmarks_um"] = [tuple(map(float, point)) for point in landmarks.moving_um]
        partners = [tuple(map(float, point)) for point in landmarks.fixed_um]
        values["reference_landmarks_um"] = partners
    return GivenAlignment.model_validate(values)


def set_alignment(
    case: Case,
    transform: Transform,
    source: GivenBy,
    note: str = "",
    landmarks: LandmarkPairs | None = None,
) -> GivenAlignment:
    """Save a given alignment of a section or the PET in ``case.toml``; the step becomes stale.

    Parameters
    ----------
    case
        The case.
    transform
        From the section ("he", "caix" or "pet") to CD34.
    source, note
        Origin of the transform.
    landmarks
        Landmarks that measure its error; their residuals are stored with the alignment.
    """
    entry = given_alignment_entry(transform, source, note, landmarks)
    _save(case, {**case.file.given_alignments, transform.source: entry})
    return entry


def _save(case: Case, given: Mapping[Any, GivenAlignment]) -> None:
    """Save all given alignments; a case whose errors were seen is a development case then."""
    seen = {} if case.file.development else seen_by(case.root)
    if not seen:
        case.update(given_alignments=dict(given))
        return
    what = next(iter(seen.values()))["what"]
    case.update(given_alignments=dict(given), development=True)
    case.log("development", reason=f"alignment set manually after {what} had been shown")


def transform_from_file(path: Path, frame: str, order: Literal["rc", "xy"] = "rc") -> Transform:
    """The transform of another program: a file with a matrix (3, 3) from *frame* to CD34, µm.

    Raises `InputError` for a file that holds no such matrix.
    """
    return Transform(frame, REFERENCE, read_matrix(path, order))


def landmark_pairs_from_files(
    moving: Path,
    fixed: Path,
    spacing_um: tuple[float, float],
    reference_spacing_um: tuple[float, float],
) -> LandmarkPairs:
    """Landmark pairs (n, 2) in µm from files in pixels; the first n of both files are paired.

    Raises `InputError` for a file that holds no landmarks.
    """
    check_partners(moving, fixed)
    pairs = read_landmarks(moving, spacing_um), read_landmarks(fixed, reference_spacing_um)
    n = min(map(len, pairs))
    return LandmarkPairs(pairs[0][:n], pairs[1][:n])


def reset_alignment(case: Case, frame: str) -> None:
    """Remove the given alignment of *frame*, so that the step aligns it automatically."""
    _check_frame(frame)
    given = {key: entry for key, entry in case.file.given_alignments.items() if key != frame}
    _save(case, given)


def set_alignment_by_matrix(
    case: Case, frame: str, matrix_um: ArrayLike, note: str
) -> GivenAlignment:
    """Save the transform of another program: a matrix (3, 3) from *frame* to CD34, µm."""
    transform = Transform(frame, REFERENCE, np.asarray(matrix_um, float))
    return set_alignment(case, transform, "file", note)


def set_alignment_by_landmarks(
    case: Case, frame: str, landmarks: LandmarkPairs, kind: AlignKind
) -> GivenAlignment:
    """Save the least-squares transform through landmarks on *frame* and on CD34."""
    note = f"{len(landmarks)} pairs, {kind}"
    transform = landmarks.fit(kind, frame, REFERENCE)
    return set_alignment(case, transform, "landmarks", note, landmarks)


def landmark_spacing_um(case: Case, frame: str) -> tuple[float, float]:
    """Size of the pixels (voxels of the PET) in which landmark files are given, µm."""
    return case.pet().raster.lattice.spacing_um if frame == "pet" else case.spacing_um(frame)


def _check_frame(frame: str) -> None:
    if frame not in ALIGNED_FRAMES:
        raise InputError(
            f"'{frame}' cannot be aligned to CD34; use one of: {', '.join(ALIGNED_FRAMES)}"
        )
