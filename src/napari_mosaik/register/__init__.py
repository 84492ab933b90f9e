"""Lay sections and the PET on one another, and say how well they lie.

The parts that need scipy are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.landmark_outliers import (
    LandmarkOutlier,
    find_landmark_outliers,
    fit_landmarks_robustly,
    outlier_messages,
)
from napari_mosaik.register.landmarks import (
    fit_landmarks,
    landmark_names,
    read_landmarks,
    read_matrix,
)
from napari_mosaik.register.params import AlignKind, AlignParams, OutlineParams, PetAlignParams
from napari_mosaik.register.quality import (
    dice,
    landmark_errors_um,
    landmark_quality,
    mask_dice,
)

if TYPE_CHECKING:
    from napari_mosaik.register.assessment import assess_sections
    from napari_mosaik.register.blocks import InlierStatistics, inlier_statistics
    from napari_mosaik.register.correlation import density_correlation
    from napari_mosaik.register.haematoxylin import haematoxylin_density
    from napari_mosaik.register.outline_registration import (
        align_masks,
        assess_masks,
        iter_align_masks,
    )
    from napari_mosaik.register.pet_fit import align_pet, iter_align_pet, iter_assess_pet
    from napari_mosaik.register.pet_outline import blurred_outline, pet_mask
    from napari_mosaik.register.section_registration import align_sections, iter_align_sections

__all__ = [
    "AlignKind",
    "AlignParams",
    "Alignment",
    "InlierStatistics",
    "LandmarkOutlier",
    "OutlineParams",
    "PetAlignParams",
    "align_masks",
    "align_pet",
    "align_sections",
    "assess_masks",
    "assess_sections",
    "blurred_outline",
    "density_correlation",
    "dice",
    "find_landmark_outliers",
    "fit_landmarks",
    "fit_landmarks_robustly",
    "haematoxylin_density",
    "inlier_statistics",
    "iter_align_masks",
    "iter_align_pet",
    "iter_align_sections",
    "iter_assess_pet",
    "landmark_errors_um",
    "landmark_names",
    "landmark_quality",
    "mask_dice",
    "outlier_messages",
    "pet_mask",
    "read_landmarks",
    "read_matrix",
]

_WHERE = {
    "InlierStatistics": "blocks",
    "inlier_statistics": "blocks",
    "haematoxylin_density": "haematoxylin",
    "assess_sections": "assessment",
    "assess_masks": "outline_registration",
    "align_masks": "outline_registration",
    "align_sections": "section_registration",
    "blurred_outline": "pet_outline",
    "density_correlation": "correlation",
    "align_pet": "pet_fit",
    "iter_align_masks": "outline_registration",
    "iter_align_pet": "pet_fit",
    "iter_assess_pet": "pet_fit",
    "iter_align_sections": "section_registration",
    "pet_mask": "pet_outline",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
