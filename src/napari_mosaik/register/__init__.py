"""Lay sections and the PET on one another, and say how well they lie.

The parts that need scipy are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mosaik.register.checks import (
    OddLandmark,
    odd_landmarks,
    odd_sentences,
    robust_landmarks,
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
    dice_of_masks,
    landmark_errors_um,
    landmark_quality,
)
from napari_mosaik.register.result import Alignment

if TYPE_CHECKING:
    from napari_mosaik.register.blocks import Agreement, agreement
    from napari_mosaik.register.correlation import density_correlation
    from napari_mosaik.register.density import haematoxylin_density
    from napari_mosaik.register.intensity import align_sections, iter_align_sections
    from napari_mosaik.register.judging import judge
    from napari_mosaik.register.pet import blurred_outline, pet_mask
    from napari_mosaik.register.pet_fit import align_pet, iter_align_pet, iter_judge_pet
    from napari_mosaik.register.rigid import align_masks, iter_align_masks, judge_outline

__all__ = [
    "Agreement",
    "AlignKind",
    "AlignParams",
    "Alignment",
    "OddLandmark",
    "OutlineParams",
    "PetAlignParams",
    "agreement",
    "align_masks",
    "align_pet",
    "align_sections",
    "blurred_outline",
    "density_correlation",
    "dice",
    "dice_of_masks",
    "fit_landmarks",
    "haematoxylin_density",
    "iter_align_masks",
    "iter_align_pet",
    "iter_align_sections",
    "iter_judge_pet",
    "judge",
    "judge_outline",
    "landmark_errors_um",
    "landmark_names",
    "landmark_quality",
    "odd_landmarks",
    "odd_sentences",
    "pet_mask",
    "read_landmarks",
    "read_matrix",
    "robust_landmarks",
]

_WHERE = {
    "Agreement": "blocks",
    "agreement": "blocks",
    "haematoxylin_density": "density",
    "judge": "judging",
    "judge_outline": "rigid",
    "align_masks": "rigid",
    "align_sections": "intensity",
    "blurred_outline": "pet",
    "density_correlation": "correlation",
    "align_pet": "pet_fit",
    "iter_align_masks": "rigid",
    "iter_align_pet": "pet_fit",
    "iter_judge_pet": "pet_fit",
    "iter_align_sections": "intensity",
    "pet_mask": "pet",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
