"""The same computations outside a case: two slides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.io import open_slide
from napari_mosaik.register import (
    AlignKind,
    landmark_errors_um,
    landmark_names,
    read_landmarks,
    read_matrix,
)

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
    *,
    by_landmarks: bool = False,
    matrix: Path | None = None,
    order: Literal["rc", "xy"] = "rc",
) -> dict[str, Any]:
    """Align two slides by outline and haematoxylin, or judge a map that is given.

    Parameters
    ----------
    fixed, moving
        Pictures or slides.
    spacing_fixed, spacing_moving
        Pixel sizes, µm; None where the files say them.
    landmarks_fixed, landmarks_moving
        Landmark files in pixels, or None for both.  They only measure the error, unless
        *by_landmarks* is set.
    kind
        "rigid", "similarity" or "affine".
    by_landmarks
        The landmarks fix the map.
    matrix, order
        A file with the map of another program (3 x 3, µm), judged and not changed; see
        `read_matrix`.

    Raises
    ------
    InputError
        For what cannot be read, lacks its pixel size, or contradicts itself.
    """
    from napari_mosaik.register import AlignParams, align_sections, assess_sections, fit_landmarks

    params = AlignParams.parse({"kind": kind}, "--kind")
    if (landmarks_fixed is None) != (landmarks_moving is None):
        raise InputError("give landmarks of both pictures, or of neither")
    if by_landmarks and (landmarks_fixed is None or matrix is not None):
        raise InputError("--by-landmarks needs landmarks of both pictures and no --matrix")
    with (
        open_slide(fixed, spacing_fixed, frame="fixed") as one,
        open_slide(moving, spacing_moving, frame="moving") as other,
    ):
        marks = _marks(landmarks_moving, landmarks_fixed, other.lattice, one.lattice)
        masks, densities = _parts(other, one)
        lattice = one.lattice
    given = None
    if matrix is not None:
        given = Transform("moving", "fixed", read_matrix(matrix, order)), f"file: {matrix.name}"
    elif by_landmarks and marks is not None:
        fitted = fit_landmarks(marks.moving_um, marks.fixed_um, params.kind, "moving", "fixed")
        given = fitted, f"landmarks ({kind})"
    if given is not None:
        found = assess_sections(*masks, *densities, given[0], params, method=given[1])
    else:
        found = align_sections(*masks, *densities, params)
    record = found.to_dict()
    record["matrix"] = record.pop("matrix_um")
    if marks is not None:
        trusted = None if by_landmarks or found.confidence < 0.4 else found.transform
        record.update(marks.report(found.transform, lattice, params.kind, trusted))
        messages = record.pop("landmark_warnings")
        record["warnings"] = [*record["warnings"], *messages]
        record["warning_codes"] += ["landmark_outlier"] * len(messages)
    return record


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """Landmark pairs of two pictures with their names."""

    moving_um: FloatArray
    fixed_um: FloatArray
    names: list[str]
    warnings: list[str]

    def report(
        self,
        transform: Transform,
        lattice: Lattice,
        kind: AlignKind,
        trusted: Transform | None,
    ) -> dict[str, Any]:
        """Errors before and after, the residual of each pair, and what is odd about them."""
        from napari_mosaik.register import (
            find_landmark_outliers,
            fit_landmarks_robustly,
            landmark_quality,
            outlier_messages,
        )

        n = len(self.names)
        quality = landmark_quality(self.moving_um, self.fixed_um, transform, lattice)
        residuals = landmark_errors_um(self.moving_um, self.fixed_um, transform)
        if trusted is None and n >= 5:
            trusted = fit_landmarks_robustly(self.moving_um, self.fixed_um, kind, "moving", "fixed")
        odd = find_landmark_outliers(self.moving_um, self.fixed_um, trusted or transform)
        return {
            "landmark_error_um": {
                "before": {**quality["before_um"], "n": n},
                "after": {**quality["tre_um"], "n": n},
            },
            "landmark_rtre": quality["rtre"],
            "robustness": quality["robustness"],
            "landmarks": [
                {"name": name, "residual_um": float(error)}
                for name, error in zip(self.names, residuals, strict=True)
            ],
            "suspects": [
                {
                    "name": self.names[one.row],
                    "residual_um": one.residual_um,
                    "swapped_with": None
                    if one.swapped_with is None
                    else self.names[one.swapped_with],
                }
                for one in odd
            ],
            "landmark_warnings": [*self.warnings, *outlier_messages(odd, self.names)],
        }


def _marks(
    moving: Path | None, fixed: Path | None, moving_lattice: Lattice, fixed_lattice: Lattice
) -> _Marks | None:
    if moving is None or fixed is None:
        return None
    points = [
        read_landmarks(path, lattice.spacing_um)
        for path, lattice in ((moving, moving_lattice), (fixed, fixed_lattice))
    ]
    n = min(map(len, points))
    if n == 0:
        raise InputError(f"the landmarks {moving if not len(points[0]) else fixed} hold no point")
    said = []
    if len(points[0]) != len(points[1]):
        said = [f"{len(points[0])} and {len(points[1])} landmarks: the first {n} were paired"]
    return _Marks(points[0][:n], points[1][:n], landmark_names(fixed)[:n], said)


def _parts(moving: Slide, fixed: Slide) -> tuple[tuple[Raster, Raster], tuple[Raster, Raster]]:
    """Tissue masks and haematoxylin densities of both."""
    from napari_mosaik.register import haematoxylin_density
    from napari_mosaik.tissue import TissueParams, tissue_mask

    masks = []
    for slide in (moving, fixed):
        settings = TissueParams(spacing_um=max(OUTLINE_SPACING_UM, *slide.lattice.spacing_um))
        masks.append(tissue_mask(slide.thumbnail(settings.spacing_um), settings))
    densities = [haematoxylin_density(_overview(slide)) for slide in (moving, fixed)]
    return (masks[0], masks[1]), (densities[0], densities[1])


def _overview(slide: Slide) -> Raster:
    return slide.thumbnail(max(DENSITY_SPACING_UM, *slide.lattice.spacing_um))
