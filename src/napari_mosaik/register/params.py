"""Settings of a registration."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import Params, setting

__all__ = ["AlignKind", "AlignParams", "OutlineParams", "PetAlignParams"]

AlignKind = Literal["rigid", "similarity", "affine"]


class OutlineParams(Params):
    """Registration by outlines."""

    kind: AlignKind = setting(
        "similarity",
        "Degrees of freedom of the transform.",
        label="Transform",
        choices={
            "rigid": "rigid",
            "similarity": "similarity (with scale)",
            "affine": "affine (with shear)",
        },
    )
    mirror: bool = setting(
        True,
        "Also evaluate the mirror image; it is used only if it fits clearly better.",
        label="Allow mirror image",
    )
    angle_step_deg: float = setting(
        3.0,
        "Step of the initial scan over all angles.",
        label="Angle step",
        unit="°",
        gt=0,
        le=15,
        advanced=True,
    )
    min_scale: float = setting(
        0.75,
        "Smallest plausible linear scale; tissue shrinks by 5 to 20 % in paraffin.",
        label="Minimum scale",
        gt=0,
        lt=1,
        advanced=True,
    )
    max_scale: float = setting(
        1.1, "Largest plausible linear scale.", label="Maximum scale", gt=1, advanced=True
    )
    mirror_margin: float = setting(
        0.03,
        "The mirror image is used only if its overlap (Dice) is larger by this much.",
        label="Mirror image margin",
        ge=0,
        le=0.5,
        advanced=True,
    )
    resolution_px: int = setting(
        384,
        "Side of the working images of the refinement; accuracy is a fraction of a pixel.",
        label="Working resolution",
        unit="px",
        ge=64,
        le=2048,
        advanced=True,
    )


class AlignParams(OutlineParams):
    """Registration of one section to another."""

    use_intensity: bool = setting(
        True,
        "Refine the registration by the haematoxylin of both sections.",
        label="Refine by haematoxylin",
    )


class PetAlignParams(OutlineParams):
    """Registration of the PET to the section."""

    mirror: bool = setting(
        False,
        "Also evaluate the mirror image; it is used only if it fits clearly better.",
        label="Allow mirror image",
    )
    min_scale: float = setting(
        0.8,
        "Smallest plausible linear scale; tissue shrinks by 5 to 20 % in paraffin.",
        label="Minimum scale",
        gt=0,
        lt=1,
        advanced=True,
    )
    max_scale: float = setting(
        1.05,
        "Largest plausible linear scale: PET is acquired before the tissue shrinks in paraffin.",
        label="Maximum scale",
        gt=1,
        advanced=True,
    )
    fwhm_um: float = setting(
        1500.0,
        "Spatial resolution of the scanner (full width at half maximum).",
        label="PET resolution (FWHM)",
        unit="µm",
        gt=0,
        le=20_000,
    )
    edge: float = setting(
        0.1,
        "Threshold of the specimen's edge between background (0) and bright parts (1).",
        label="Edge threshold",
        gt=0,
        lt=0.5,
        advanced=True,
    )
    use_intensity: bool = setting(
        True,
        "Refine the registration by maximum likelihood: a forward model of the scanner with a "
        "smooth uptake in the tissue.",
        label="Refine by likelihood",
    )
