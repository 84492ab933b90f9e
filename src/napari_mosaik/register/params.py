"""The settings of an alignment."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import Params, setting

__all__ = ["AlignKind", "AlignParams", "OutlineParams", "PetAlignParams"]

AlignKind = Literal["rigid", "similarity", "affine"]


class OutlineParams(Params):
    """How one outline is laid on another."""

    kind: AlignKind = setting(
        "similarity",
        "What may change: turn and shift; also one scale; also shear and unequal scales.",
        label="Allowed change",
        choices={
            "rigid": "turn and shift",
            "similarity": "turn, shift and one scale",
            "affine": "any affine change",
        },
    )
    mirror: bool = setting(
        True,
        "Also try the mirror image; it is taken only if it fits clearly better.",
        label="Try the mirror image",
    )
    angle_step_deg: float = setting(
        3.0,
        "Step of the first scan over all angles.",
        label="Step of the angle scan",
        unit="°",
        gt=0,
        le=15,
        advanced=True,
    )
    min_scale: float = setting(
        0.75,
        "Least plausible linear scale; tissue shrinks by 5 to 20 % in paraffin.",
        label="Least scale",
        gt=0,
        lt=1,
        advanced=True,
    )
    max_scale: float = setting(
        1.1, "Greatest plausible linear scale.", label="Greatest scale", gt=1, advanced=True
    )
    mirror_margin: float = setting(
        0.03,
        "The mirror image must overlap better by this much (Dice) to be taken.",
        label="Margin for the mirror image",
        ge=0,
        le=0.5,
        advanced=True,
    )
    resolution_px: int = setting(
        384,
        "Side of the working images of the refinement; the outline is found to a fraction of one.",
        label="Working resolution",
        unit="px",
        ge=64,
        le=2048,
        advanced=True,
    )


class AlignParams(OutlineParams):
    """How one section is laid on another."""

    use_intensity: bool = setting(
        True,
        "Refine by the haematoxylin seen on both sections after the outlines agree.",
        label="Refine by haematoxylin",
    )


class PetAlignParams(OutlineParams):
    """How the PET is laid on the section."""

    mirror: bool = setting(
        False,
        "Also try the mirror image; it is taken only if it fits clearly better.",
        label="Try the mirror image",
    )
    min_scale: float = setting(
        0.8,
        "Least plausible linear scale; tissue shrinks by 5 to 20 % in paraffin.",
        label="Least scale",
        gt=0,
        lt=1,
        advanced=True,
    )
    max_scale: float = setting(
        1.05,
        "Greatest plausible linear scale: the PET saw the tissue before it shrank in paraffin.",
        label="Greatest scale",
        gt=1,
        advanced=True,
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
    use_intensity: bool = setting(
        True,
        "After the outlines, move the PET to where its values are most likely: tissue with a "
        "smooth uptake, blurred by the scanner.",
        label="Refine by the PET's values",
    )
