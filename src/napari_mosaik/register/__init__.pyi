from .alignment import Alignment, AlignmentWarning, transform_of
from .content_search import density_correlation, haematoxylin_density
from .landmark_outliers import (
    LandmarkOutlier,
    LandmarkPairs,
    find_landmark_outliers,
    fit_landmarks_robustly,
    outlier_messages,
)
from .landmarks import check_partners, fit_landmarks, landmark_names, read_landmarks, read_matrix
from .outline_registration import align_masks, assess_masks, iter_align_masks
from .params import AlignKind, AlignParams, OutlineParams, PetAlignParams
from .patch_matching import InlierStatistics, inlier_statistics
from .pet_model import blurred_outline, pet_mask
from .pet_registration import align_pet, iter_align_pet, iter_assess_pet
from .quality import (
    dice,
    landmark_errors_um,
    landmark_quality,
    mask_dice,
    registration_error,
)
from .section_registration import align_sections, assess_sections, iter_align_sections

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
    "check_partners",
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
    "registration_error",
    "transform_of",
]
