"""What the Align page draws and says: checkerboard, voxel grid, resolution, figures in words."""

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
    """Every other square of a moved picture as RGBA on the fixed lattice; clear elsewhere.

    Parameters
    ----------
    moving
        (rows, columns, 3) 8-bit RGB.
    lattice
        Where it is drawn (the fixed frame).
    transform
        From the moving to the fixed frame.
    square_um
        Side of a square.
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
    """The edges of the voxels within a rectangle of their frame, as vectors (n, 2, 2)."""
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
    """A circle as vectors (n, 2, 2)."""
    angles = np.linspace(0, 2 * math.pi, n + 1)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1) * diameter_um / 2
    points = ring + np.asarray(centre_um, float)
    return np.stack([points[:-1], np.diff(points, axis=0)], axis=1)


def confidence_word(value: float | None) -> str:
    """A confidence as a word with its number."""
    if value is None or not math.isfinite(value):
        return "not judged"
    word = "high" if value >= HIGH_CONFIDENCE else "low" if value < LOW_CONFIDENCE else "medium"
    return f"{word} ({value:.2f})"


def alignment_lines(record: Mapping[str, Any]) -> list[str]:
    """The figures of an alignment (its JSON form) in words, the doubtful ones first."""
    lines = [f"⚠ {text}" for text in record.get("warnings", ())]
    parts = [f"overlap of the outlines {percent(record['dice'])}"]
    if record.get("inlier_fraction") is not None:
        parts.append(
            f"{percent(record['inlier_fraction'])} of {record['n_patches']} places inside agree, "
            f"median {number(record['local_error_um'], 'µm')}"
        )
    if record.get("position_error_um") is not None:
        parts.append(f"expected error of the position {number(record['position_error_um'], 'µm')}")
        if record.get("local_error_um") is not None:
            parts.append(
                f"{number(record['local_error_um'], 'µm')} from the most likely position nearby"
            )
    if record.get("ncc") is not None:
        parts.append(f"correlation of the haematoxylin {record['ncc']:.2f}")
    lines.append("; ".join(parts))
    scale = f"scale {record['scale']:.3f}"
    turned = f"turned {number(record['angle_deg'], '°')}"
    over = ", turned over" if record["mirrored"] else ""
    lines.append(f"{turned}, {scale}{over}; confidence {confidence_word(record['confidence'])}")
    error = record.get("landmark_error_um")
    if error:
        enough = "enough" if error["median"] < TILE_CLAIM_UM else "too much"
        lines.append(
            f"landmarks: median {number(error['median'], 'µm')}, greatest "
            f"{number(error['maximum'], 'µm')} of {error['n']}; {enough} for a claim about tiles"
        )
    return lines
