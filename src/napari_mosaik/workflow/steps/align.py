"""Lay H&E, CAIX and PET on the CD34 section."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    GIVEN_ALIGNMENT,
    LANDMARKS,
    PET,
    REFERENCE,
    SLIDES,
    STAIN_TITLES,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.raster import Raster
from napari_mosaik.register import (
    AlignKind,
    Alignment,
    AlignParams,
    OutlineParams,
    PetAlignParams,
    assess_sections,
    find_landmark_outliers,
    fit_landmarks,
    fit_landmarks_robustly,
    haematoxylin_density,
    iter_align_masks,
    iter_align_pet,
    iter_align_sections,
    iter_assess_pet,
    landmark_errors_um,
    outlier_messages,
    read_landmarks,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["ALIGN", "density_of", "low_confidence_warning", "transform_of"]

DENSITY_SPACING_UM = 10.0


def transform_of(document: dict[str, Any]) -> Transform:
    """The transform of a stored alignment."""
    return Alignment.from_dict(document).transform


LOW_CONFIDENCE = 0.4


def low_confidence_warning(document: dict[str, Any], title: str) -> str:
    """A sentence where a stored alignment should not be trusted unseen; empty where it may be."""
    found = Alignment.from_dict(document)
    if found.confidence < LOW_CONFIDENCE:
        return (
            f"{title} was laid on CD34 with low confidence ({found.confidence:.2f}): check it, or "
            "give landmarks"
        )
    return ""


def _given(inputs: StepContext, frame: str, params: OutlineParams) -> _Given | None:
    """A position that a person or a file gave, or that landmark files fix; None without any."""
    given = inputs.given_alignment(frame)
    if given is not None:
        transform = Transform(frame, REFERENCE, np.array(given.matrix_um))
        method = _SAID[given.source] + (f": {given.note}" if given.note else "")
        marks = np.array(given.landmarks_um, float).reshape(-1, 2)
        partners = np.array(given.reference_landmarks_um, float).reshape(-1, 2)
        return _Given(transform, method, marks, partners)
    if not inputs.has(LANDMARKS):
        return None
    files = inputs.landmark_files()
    if frame not in files or REFERENCE not in files:
        return None
    spacing = inputs.pet().raster.lattice.spacing_um if frame == "pet" else inputs.spacing_um(frame)
    moving = read_landmarks(files[frame], spacing)
    fixed = read_landmarks(files[REFERENCE], inputs.spacing_um(REFERENCE))
    if len(moving) != len(fixed):
        raise InputError(
            f"{len(moving)} landmarks on {frame} but {len(fixed)} on {REFERENCE}; each needs its "
            "partner in the same row"
        )
    transform = fit_landmarks(moving, fixed, params.kind, frame, REFERENCE)
    return _Given(transform, f"landmarks ({params.kind})", moving, fixed)


_SAID = {"hand": "by hand", "landmarks": "landmarks", "file": "file"}


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """A map that was given, how, and the landmarks (n, 2) that tell how good it is."""

    transform: Transform
    method: str
    landmarks_um: FloatArray
    partners_um: FloatArray

    def document(self, found: Alignment, kind: AlignKind) -> dict[str, Any]:
        """The judged map as it is stored, with the residual of each landmark."""
        document = found.to_dict()
        if not len(self.landmarks_um):
            return document
        errors = landmark_errors_um(self.landmarks_um, self.partners_um, self.transform)
        document["landmark_error_um"] = {
            "median": float(np.median(errors)),
            "maximum": float(errors.max()),
            "n": len(errors),
        }
        document["landmark_residuals_um"] = errors.tolist()
        names = [str(n + 1) for n in range(len(errors))]
        robust = (
            fit_landmarks_robustly(
                self.landmarks_um, self.partners_um, kind, self.transform.source, REFERENCE
            )
            if len(errors) > 3
            else self.transform
        )
        messages = outlier_messages(
            find_landmark_outliers(self.landmarks_um, self.partners_um, robust), names
        )
        document["warnings"] = [*document["warnings"], *messages]
        codes = ["landmark_outlier"] * len(messages)
        document["warning_codes"] = [*document["warning_codes"], *codes]
        return document


def density_of(slide: Slide) -> Raster:
    """Haematoxylin density of a section at low resolution."""
    return haematoxylin_density(slide.thumbnail(DENSITY_SPACING_UM))


def _density(inputs: StepContext, stain: str) -> Raster:
    with inputs.slide(stain) as slide:
        return density_of(slide)


def _shown(pieces: Generator[float, None, Alignment]) -> Generator[Progress, None, Alignment]:
    """Fractions done as progress."""
    return map_progress(pieces, lambda share: Progress(0.2 + 0.8 * share, 1, "aligning"))


def _stain_step(stain: str) -> Step[AlignParams]:
    def body(inputs: StepContext, params: AlignParams) -> Generator[Progress, None, Results]:
        yield Progress(0.1, 1, "aligning")
        given = _given(inputs, stain, params)
        masks = inputs.read(TISSUE[stain]), inputs.read(TISSUE[REFERENCE])
        if given is None and not params.use_intensity:
            found = yield from _shown(iter_align_masks(*masks, params))
            return {ALIGNMENT[stain]: found.to_dict()}
        yield Progress(0.1, 1, "looking at the haematoxylin")
        densities = _density(inputs, stain), _density(inputs, REFERENCE)
        if given is not None:
            found = assess_sections(
                *masks, *densities, given.transform, params, method=given.method
            )
            return {ALIGNMENT[stain]: given.document(found, params.kind)}
        found = yield from _shown(iter_align_sections(*masks, *densities, params))
        return {ALIGNMENT[stain]: found.to_dict()}

    title = STAIN_TITLES[stain]
    return Step(
        name=f"align_{stain}",
        title=f"Registration of {title} to CD34",
        about=f"Registers the {title} section to the CD34 section by tissue outline and "
        "haematoxylin, or applies a manual alignment, landmarks or an imported transform.",
        page="Registration",
        params=AlignParams,
        reads=(SLIDES[stain], SLIDES[REFERENCE], TISSUE[stain], TISSUE[REFERENCE]),
        may_read=(LANDMARKS, GIVEN_ALIGNMENT[stain]),
        writes=(ALIGNMENT[stain],),
        body=body,
        revision=2,
    )


def _pet_body(inputs: StepContext, params: PetAlignParams) -> Generator[Progress, None, Results]:
    pet = inputs.pet().raster
    yield Progress(0.1, 1, "outlining the PET")
    section = inputs.read(TISSUE[REFERENCE])
    given = _given(inputs, "pet", params)
    if given is not None:
        transform, method = given.transform, given.method
        judged = yield from _shown(iter_assess_pet(pet, section, transform, params, method=method))
        return {ALIGNMENT["pet"]: given.document(judged, params.kind)}
    found = yield from _shown(iter_align_pet(pet, section, params))
    return {ALIGNMENT["pet"]: found.to_dict()}


ALIGN = (
    _stain_step("he"),
    _stain_step("caix"),
    Step(
        name="align_pet",
        title="Registration of PET to CD34",
        about="Registers the PET slice to the CD34 section by rotation, translation and scale, "
        "from the tissue outline and a forward model of the scanner's blur.",
        page="Registration",
        params=PetAlignParams,
        reads=(PET, TISSUE[REFERENCE]),
        may_read=(LANDMARKS, GIVEN_ALIGNMENT["pet"], SLIDES[REFERENCE]),
        writes=(ALIGNMENT["pet"],),
        body=_pet_body,
        revision=2,
    ),
)
