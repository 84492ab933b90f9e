"""The same computations outside a case: one PET, two slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, stain_density, stain_matrix
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.records import InjectionRecord
from napari_mosaik.io import open_pet, open_slide

__all__ = ["align_pictures", "suv_of"]

OUTLINE_SPACING_UM = 12.5
DENSITY_SPACING_UM = 10.0


def suv_of(
    files: Sequence[Path], kind: str, given: Mapping[str, Any], choice: Mapping[str, int]
) -> dict[str, Any]:
    """SUV of a PET slice with every term, its source and the assumptions.

    Parameters
    ----------
    files
        PET files.
    kind
        "bsa", "bw" or "lbm".
    given
        Fields of `InjectionRecord` that the user gave; None where not given.
    choice
        Slice and frame, where the files hold several.
    """
    from pydantic import ValidationError

    from napari_mosaik.uptake import combine, to_suv
    from napari_mosaik.uptake.suv import SuvKind

    wanted: SuvKind = next(one for one in get_args(SuvKind) if one == kind)
    pet = open_pet(list(files), **choice)
    values = {name: value for name, value in given.items() if value is not None}
    try:
        record = InjectionRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from error
    terms = combine(record, pet.header)
    suv = to_suv(pet, terms, wanted)
    document = {
        **terms.to_dict(),
        "kind": terms.kind(wanted),
        "unit": suv.unit,
        "maximum": float(np.nanmax(suv.values)),
        "mean": float(np.nanmean(suv.values)),
    }
    if not terms.already_suv:
        document["factor"] = terms.factor(wanted)
        document["formula"] = terms.formula(wanted)
    return document


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
        densities = [_haematoxylin(slide) for slide in (other, one)]
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


def _haematoxylin(slide: Any) -> Raster:
    overview = slide.thumbnail(max(DENSITY_SPACING_UM, *slide.lattice.spacing_um))
    amounts = stain_density(overview.values, stain_matrix(HAEMATOXYLIN, DAB))
    return Raster(amounts[..., 0], overview.lattice)
