"""The steps that align H&E, CAIX and PET to CD34."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik import register  # whose parts are loaded on first use
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
    LandmarkPairs,
    OutlineParams,
    PetAlignParams,
    check_partners,
    read_landmarks,
)
from napari_mosaik.register.section_registration import (
    LOW_CONFIDENCE,
    align_by_pieces,
    reading_share,
)
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["ALIGN", "density_of", "low_confidence_warning"]

DENSITY_SPACING_UM = 10.0


def low_confidence_warning(document: dict[str, Any], title: str) -> str:
    """The warning about a stored alignment of low confidence; empty where it is high enough."""
    confidence = Alignment.from_dict(document).confidence
    if confidence < LOW_CONFIDENCE:
        return (
            f"{title} was registered to CD34 with low confidence ({confidence:.2f}): check the "
            "alignment, or set landmarks"
        )
    return ""


def density_of(slide: Slide) -> Raster:
    """Haematoxylin density (rows, columns) of a section at 10 µm per pixel, OD."""
    return register.haematoxylin_density(slide.thumbnail(DENSITY_SPACING_UM))


@dataclass(frozen=True, slots=True, eq=False)
class _GivenTransform:
    """A given transform with its origin, and the landmarks that measure its error."""

    transform: Transform
    method: str
    landmarks: LandmarkPairs

    def document(self, alignment: Alignment, kind: AlignKind) -> dict[str, Any]:
        """The assessed transform as it is stored, with the residual of each landmark."""
        document = alignment.to_dict()
        pairs = self.landmarks
        if not len(pairs):
            return document
        errors = pairs.residuals_um(self.transform)
        document["landmark_error_um"] = {
            "median": float(np.median(errors)),
            "maximum": float(errors.max()),
            "n": len(errors),
        }
        document["landmark_residuals_um"] = errors.tolist()
        messages = pairs.warnings(kind)
        document["warnings"] += messages
        document["warning_codes"] += ["landmark_outlier"] * len(messages)
        return document


def _given_transform(
    inputs: StepContext, frame: str, params: OutlineParams
) -> _GivenTransform | None:
    """The given alignment, or the one that landmark files determine; None without any."""
    given = inputs.given_alignment(frame)
    if given is not None:
        pairs = LandmarkPairs(_points(given.landmarks_um), _points(given.reference_landmarks_um))
        method = given.source + (f": {given.note}" if given.note else "")
        transform = Transform(frame, REFERENCE, np.array(given.matrix_um))
        return _GivenTransform(transform, method, pairs)
    if not inputs.has(LANDMARKS):
        return None
    files = inputs.landmark_files()
    if frame not in files or REFERENCE not in files:
        return None
    spacing = inputs.pet().raster.lattice.spacing_um if frame == "pet" else inputs.spacing_um(frame)
    check_partners(files[frame], files[REFERENCE])
    moving = read_landmarks(files[frame], spacing)
    fixed = read_landmarks(files[REFERENCE], inputs.spacing_um(REFERENCE))
    if len(moving) != len(fixed):
        raise InputError(
            f"{len(moving)} landmarks on {frame} but {len(fixed)} on {REFERENCE}; each needs its "
            "partner in the same row"
        )
    pairs = LandmarkPairs(moving, fixed)
    transform = pairs.fit(params.kind, frame, REFERENCE)
    return _GivenTransform(transform, f"landmarks ({params.kind})", pairs)


def _points(pairs: Sequence[tuple[float, float]]) -> FloatArray:
    return np.array(pairs, float).reshape(-1, 2)


def _density(inputs: StepContext, stain: str) -> Raster:
    with inputs.slide(stain) as slide:
        return density_of(slide)


def _reported(
    work: Generator[float, None, Alignment], before: float
) -> Generator[Progress, None, Alignment]:
    """Fractions done as progress of the step, of which a share was done *before*."""
    return map_progress(
        work, lambda fraction: Progress(before + (1 - before) * fraction, 1, "aligning")
    )


def _stain_step(stain: str) -> Step[AlignParams]:
    def body(inputs: StepContext, params: AlignParams) -> Generator[Progress, None, Results]:
        yield Progress(0.0, 1, "aligning")
        given = _given_transform(inputs, stain, params)
        masks = inputs.read(TISSUE[stain]), inputs.read(TISSUE[REFERENCE])
        if given is None and not params.use_intensity:
            by_outline = partial(register.iter_align_masks, params=params)
            alignment = yield from _reported(align_by_pieces(*masks, by_outline), 0.0)
            return {ALIGNMENT[stain]: alignment.to_dict()}
        reading = Progress(0.0, 1, "reading the haematoxylin")
        own = yield from beside(partial(_density, inputs, stain), reading)
        read = reading_share(own.values.size / 1e6)
        reading = Progress(read / 2, 1, reading.text)
        densities = own, (yield from beside(partial(_density, inputs, REFERENCE), reading))
        if given is not None:
            alignment = register.assess_sections(
                *masks, *densities, given.transform, params, method=given.method
            )
            return {ALIGNMENT[stain]: given.document(alignment, params.kind)}

        def by_content(moving: Raster, fixed: Raster) -> Generator[float, None, Alignment]:
            return register.iter_align_sections(moving, fixed, *densities, params)

        alignment = yield from _reported(align_by_pieces(*masks, by_content), read)
        return {ALIGNMENT[stain]: alignment.to_dict()}

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
        revision=3,
    )


def _pet_body(inputs: StepContext, params: PetAlignParams) -> Generator[Progress, None, Results]:
    pet = inputs.pet().raster
    yield Progress(0.01, 1, "outlining the PET")
    section = inputs.read(TISSUE[REFERENCE])
    given = _given_transform(inputs, "pet", params)
    if given is not None:
        work = register.iter_assess_pet(pet, section, given.transform, params, method=given.method)
        alignment = yield from _reported(work, 0.02)
        return {ALIGNMENT["pet"]: given.document(alignment, params.kind)}
    alignment = yield from _reported(register.iter_align_pet(pet, section, params), 0.02)
    return {ALIGNMENT["pet"]: alignment.to_dict()}


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
        check=lambda case, _: case.pet(),
        revision=2,
    ),
)
