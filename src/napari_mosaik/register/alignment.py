"""The result of an alignment: the map and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mosaik.core.frame import Transform

__all__ = ["Alignment"]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """How a moving frame lies on a fixed one.

    Parameters
    ----------
    transform
        From the moving to the fixed frame, µm.
    dice
        Overlap of the two outlines after alignment, 0 to 1; NaN where outlines were not used.
    angle_deg
        Angle of the map; see `Transform.similarity` for its sign.
    scale
        Linear scale of the map (square root of the area ratio).
    mirrored
        Whether the moving section is turned over.
    confidence
        0 to 1: low when the outlines fit badly, when few places inside the tissue agree, or when
        another angle fits almost as well.
    warnings
        What should be looked at.
    ncc
        Correlation of the haematoxylin densities after alignment; NaN where it was not used.
    method
        "outline", "outline + haematoxylin", "landmarks", or as given.
    agreement
        Share of textured places inside the tissue that find their partner where the map puts it;
        NaN where it was not looked for.
    n_places
        How many places were compared.
    local_error_um
        Median distance of those partners from where the map puts them, µm; for the PET the
        distance of a map that was given from the most likely one near it.
    position_error_um
        Expected error of the map, root mean square over the tissue, µm; NaN where it was not
        estimated (stained sections).
    """

    transform: Transform
    dice: float
    angle_deg: float
    scale: float
    mirrored: bool
    confidence: float
    warnings: tuple[str, ...] = ()
    ncc: float = float("nan")
    method: str = "outline"
    inlier_fraction: float = float("nan")
    n_patches: int = 0
    local_error_um: float = float("nan")
    position_error_um: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; a missing correlation is null."""
        return {
            "source": self.transform.source,
            "target": self.transform.target,
            "matrix_um": self.transform.matrix.tolist(),
            "dice": _stored(self.dice),
            "angle_deg": self.angle_deg,
            "scale": self.scale,
            "mirrored": self.mirrored,
            "confidence": _stored(self.confidence),
            "warnings": list(self.warnings),
            "ncc": _stored(self.ncc),
            "method": self.method,
            "inlier_fraction": _stored(self.inlier_fraction),
            "n_patches": self.n_patches,
            "local_error_um": _stored(self.local_error_um),
            "position_error_um": _stored(self.position_error_um),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Alignment:
        """The inverse of `to_dict`."""
        matrix = np.asarray(values["matrix_um"], float)
        transform = Transform(str(values["source"]), str(values["target"]), matrix)
        return cls(
            transform,
            _number(values["dice"]),
            float(values["angle_deg"]),
            float(values["scale"]),
            bool(values["mirrored"]),
            _number(values["confidence"]),
            tuple(str(text) for text in values.get("warnings", ())),
            _number(values.get("ncc")),
            str(values.get("method", "outline")),
            _number(values.get("inlier_fraction")),
            int(values.get("n_patches", 0)),
            _number(values.get("local_error_um")),
            _number(values.get("position_error_um")),
        )


def _stored(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
