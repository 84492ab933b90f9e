"""A simulated reader who outlines tissue of each class on the H&E slide, with a safe margin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.raster import Raster

__all__ = ["outline_classes", "write_annotations"]

COLOURS: Final = {1: (150, 150, 150), 2: (213, 94, 0), 3: (0, 114, 178)}
WANTED: Final = {1: 13, 2: 18, 3: 17}
LARGEST_UM: Final = {1: 260.0, 2: 110.0, 3: 150.0}
VERTICES: Final = 14


def outline_classes(
    classes: Raster, to_slide: Transform, rng: np.random.Generator
) -> list[tuple[int, FloatArray]]:
    """Polygons (class code, (n, 2) positions in µm of the slide), each within its true class.

    Parameters
    ----------
    classes
        True classes of the specimen.
    to_slide
        The map from the specimen to the slide.
    rng
        Source of the reader's choices.
    """
    spacing = classes.lattice.spacing_um[0]
    extent = np.asarray(classes.lattice.extent_um)
    found: list[tuple[int, FloatArray]] = []
    for code, wanted in WANTED.items():
        room = ndimage.distance_transform_edt(np.pad(classes.values == code, 1))[1:-1, 1:-1]
        room = (room - 1.5) * spacing
        for centre, radius in _spots(room, code, wanted, spacing, rng):
            ring = to_slide.apply(_ring(centre, radius, rng))
            if (ring > 5.0).all() and (ring < extent - 5.0).all():
                found.append((code, ring))
    return found


def _spots(
    room: FloatArray, code: int, wanted: int, spacing: float, rng: np.random.Generator
) -> list[tuple[FloatArray, float]]:
    """Roomy places away from each other."""
    largest = LARGEST_UM[code]
    places = np.argwhere(room > max(8.0, min(0.55 * largest, float(np.quantile(room, 0.9995)))))
    if len(places) == 0:
        return []
    order = rng.permutation(len(places))[:4000]
    chosen: list[tuple[FloatArray, float]] = []
    for place in places[order]:
        radius = min(largest, float(room[tuple(place)]))
        centre = (place + 0.5) * spacing
        if all(np.hypot(*(centre - c)) > radius + r + 20.0 for c, r in chosen):
            chosen.append((centre, radius))
        if len(chosen) == wanted:
            break
    return chosen


def _ring(centre: FloatArray, radius: float, rng: np.random.Generator) -> FloatArray:
    """A hand-drawn loop that stays within a circle."""
    angle = np.sort(
        np.linspace(0, 2 * np.pi, VERTICES, endpoint=False) + rng.uniform(-0.1, 0.1, VERTICES)
    )
    reach = radius * rng.uniform(0.62, 0.95, VERTICES)
    ray = np.column_stack([np.cos(angle), np.sin(angle)])
    return np.asarray(centre + reach[:, None] * ray, float)


def write_annotations(path: Path, shapes: list[tuple[int, FloatArray]], spacing_um: float) -> None:
    """Write the polygons as QuPath GeoJSON, in the slide's finest pixels, x = column."""
    features: list[dict[str, Any]] = []
    for number, (code, ring) in enumerate(shapes):
        pixels: NDArray[np.float64] = np.round(ring[:, ::-1] / spacing_um, 1)
        closed = np.vstack([pixels, pixels[:1]])
        features.append(
            {
                "type": "Feature",
                "id": f"reader-{number + 1:03d}",
                "geometry": {"type": "Polygon", "coordinates": [closed.tolist()]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": CLASS_NAMES[code], "color": list(COLOURS[code])},
                },
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
