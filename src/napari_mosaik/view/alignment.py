"""What the registration page shows: checkerboard, voxel grid, resolution, figures of merit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.view.formatting import number, percent

__all__ = [
    "LOW_CONFIDENCE",
    "alignment_lines",
    "checkerboard",
    "circle_lines",
    "confidence_word",
    "voxel_lines",
]

LOW_CONFIDENCE = 0.4
HIGH_CONFIDENCE = 0.7
TILE_CLAIM_UM = 150.0


def checkerboard(
    moving: Raster, lattice: Lattice, transform: Transform, square_um: float
) -> NDArray[np.uint8]:
    """Every other square of a moving image on the fixed lattice, transparent elsewhere.

    Parameters
    ----------
    moving
        8-bit RGB, (rows, columns, 3).
    lattice
        Lattice in the fixed space on which it is drawn.
    transform
        From the moving to the fixed space.
    square_um
        Side of a square, µm.

    Returns
    -------
    board
        8-bit RGBA (rows, columns, 4) on *lattice*, dimensionless.
    """
    points = lattice.centres_um()
    board = np.floor(points / square_um).astype(np.int64).sum(axis=-1) % 2 == 0
    out = np.zeros((*lattice.shape, 4), np.uint8)
    at = transform.inverse().apply(points[board])
    index = np.floor(moving.lattice.to_index(at) + 0.5).astype(np.int64)
    seen = ((index >= 0) & (index < np.array(moving.lattice.shape))).all(axis=-1)
    pixels = np.full((len(at), 4), 255, np.uint8)
    pixels[~seen] = 0
    pixels[seen, :3] = moving.values[index[seen, 0], index[seen, 1]]
    out[board] = pixels
    return out


def voxel_lines(lattice: Lattice, low_um: Any, high_um: Any) -> FloatArray:
    """Edges of the voxels within a rectangle, as vectors (n, 2, 2) in µm: start and step.

    *low_um* and *high_um* are the (row, column) of its corners, µm of the lattice's space.
    """
    first = np.clip(np.floor(lattice.to_index([low_um])[0] + 0.5), 0, lattice.shape).astype(int)
    last = np.clip(np.ceil(lattice.to_index([high_um])[0] + 0.5), 0, lattice.shape).astype(int)
    origin, step = np.asarray(lattice.origin_um), np.asarray(lattice.spacing_um)
    low, high = origin + first * step, origin + last * step
    rows = origin[0] + np.arange(first[0], last[0] + 1) * step[0]
    cols = origin[1] + np.arange(first[1], last[1] + 1) * step[1]
    across = [[[row, low[1]], [0.0, high[1] - low[1]]] for row in rows]
    down = [[[low[0], col], [high[0] - low[0], 0.0]] for col in cols]
    return np.array([*across, *down], float).reshape(-1, 2, 2)


def circle_lines(centre_um: Any, diameter_um: float, n: int = 72) -> FloatArray:
    """A circle as vectors (n, 2, 2) in µm: start and step."""
    angles = np.linspace(0, 2 * math.pi, n + 1)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1) * diameter_um / 2
    points = ring + np.asarray(centre_um, float)
    return np.stack([points[:-1], np.diff(points, axis=0)], axis=1)


def confidence_word(value: float | None) -> str:
    """A confidence in [0, 1] as a word with its number."""
    if value is None or not math.isfinite(value):
        return "not assessed"
    word = "high" if value >= HIGH_CONFIDENCE else "low" if value < LOW_CONFIDENCE else "medium"
    return f"{word} ({value:.2f})"


def alignment_lines(record: Mapping[str, Any]) -> list[str]:
    """The figures of merit of an alignment (its JSON form) in words, warnings first."""
    lines = [f"⚠ {text}" for text in record.get("warnings", ())]
    parts = [f"Dice overlap of the outlines {percent(record['dice'])}"]
    if record.get("inlier_fraction") is not None:
        parts.append(
            f"{percent(record['inlier_fraction'])} of {record['n_patches']} patches are inliers, "
            f"median residual {number(record['local_error_um'], 'µm')}"
        )
    if record.get("position_error_um") is not None:
        parts.append(f"expected registration error {number(record['position_error_um'], 'µm')}")
        if record.get("local_error_um") is not None:
            parts.append(f"{number(record['local_error_um'], 'µm')} from the local optimum")
    if record.get("ncc") is not None:
        parts.append(f"haematoxylin correlation {record['ncc']:.2f}")
    lines.append("; ".join(parts))
    scale = f"scale {record['scale']:.3f}"
    turned = f"rotated by {number(record['angle_deg'], '°')}"
    over = ", flipped" if record["mirrored"] else ""
    lines.append(f"{turned}, {scale}{over}; confidence {confidence_word(record['confidence'])}")
    error = record.get("landmark_error_um")
    if error:
        enough = "accurate" if error["median"] < TILE_CLAIM_UM else "not accurate"
        lines.append(
            f"landmark error: median {number(error['median'], 'µm')}, maximum "
            f"{number(error['maximum'], 'µm')} (n = {error['n']}); {enough} enough for single tiles"
        )
    return lines
