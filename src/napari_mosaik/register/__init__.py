"""Lay sections and the PET on one another, and say how well they lie.

The parts that need scipy are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mosaik.register.landmarks import fit_landmarks, read_landmarks
from napari_mosaik.register.params import AlignKind, AlignParams, OutlineParams
from napari_mosaik.register.quality import (
    dice,
    dice_of_masks,
    landmark_errors_um,
    landmark_quality,
)
from napari_mosaik.register.result import Alignment

if TYPE_CHECKING:
    from napari_mosaik.register.intensity import (
        align_sections,
        density_correlation,
        iter_align_sections,
        refine,
    )
    from napari_mosaik.register.pet import blurred_outline, pet_mask
    from napari_mosaik.register.rigid import align_masks, iter_align_masks

__all__ = [
    "AlignKind",
    "AlignParams",
    "Alignment",
    "OutlineParams",
    "align_masks",
    "align_sections",
    "blurred_outline",
    "density_correlation",
    "dice",
    "dice_of_masks",
    "fit_landmarks",
    "iter_align_masks",
    "iter_align_sections",
    "landmark_errors_um",
    "landmark_quality",
    "pet_mask",
    "read_landmarks",
    "refine",
]

_WHERE = {
    "align_masks": "rigid",
    "align_sections": "intensity",
    "blurred_outline": "pet",
    "density_correlation": "intensity",
    "iter_align_masks": "rigid",
    "iter_align_sections": "intensity",
    "pet_mask": "pet",
    "refine": "intensity",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
