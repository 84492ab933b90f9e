"""Registration of sections and PET to one another, and its uncertainty.

The modules that need scipy are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mosaik.register.alignment import Alignment, AlignmentWarning
from napari_mosaik.register.landmark_outliers import (
    LandmarkOutlier,
    LandmarkPairs,
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
    from napari_mosaik.register.content_search import density_correlation
    from napari_mosaik.register.haematoxylin import haematoxylin_density
    from napari_mosaik.register.outline_registration import (
        align_masks,
        assess_masks,
        iter_align_masks,
    )
    from napari_mosaik.register.patch_matching import InlierStatistics, inlier_statistics
    from napari_mosaik.register.pet_outline import blurred_outline, pet_mask
    from napari_mosaik.register.pet_registration import align_pet, iter_align_pet, iter_assess_pet
    from napari_mosaik.register.section_registration import (
        align_sections,
        assess_sections,
        iter_align_sections,
    )

__all__ = [
    "AlignKind",
    "AlignParams",
    "Alignment",
    "AlignmentWarning",
    "InlierStatistics",
    "LandmarkOutlier",
    "LandmarkPairs",
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

_LAZY = {
    "content_search": ("density_correlation",),
    "haematoxylin": ("haematoxylin_density",),
    "outline_registration": ("align_masks", "assess_masks", "iter_align_masks"),
    "patch_matching": ("InlierStatistics", "inlier_statistics"),
    "pet_outline": ("blurred_outline", "pet_mask"),
    "pet_registration": ("align_pet", "iter_align_pet", "iter_assess_pet"),
    "section_registration": ("align_sections", "assess_sections", "iter_align_sections"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
