"""The ground truth of a sample case, and a simulated reader who annotates it.

Masks, object tables and tile values for tests; no step ever reads them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.anatomy import Anatomy
from napari_mosaik.phantom.objects import Nuclei, VesselTubes
from napari_mosaik.phantom.render import TILE, shown_tile

__all__ = [
    "class_map",
    "grouped_classes",
    "nucleus_table",
    "simulate_annotations",
    "tile_table",
    "vessel_map",
    "vessel_table",
    "write_annotations",
    "write_table",
]

MASK_UM = 8.0
TILE_UM, STRIDE_UM, MIN_COVERAGE = 400.0, 300.0, 0.5
COLOURS: Final = {1: (150, 150, 150), 2: (213, 94, 0), 3: (0, 114, 178)}
SHAPE_COUNTS: Final = {1: 13, 2: 18, 3: 17}
LARGEST_UM: Final = {1: 260.0, 2: 110.0, 3: 150.0}
VERTICES: Final = 14
MOSTLY: Final = 0.8
"""A tile of so much of one class can be annotated as that class."""


@compiled_unchecked
def _draw_tubes(
    out: NDArray[np.float32], line: FloatArray, outer: FloatArray, spacing: float
) -> None:
    """Write the fraction of each sample that a vessel covers; edges are one sample wide."""
    for n in range(line.shape[0]):
        for k in range(line.shape[1] - 1):
            y0, x0 = line[n, k, 0], line[n, k, 1]
            dy, dx = line[n, k + 1, 0] - y0, line[n, k + 1, 1] - x0
            reach = outer[n] + spacing
            i0 = max(0, int((min(y0, y0 + dy) - reach) / spacing))
            i1 = min(out.shape[0] - 1, int((max(y0, y0 + dy) + reach) / spacing))
            j0 = max(0, int((min(x0, x0 + dx) - reach) / spacing))
            j1 = min(out.shape[1] - 1, int((max(x0, x0 + dx) + reach) / spacing))
            for i in range(i0, i1 + 1):
                for j in range(j0, j1 + 1):
                    py, px = (i + 0.5) * spacing - y0, (j + 0.5) * spacing - x0
                    t = (py * dy + px * dx) / (dy * dy + dx * dx + 1e-6)
                    t = min(max(t, 0.0), 1.0)
                    away = math.sqrt((py - t * dy) ** 2 + (px - t * dx) ** 2)
                    cover = min(max(0.5 + (outer[n] - away) / spacing, 0.0), 1.0)
                    out[i, j] = max(out[i, j], np.float32(cover))


def vessel_map(anatomy: Anatomy, vessels: VesselTubes, spacing_um: float = MASK_UM) -> Raster:
    """Covered fraction of each sample (rows, columns) by filled vessels."""
    lattice = anatomy.lattice(spacing_um)
    out = np.zeros(lattice.shape, np.float32)
    _draw_tubes(out, vessels.line_um, vessels.outer_um, spacing_um)
    return Raster(out, lattice)


def class_map(anatomy: Anatomy, vessels: Raster) -> Raster:
    """Class labels (rows, columns): 1 background, 2 neoplastic, 3 non-neoplastic.

    Stroma, necrosis, haemorrhage and vessels are non-neoplastic; the cavity is background.
    """
    spacing = vessels.lattice.spacing_um[0]
    tissue = anatomy.sampled("tissue", spacing) > 0
    nests = (anatomy.sampled("nest", spacing) > 0) & (anatomy.sampled("necrosis", spacing) < 0.5)
    nests &= vessels.values < 0.5
    classes = np.where(tissue, np.where(nests, 2, 3), 1).astype(np.uint8)
    return Raster(classes, vessels.lattice)


def grouped_classes(classes: Raster, to_slide: Transform, spacing_um: float, group: int) -> Raster:
    """The class labels (rows, columns) that a slide of grouped tiles shows, 0 where they are mixed.

    Parameters
    ----------
    classes
        True class labels (rows, columns) of the specimen.
    to_slide
        The transform from the specimen to the slide.
    spacing_um
        Pixel size of the slide, µm.
    group
        Tiles a side that show the one in their middle.
    """
    tile, step = TILE * spacing_um, classes.lattice.spacing_um[0]
    lattice = Lattice(to_slide.target, classes.lattice.shape, classes.lattice.spacing_um)
    centres = [(np.arange(n) + 0.5) * step for n in lattice.shape]
    places = [(centre / (tile * group)).astype(int) for centre in centres]
    within = np.arange(step / 2, tile, step)
    groups = [range(place[-1] + 1) for place in places]
    starts = [np.array([shown_tile(one, group) for one in side]) * tile for side in groups]
    rows, cols = [(start[:, None] + within).ravel() for start in starts]
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    labels = classes.at(to_slide.inverse().apply(points), outside=1)
    labels = labels.reshape(len(starts[0]), len(within), len(starts[1]), len(within))
    chosen = np.zeros((len(starts[0]), len(starts[1])), np.uint8)
    for code in SHAPE_COUNTS:
        chosen[(labels == code).mean(axis=(1, 3)) >= MOSTLY] = code
    return Raster(chosen[np.ix_(*places)], lattice)


def _rounded(values: FloatArray, digits: int = 2) -> NDArray[np.float32]:
    return np.round(values, digits).astype(np.float32)


def vessel_table(vessels: VesselTubes, to_slide: Transform) -> dict[str, NDArray[Any]]:
    """Columns (n,), one row per vessel: positions in µm of the slide, sizes of the specimen."""
    centre = to_slide.apply(vessels.centre_um)
    return {
        "row_um": _rounded(centre[:, 0]),
        "col_um": _rounded(centre[:, 1]),
        "lumen_radius_um": _rounded(vessels.lumen_um, 3),
        "wall_um": _rounded(vessels.wall_um, 3),
        "length_um": _rounded(vessels.length_um),
        "area_um2": _rounded(vessels.area_um2),
        "perimeter_um": _rounded(vessels.perimeter_um),
        "equivalent_diameter_um": _rounded(2 * np.sqrt(vessels.area_um2 / np.pi)),
        "perfused": vessels.perfused,
    }


def nucleus_table(nuclei: Nuclei, to_slide: Transform) -> dict[str, NDArray[Any]]:
    """Columns (n,), one row per nucleus: positions in µm of the slide, sizes of the specimen."""
    centre = to_slide.apply(nuclei.centre_um)
    return {
        "row_um": _rounded(centre[:, 0]),
        "col_um": _rounded(centre[:, 1]),
        "long_um": _rounded(nuclei.semi_um[:, 0]),
        "short_um": _rounded(nuclei.semi_um[:, 1]),
        "kind": nuclei.kind,
        "coarseness": _rounded(nuclei.coarseness, 3),
        "membrane_od": _rounded(nuclei.membrane_od, 3),
    }


def write_table(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write columns (n,) of any unit as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(dict(columns)), path, compression="zstd")


def _box_mean(values: FloatArray, lattice: Lattice, low: FloatArray, size_um: float) -> FloatArray:
    """Mean of a raster over squares from *low* (n, 2); area-weighted at the edges."""
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    total[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)

    def upto(points: FloatArray) -> FloatArray:
        index = points / np.asarray(lattice.spacing_um) - np.asarray(lattice.origin_um)
        index = np.clip(index, 0, np.asarray(values.shape))
        i = np.minimum(index.astype(int), np.asarray(values.shape) - 1)
        t = index - i
        top = total[i[:, 0], i[:, 1]] * (1 - t[:, 1]) + total[i[:, 0], i[:, 1] + 1] * t[:, 1]
        low_ = total[i[:, 0] + 1, i[:, 1]] * (1 - t[:, 1])
        low_ = low_ + total[i[:, 0] + 1, i[:, 1] + 1] * t[:, 1]
        return np.asarray(top * (1 - t[:, 0]) + low_ * t[:, 0], float)

    down, right = np.array([size_um, 0.0]), np.array([0.0, size_um])
    area = upto(low + down + right) - upto(low + down) - upto(low + right) + upto(low)
    return area / (size_um**2 / lattice.sample_area_um2)


def tile_table(
    anatomy: Anatomy,
    vessels: VesselTubes,
    nuclei: Nuclei,
    classes: Raster,
    uptake: Raster,
    pet: Raster,
    pet_to_cd34: Transform,
) -> dict[str, NDArray[Any]]:
    """True values (n,) of tiles of 400 µm on a lattice of 300 µm over the tissue.

    The measured uptake (``pet_bq_ml``) is the mean of the PET over the tile, sampled at 8 x 8
    points; the true one is the mean of the uptake before blurring.
    """
    steps = [np.arange(0.0, e - TILE_UM + 1e-6, STRIDE_UM) for e in anatomy.extent_um]
    low = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
    lattice = classes.lattice
    cover = _box_mean((classes.values > 1).astype(float), lattice, low, TILE_UM)
    low, cover = low[cover >= MIN_COVERAGE], cover[cover >= MIN_COVERAGE]
    centre = low + TILE_UM / 2
    area_mm2 = cover * TILE_UM**2 / 1e6
    near = _members(low, vessels.centre_um)
    diameter = 2 * np.sqrt(vessels.area_um2 / np.pi)
    tumour = nuclei.kind == 0
    cells = _members(low, nuclei.centre_um[tumour])
    grade = np.digitize(nuclei.membrane_od[tumour], [0.4605, 0.9210, 1.3816])
    coarse = nuclei.coarseness[tumour]
    offsets = (np.stack(np.meshgrid(*[np.arange(8) + 0.5] * 2, indexing="ij"), -1)).reshape(-1, 2)
    points = (low[:, None] + offsets * TILE_UM / 8).reshape(-1, 2)
    pet_mean = pet.at(pet_to_cd34.inverse().apply(points)).reshape(len(low), -1).mean(axis=1)
    return {
        "row_um": centre[:, 0],
        "col_um": centre[:, 1],
        "coverage": cover,
        "vessel_count": np.array([len(m) for m in near]),
        "vessel_density_mm2": np.array([len(m) for m in near]) / area_mm2,
        "vessel_perimeter_um": np.array([vessels.perimeter_um[m].sum() for m in near]),
        "vessel_diameter_um": np.array([diameter[m].mean() if len(m) else np.nan for m in near]),
        "neoplastic_fraction": _box_mean((classes.values == 2).astype(float), lattice, low, TILE_UM)
        / cover,
        "h_score": np.array([100.0 * grade[m].mean() if len(m) else np.nan for m in cells]),
        "coarseness": np.array([coarse[m].mean() if len(m) else np.nan for m in cells]),
        "true_uptake_g_ml": _box_mean(uptake.values, uptake.lattice, low, TILE_UM),
        "pet_bq_ml": pet_mean,
    }


def _members(low: FloatArray, points: FloatArray) -> list[NDArray[np.int64]]:
    """Indices of the points in each square."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points.reshape(-1, 2))
    members = tree.query_ball_point(low + TILE_UM / 2, TILE_UM / 2, p=np.inf, return_sorted=True)
    return [np.asarray(m, np.int64) for m in members]


