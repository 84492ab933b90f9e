"""Lay H&E, CAIX and PET on the CD34 section."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    LANDMARKS,
    PET,
    REFERENCE,
    SLIDES,
    STAIN_TITLES,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.params import setting
from napari_mosaik.core.raster import Raster
from napari_mosaik.register import (
    Alignment,
    AlignParams,
    OutlineParams,
    blurred_outline,
    fit_landmarks,
    haematoxylin_density,
    iter_align_masks,
    iter_align_sections,
    landmark_errors_um,
    pet_mask,
    read_landmarks,
)
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step

__all__ = ["ALIGN", "doubt", "transform_of"]

DENSITY_SPACING_UM = 10.0


def transform_of(document: dict[str, Any]) -> Transform:
    """The transform of a stored alignment."""
    return Alignment.from_dict(document).transform


LOW_CONFIDENCE = 0.4


def doubt(document: dict[str, Any], title: str) -> str:
    """A sentence where a stored alignment should not be trusted unseen; empty where it may be."""
    found = Alignment.from_dict(document)
    if found.confidence < LOW_CONFIDENCE:
        return (
            f"{title} was laid on CD34 with low confidence ({found.confidence:.2f}): check it, or "
            "give landmarks"
        )
    return ""


def _by_landmarks(inputs: Inputs, frame: str, params: AlignParams) -> dict[str, Any] | None:
    """Alignment by landmarks on both images, when the case has them for this frame."""
    files = inputs.landmark_files()
    if frame not in files or REFERENCE not in files:
        return None
    moving = read_landmarks(files[frame], inputs.spacing_um(frame))
    fixed = read_landmarks(files[REFERENCE], inputs.spacing_um(REFERENCE))
    if len(moving) != len(fixed):
        raise InputError(
            f"{len(moving)} landmarks on {frame} but {len(fixed)} on {REFERENCE}; each needs its "
            "partner in the same row"
        )
    transform = fit_landmarks(moving, fixed, params.kind, frame, REFERENCE)
    errors = landmark_errors_um(moving, fixed, transform)
    found = Alignment(
        transform,
        dice=float("nan"),
        angle_deg=transform.angle_deg,
        scale=transform.scale,
        mirrored=transform.mirrored,
        confidence=float("nan"),
        method=f"landmarks ({params.kind})",
    )
    error = {"median": float(np.median(errors)), "maximum": float(errors.max()), "n": len(errors)}
    return {**found.to_dict(), "landmark_error_um": error}


def _density(inputs: Inputs, stain: str) -> Raster:
    """Haematoxylin density of a section at low resolution, for the refinement."""
    with inputs.slide(stain) as slide:
        return haematoxylin_density(slide.thumbnail(DENSITY_SPACING_UM))


def _shown(pieces: Generator[float, None, Alignment]) -> Generator[Progress, None, Alignment]:
    """Fractions done as progress."""
    while True:
        try:
            share = next(pieces)
        except StopIteration as end:
            found: Alignment = end.value
            return found
        yield Progress(0.2 + 0.8 * share, 1, "aligning")


def _stain_step(stain: str) -> Step[AlignParams]:
    def body(inputs: Inputs, params: AlignParams) -> Generator[Progress, None, Results]:
        yield Progress(0.1, 1, "aligning")
        found = _by_landmarks(inputs, stain, params) if inputs.has(LANDMARKS) else None
        if found is None:
            masks = inputs.read(TISSUE[stain]), inputs.read(TISSUE[REFERENCE])
            if params.use_intensity:
                yield Progress(0.1, 1, "looking at the haematoxylin")
                densities = _density(inputs, stain), _density(inputs, REFERENCE)
                pieces = iter_align_sections(*masks, *densities, params)
                found = (yield from _shown(pieces)).to_dict()
            else:
                found = (yield from _shown(iter_align_masks(*masks, params))).to_dict()
        return {ALIGNMENT[stain]: found}

    title = STAIN_TITLES[stain]
    return Step(
        name=f"align_{stain}",
        title=f"Align {title} to CD34",
        about=f"Turns and shifts the {title} section onto the CD34 section by their outlines and "
        "their haematoxylin, or by landmarks where there are some.",
        page="Align",
        params=AlignParams,
        reads=(SLIDES[stain], SLIDES[REFERENCE], TISSUE[stain], TISSUE[REFERENCE]),
        may_read=(LANDMARKS,),
        writes=(ALIGNMENT[stain],),
        body=body,
    )


class PetAlignParams(OutlineParams):
    """Settings of the alignment of the PET: outlines alone decide, blurred alike."""

    mirror: bool = setting(
        False,
        "Also try the mirror image; it is taken only if it fits clearly better.",
        label="Try the mirror image",
    )
    fwhm_um: float = setting(
        1500.0,
        "Resolution of the scanner (full width at half maximum).",
        label="PET resolution",
        unit="µm",
        gt=0,
        le=20_000,
    )
    edge: float = setting(
        0.1,
        "Where between background (0) and the bright parts (1) the specimen's edge is set.",
        label="Edge on the PET",
        gt=0,
        lt=0.5,
        advanced=True,
    )


def _pet_body(inputs: Inputs, params: PetAlignParams) -> Generator[Progress, None, Results]:
    pet = inputs.pet()
    yield Progress(0.2, 1, "outlining the PET")
    moving = pet_mask(pet.raster, fraction=params.edge)
    section = inputs.read(TISSUE[REFERENCE])
    fixed = blurred_outline(section, params.fwhm_um, fraction=params.edge)
    yield Progress(0.4, 1, "aligning")
    pieces = iter_align_masks(moving, fixed, params)
    found = yield from _shown(pieces)
    return {ALIGNMENT["pet"]: found.to_dict()}


ALIGN = (
    _stain_step("he"),
    _stain_step("caix"),
    Step(
        name="align_pet",
        title="Align PET to CD34",
        about="Turns, shifts and scales the PET slice onto the CD34 section by their outlines.",
        page="Align",
        params=PetAlignParams,
        reads=(PET, TISSUE[REFERENCE]),
        writes=(ALIGNMENT["pet"],),
        body=_pet_body,
    ),
)
