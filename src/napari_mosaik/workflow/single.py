"""The same computations outside a case: two slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import Raster
from napari_mosaik.io import open_slide

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["align_pictures"]

OUTLINE_SPACING_UM = 12.5
DENSITY_SPACING_UM = 10.0


def align_pictures(
    fixed: Path,
    moving: Path,
    spacing_fixed: float | None,
    spacing_moving: float | None,
    landmarks_fixed: Path | None,
    landmarks_moving: Path | None,
    kind: str,
) -> dict[str, Any]:
    """Align two slides by outline and haematoxylin; landmarks only measure the error."""
    from napari_mosaik.register import (
        AlignParams,
        align_sections,
        haematoxylin_density,
        landmark_quality,
        read_landmarks,
    )
    from napari_mosaik.tissue import TissueParams, tissue_mask

    params = AlignParams.parse({"kind": kind}, "--kind")
    if (landmarks_fixed is None) != (landmarks_moving is None):
        raise InputError("give landmarks of both pictures, or of neither")
    with (
        open_slide(fixed, spacing_fixed, frame="fixed") as one,
        open_slide(moving, spacing_moving, frame="moving") as other,
    ):
        masks = []
        for slide in (other, one):
            settings = TissueParams(spacing_um=max(OUTLINE_SPACING_UM, *slide.lattice.spacing_um))
            masks.append(tissue_mask(slide.thumbnail(settings.spacing_um), settings))
        densities = [haematoxylin_density(_overview(slide)) for slide in (other, one)]
        lattices = other.lattice, one.lattice
    found = align_sections(masks[0], masks[1], densities[0], densities[1], params)
    record = found.to_dict()
    record["matrix"] = record.pop("matrix_um")
    if landmarks_fixed is not None and landmarks_moving is not None:
        marks_moving = read_landmarks(landmarks_moving, lattices[0].spacing_um)
        marks_fixed = read_landmarks(landmarks_fixed, lattices[1].spacing_um)
        n = min(len(marks_moving), len(marks_fixed))
        if len(marks_moving) != len(marks_fixed):
            record["warnings"] = [
                *record["warnings"],
                f"{len(marks_moving)} and {len(marks_fixed)} landmarks: the first {n} were paired",
            ]
        quality = landmark_quality(marks_moving[:n], marks_fixed[:n], found.transform, lattices[1])
        before, after = quality["before_um"], quality["tre_um"]
        record["landmark_error_um"] = {"before": {**before, "n": n}, "after": {**after, "n": n}}
        record["landmark_rtre"] = quality["rtre"]
        record["robustness"] = quality["robustness"]
    return record


def _overview(slide: Slide) -> Raster:
    return slide.thumbnail(max(DENSITY_SPACING_UM, *slide.lattice.spacing_um))