def simulate_annotations(
    classes: Raster, to_slide: Transform, rng: np.random.Generator
) -> list[tuple[int, FloatArray]]:
    """Polygons (class code, (n, 2) positions in µm of the slide), each within its true class.

    Parameters
    ----------
    classes
        True class labels (rows, columns) of the specimen.
    to_slide
        The transform from the specimen to the slide.
    rng
        Random generator.
    """
    spacing = classes.lattice.spacing_um[0]
    extent = np.asarray(classes.lattice.extent_um)
    shapes: list[tuple[int, FloatArray]] = []
    for code, count in SHAPE_COUNTS.items():
        room = ndimage.distance_transform_edt(np.pad(classes.values == code, 1))[1:-1, 1:-1]
        room = (room - 1.5) * spacing
        for centre, radius in _spots(room, code, count, spacing, rng):
            ring = to_slide.apply(_ring(centre, radius, rng))
            if (ring > 5.0).all() and (ring < extent - 5.0).all():
                shapes.append((code, ring))
    return shapes


def _spots(
    room: FloatArray, code: int, count: int, spacing: float, rng: np.random.Generator
) -> list[tuple[FloatArray, float]]:
    """Positions with enough room, apart from one another."""
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
        if len(chosen) == count:
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
    """Write polygons (n, 2) in µm as QuPath GeoJSON in level-0 pixels, x = column."""
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
