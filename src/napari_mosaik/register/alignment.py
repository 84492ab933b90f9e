"""Candidate transforms, and the result of a registration: transform, confidence, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.frame import Transform

if TYPE_CHECKING:  # their modules load scipy
    from napari_mosaik.register.affine_fit import InverseTransform
    from napari_mosaik.register.patch_matching import InlierStatistics

__all__ = [
    "Alignment",
    "AlignmentWarning",
    "CandidateTransform",
    "WarningCode",
    "differs",
    "transform_of",
]

WarningCode = Literal[
    "angle_ambiguous",
    "circular_outline",
    "implausible_scale",
    "landmark_outlier",
    "low_inlier_fraction",
    "low_overlap",
    "mirror_ambiguous",
    "mirror_fits_better",
    "mirrored",
    "no_content",
    "several_pieces",
    "off_content",
    "position_error",
    "resolution_mismatch",
    "unconstrained",
]


@dataclass(frozen=True, slots=True)
class AlignmentWarning:
    """A warning about an alignment: a code for programs, and the sentence that people read."""

    code: WarningCode
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class CandidateTransform:
    """A candidate transform between two sections, with the scores that were computed for it.

    Parameters
    ----------
    transform
        From the moving to the fixed section, µm.
    dice
        Dice overlap of the outlines, fraction; NaN where it was not computed.
    inliers
        Agreement of the image content; None where it was not computed.
    inverse
        The same map from the fixed to the moving section, as the optimiser holds it; None where
        the map did not come from the optimiser.
    """

    transform: Transform
    dice: float = math.nan
    inliers: InlierStatistics | None = None
    inverse: InverseTransform | None = None

    @property
    def inlier_fraction(self) -> float:
        """Fraction of the patches that are inliers; 0 where there is too little content."""
        return self.inliers.fraction if self.inliers and self.inliers.is_enough else 0.0

    def rank(self, use_outline: bool, mirror_margin: float) -> float:
        """Score by which candidates are sorted; a mirror image must be better by the margin."""
        outline = 0.25 * self.dice if use_outline else 0.0
        return self.inlier_fraction + outline - mirror_margin * self.transform.mirrored


def differs(first: Transform, second: Transform, apart_deg: float = DISTINCT_DEG) -> bool:
    """Whether two transforms differ in mirroring, or in angle by more than *apart_deg*."""
    angle_deg = abs(angle_difference_deg(first.angle_deg, second.angle_deg))
    return first.mirrored != second.mirrored or angle_deg > apart_deg


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The registration of a moving section (or PET slice) to a fixed section.

    Parameters
    ----------
    transform
        From the moving to the fixed coordinate space, µm.
    dice
        Dice overlap of the two outlines after alignment, 0 to 1; NaN where outlines were not used.
    angle_deg
        Rotation angle, degrees; see `Transform.similarity` for its sign.
    scale
        Linear scale (square root of the area ratio), dimensionless.
    mirrored
        Whether the moving section is flipped.
    confidence
        0 to 1: low where the outlines or the image content fit badly, or where another angle fits
        almost as well; NaN where it was not assessed.
    warnings
        Reasons to review the alignment.
    ncc
        Normalised correlation of the haematoxylin densities after alignment; NaN where it was not
        used.
    method
        "outline", "outline + haematoxylin", "outline + uptake", "landmarks", or as given.
    inlier_fraction
        Fraction of textured patches inside the tissue whose best match lies where the transform
        puts it; NaN where it was not computed.
    n_patches
        Number of patches compared.
    local_error_um
        Median distance of those matches from where the transform puts them, µm; for the PET the
        distance of a given transform from the most likely one nearby.
    position_error_um
        Expected registration error, root mean square over the tissue, µm; NaN where it was not
        estimated (stained sections).
    """

    transform: Transform
    dice: float
    angle_deg: float
    scale: float
    mirrored: bool
    confidence: float
    warnings: tuple[AlignmentWarning, ...] = ()
    ncc: float = float("nan")
    method: str = "outline"
    inlier_fraction: float = float("nan")
    n_patches: int = 0
    local_error_um: float = float("nan")
    position_error_um: float = float("nan")

    @classmethod
    def of(
        cls,
        transform: Transform,
        dice: float,
        confidence: float,
        warnings: list[AlignmentWarning],
        **more: Any,
    ) -> Alignment:
        """An alignment whose angle, scale and mirroring are those of its transform."""
        return cls(
            transform,
            dice,
            transform.angle_deg,
            transform.scale,
            transform.mirrored,
            confidence,
            tuple(warnings),
            **more,
        )

    @property
    def messages(self) -> tuple[str, ...]:
        """The sentences of the warnings."""
        return tuple(warning.message for warning in self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; NaN becomes null."""
        return {
            "source": self.transform.source,
            "target": self.transform.target,
            "matrix_um": self.transform.matrix.tolist(),
            "dice": _or_null(self.dice),
            "angle_deg": self.angle_deg,
            "scale": self.scale,
            "mirrored": self.mirrored,
            "confidence": _or_null(self.confidence),
            "warnings": list(self.messages),
            "warning_codes": [warning.code for warning in self.warnings],
            "ncc": _or_null(self.ncc),
            "method": self.method,
            "inlier_fraction": _or_null(self.inlier_fraction),
            "n_patches": self.n_patches,
            "local_error_um": _or_null(self.local_error_um),
            "position_error_um": _or_null(self.position_error_um),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Alignment:
        """The inverse of `to_dict`."""
        matrix = np.asarray(values["matrix_um"], float)
        warnings = zip(values["warning_codes"], values["warnings"], strict=True)
        return cls(
            Transform(str(values["source"]), str(values["target"]), matrix),
            _or_nan(values["dice"]),
            float(values["angle_deg"]),
            float(values["scale"]),
            bool(values["mirrored"]),
            _or_nan(values["confidence"]),
            tuple(AlignmentWarning(code, str(message)) for code, message in warnings),
            _or_nan(values["ncc"]),
            str(values["method"]),
            _or_nan(values["inlier_fraction"]),
            int(values["n_patches"]),
            _or_nan(values["local_error_um"]),
            _or_nan(values["position_error_um"]),
        )


def transform_of(document: dict[str, Any]) -> Transform:
    """The transform of a stored alignment (`Alignment.to_dict`), µm to µm."""
    return Alignment.from_dict(document).transform


def _or_null(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
