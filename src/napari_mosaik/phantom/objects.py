"""Vessels and nuclei of a specimen slice as tables of shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_mosaik.core.frame import FloatArray
from napari_mosaik.phantom.anatomy import COARSE_UM, Anatomy
from napari_mosaik.phantom.fields import random_field

__all__ = [
    "ENDOTHELIAL_NUCLEUS",
    "NEOPLASTIC_NUCLEUS",
    "PYKNOTIC_NUCLEUS",
    "STROMAL_NUCLEUS",
    "Nuclei",
    "VesselTubes",
    "draw_nuclei",
    "draw_vessels",
]

NEOPLASTIC_NUCLEUS, STROMAL_NUCLEUS, PYKNOTIC_NUCLEUS, ENDOTHELIAL_NUCLEUS = 0, 1, 2, 3
POINTS = 7
CELL_PITCH_UM = 21.5
MAX_DENSITY_MM2 = 360.0


@dataclass(frozen=True, slots=True, eq=False)
class VesselTubes:
    """Vessels as bent tubes cut along their length.

    Attributes
    ----------
    line_um
        (n, 7, 2) centre lines, µm.
    lumen_um, wall_um
        (n,) lumen radius and thickness of the wall, µm.
    perfused
        (n,) mask of perfused vessels.
    """

    line_um: FloatArray
    lumen_um: FloatArray
    wall_um: FloatArray
    perfused: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lumen_um)

    @property
    def length_um(self) -> FloatArray:
        """Length (n,) of the centre lines, µm."""
        steps = np.hypot(*np.moveaxis(np.diff(self.line_um, axis=1), -1, 0))
        return np.asarray(steps.sum(axis=1), float)

    @property
    def centre_um(self) -> FloatArray:
        """Middle (n, 2) of the centre lines, µm."""
        return np.asarray(self.line_um[:, POINTS // 2], float)

    @property
    def outer_um(self) -> FloatArray:
        """Outer radius (n,), µm."""
        return self.lumen_um + self.wall_um

    @property
    def perimeter_um(self) -> FloatArray:
        """Outer perimeter (n,) of the filled vessels (stadiums), µm."""
        return 2 * self.length_um + 2 * np.pi * self.outer_um

    @property
    def area_um2(self) -> FloatArray:
        """Area (n,) of the filled vessels (stadiums), µm²."""
        return 2 * self.outer_um * self.length_um + np.pi * self.outer_um**2


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """Nuclei of one section.

    Attributes
    ----------
    centre_um
        (n, 2) positions in the specimen, µm.
    semi_um
        (n, 2) long and short half axes, µm.
    along
        (n, 2) unit vector of the long axis.
    kind
        (n,) codes: NEOPLASTIC_NUCLEUS, STROMAL_NUCLEUS, PYKNOTIC_NUCLEUS or ENDOTHELIAL_NUCLEUS.
    density
        (n,) relative amount of haematoxylin.
    coarseness
        (n,) contrast of the chromatin.
    membrane_od
        (n,) natural optical density of DAB on the cell's membrane.
    granularity
        (n,) fraction of granular, eosinophilic cytoplasm.
    """

    centre_um: FloatArray
    semi_um: FloatArray
    along: FloatArray
    kind: NDArray[np.uint8]
    density: FloatArray
    coarseness: FloatArray
    membrane_od: FloatArray
    granularity: FloatArray

    def __len__(self) -> int:
        return len(self.kind)


def _gradient(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """Gradient of the nest distance, (n, 2), by central differences."""
    parts = []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = 4.0
        parts.append(anatomy.at("nest", points + step) - anatomy.at("nest", points - step))
    return np.stack(parts, axis=1) / 8.0


def _to_septum(anatomy: Anatomy, points: FloatArray, share: float) -> FloatArray:
    """Move points a fraction of the way to the nearest septum (those in wide stroma stay)."""
    aim = np.minimum(anatomy.at("septum", points), 11.0)
    excess = np.maximum(anatomy.at("nest", points) + aim, 0.0)
    slope = _gradient(anatomy, points)
    norm2 = np.maximum((slope**2).sum(axis=1), 0.25)
    return np.asarray(points - share * (excess / norm2)[:, None] * slope, float)


def draw_vessels(anatomy: Anatomy, rng: np.random.Generator) -> VesselTubes:
    """Draw the vessels of a slice: dense where the vascular field is high, along the septa."""
    extent = np.asarray(anatomy.extent_um)
    n = rng.poisson(MAX_DENSITY_MM2 * float(extent.prod()) / 1e6)
    points = rng.random((n, 2)) * extent
    latent = anatomy.at("vascular", points)
    density = np.clip(125.0 * np.exp(0.68 * latent), 10.0, MAX_DENSITY_MM2)
    alive = 1.0 - 0.93 * anatomy.at("necrosis", points)
    keep = (rng.random(n) * MAX_DENSITY_MM2 < density * alive) & (anatomy.at("tissue", points) > 70)
    points, latent = points[keep], latent[keep]
    for _ in range(4):
        points = _to_septum(anatomy, points, 0.8)
    n = len(points)
    calibre = random_field(rng, anatomy.tissue.shape, COARSE_UM, 1400.0)
    own = np.asarray(
        calibre[tuple((points / COARSE_UM).astype(int).clip(0, np.array(calibre.shape) - 1).T)]
    )
    lumen = 5.6 * np.exp(0.20 * latent + 0.12 * own + 0.30 * rng.standard_normal(n))
    lumen = np.clip(lumen, 2.6, 24.0)
    wall = np.clip(2.3 + 0.07 * lumen + 0.35 * rng.standard_normal(n), 1.8, 5.0)
    length = np.where(rng.random(n) < 0.4, 0.6 * lumen, 34.0 * np.exp(0.6 * rng.standard_normal(n)))
    line = _traced(anatomy, points, np.clip(length, 0.5, 150.0), rng)
    inside = (anatomy.at("tissue", line.reshape(-1, 2)).reshape(n, POINTS) > 30.0).all(axis=1)
    line, lumen, wall = line[inside], lumen[inside], wall[inside]
    apart = _apart(line, lumen + wall)
    line, lumen, wall = line[apart], lumen[apart], wall[apart]
    flow = random_field(rng, anatomy.tissue.shape, COARSE_UM, 520.0)
    index = (line[:, POINTS // 2] / COARSE_UM).astype(int).clip(0, np.array(flow.shape) - 1)
    perfused = 0.9 * flow[tuple(index.T)] + 0.45 * rng.standard_normal(len(line)) > -0.72
    return VesselTubes(line, lumen, wall, perfused)


def _traced(
    anatomy: Anatomy, middle: FloatArray, length: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Centre lines (n, 7, 2) that follow the septa to both sides of their middle."""
    slope = _gradient(anatomy, middle)
    angle = np.arctan2(slope[:, 0], -slope[:, 1]) + 0.15 * rng.standard_normal(len(middle))
    start = np.column_stack([np.sin(angle), np.cos(angle)])
    line = np.empty((len(middle), POINTS, 2))
    line[:, POINTS // 2] = middle
    step = (length / (POINTS - 1))[:, None]
    for sign in (1, -1):
        point, heading = middle, sign * start
        for k in range(1, POINTS // 2 + 1):
            heading = _turned(heading, _gradient(anatomy, point), rng)
            moved = point + step * heading
            pull = _to_septum(anatomy, moved, 0.5) - moved
            limit = np.minimum(1.0, 0.5 * step / np.maximum(np.hypot(*pull.T)[:, None], 1e-9))
            point = moved + limit * pull
            line[:, POINTS // 2 + sign * k] = point
    return line


def _turned(heading: FloatArray, slope: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A heading turned towards the direction along the septum."""
    tangent = np.column_stack([-slope[:, 1], slope[:, 0]])
    tangent *= np.sign((tangent * heading).sum(axis=1, keepdims=True))
    turned = 0.7 * heading + 0.4 * tangent + 0.12 * rng.standard_normal(heading.shape)
    return np.asarray(turned / np.maximum(np.hypot(*turned.T)[:, None], 1e-9), float)


def _apart(line: FloatArray, outer: FloatArray) -> NDArray[np.bool_]:
    """Mask (n,) of vessels that remain: of two that would touch, the later one is removed."""
    points = line.reshape(-1, 2)
    owner = np.repeat(np.arange(len(line)), POINTS)
    if len(points) == 0:
        return np.zeros(0, bool)
    pairs = cKDTree(points).query_pairs(2 * float(outer.max()) + 10.0, output_type="ndarray")
    gap = np.hypot(*(points[pairs[:, 0]] - points[pairs[:, 1]]).T)
    first, second = owner[pairs[:, 0]], owner[pairs[:, 1]]
    reach = outer[first] + outer[second] + 8.0
    pairs = np.unique(
        np.sort(np.column_stack([first, second]), axis=1)[(gap < reach) & (first != second)], axis=0
    )
    keep = np.ones(len(line), bool)
    for a, b in pairs.tolist():
        if keep[a] and keep[b]:
            keep[b] = False
    return keep


def _candidates(anatomy: Anatomy, rng: np.random.Generator) -> FloatArray:
    """Positions of possible nuclei: a jittered hexagonal lattice over the tissue."""
    height, width = anatomy.extent_um
    rise = CELL_PITCH_UM * math.sqrt(3) / 2
    rows, cols = math.ceil(height / rise), math.ceil(width / CELL_PITCH_UM)
    r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    grid = np.stack([(r + 0.5) * rise, (c + 0.5 + 0.5 * (r % 2)) * CELL_PITCH_UM], axis=-1)
    points = grid.reshape(-1, 2) + rng.normal(0.0, 0.15 * CELL_PITCH_UM, (rows * cols, 2))
    return np.asarray(points[anatomy.at("tissue", points) > 6.0], float)


def _distance_to_vessels(vessels: VesselTubes, points: FloatArray) -> FloatArray:
    """Distance to the outside of the nearest vessels' walls, µm (negative within)."""
    if len(vessels) == 0:
        return np.full(len(points), np.inf)
    between = 0.5 * (vessels.line_um[:, 1:] + vessels.line_um[:, :-1])
    knots = np.concatenate([vessels.line_um, between], axis=1)
    outer = np.repeat(vessels.outer_um, knots.shape[1])
    near, index = cKDTree(knots.reshape(-1, 2)).query(points, k=4)
    return np.asarray((near - outer[index]).min(axis=1), float)


def draw_nuclei(anatomy: Anatomy, vessels: VesselTubes, rng: np.random.Generator) -> Nuclei:
    """Draw the nuclei of one section (neighbouring sections cut other cells)."""
    points = _candidates(anatomy, rng)
    nest, necrosis = anatomy.at("nest", points), anatomy.at("necrosis", points)
    free = _distance_to_vessels(vessels, points)
    chance = rng.random(len(points))
    kind = np.full(len(points), 255, np.uint8)
    kind[(nest < 0) & (chance < 0.80)] = STROMAL_NUCLEUS
    kind[(nest > 4.5) & (chance < 0.97)] = NEOPLASTIC_NUCLEUS
    kind[(necrosis > 0.5) & (chance < 0.30)] = PYKNOTIC_NUCLEUS
    kind[(necrosis > 0.5) & (chance >= 0.30)] = 255
    kind[free < np.where(kind == NEOPLASTIC_NUCLEUS, 5.0, 2.5)] = 255
    keep = kind != 255
    points, kind = points[keep], kind[keep]
    nuclei = _shaped(anatomy, points, kind, rng)
    lining = _endothelial(vessels, rng)
    parts = zip(_columns(nuclei), _columns(lining), strict=True)
    return Nuclei(*(np.concatenate(pair) for pair in parts))


def _columns(nuclei: Nuclei) -> tuple[NDArray[np.generic], ...]:
    n = nuclei
    return (
        n.centre_um,
        n.semi_um,
        n.along,
        n.kind,
        n.density,
        n.coarseness,
        n.membrane_od,
        n.granularity,
    )


def _shaped(
    anatomy: Anatomy, points: FloatArray, kind: NDArray[np.uint8], rng: np.random.Generator
) -> Nuclei:
    n = len(points)
    slope = _gradient(anatomy, points)
    along_septum = np.arctan2(slope[:, 0], -slope[:, 1]) + 0.35 * rng.standard_normal(n)
    spindle = (kind == STROMAL_NUCLEUS) & (rng.random(n) < 0.85)
    angle = np.where(spindle, along_septum, rng.uniform(0, np.pi, n))
    size = np.where(kind == NEOPLASTIC_NUCLEUS, 4.3, np.where(kind == PYKNOTIC_NUCLEUS, 2.0, 2.9))
    size = size * np.exp(0.09 * rng.standard_normal(n))
    aspect = np.where(spindle, rng.uniform(1.7, 2.6, n), rng.uniform(1.0, 1.2, n))
    semi = np.column_stack([size * np.sqrt(aspect), size / np.sqrt(aspect)])
    density = np.choose(kind, [1.0, 1.15, 1.5, 1.1]) * np.exp(0.10 * rng.standard_normal(n))
    atypia = anatomy.at("atypia", points)
    coarseness = np.where(kind == NEOPLASTIC_NUCLEUS, 0.15 + 0.75 * atypia, 0.06)
    along = np.column_stack([np.sin(angle), np.cos(angle)])
    membrane = _membrane(anatomy, points, kind, rng)
    granularity = np.clip(anatomy.at("granular", points) + 0.15 * rng.standard_normal(n), 0.0, 1.0)
    return Nuclei(points, semi, along, kind, density, coarseness, membrane, granularity)


def _membrane(
    anatomy: Anatomy, points: FloatArray, kind: NDArray[np.uint8], rng: np.random.Generator
) -> FloatArray:
    """Natural optical density of DAB on each cell's membrane: 0 or about 0.7, 1.2, 1.9."""
    positive = rng.random(len(points)) < anatomy.at("caix_fraction", points)
    level = anatomy.at("caix_level", points) + 0.16 * rng.standard_normal(len(points))
    grade = 1 + (level > 0.45).astype(int) + (level > 0.68).astype(int)
    density = np.array([0.0, 0.72, 1.25, 1.95])[grade]
    density = density * np.exp(0.07 * rng.standard_normal(len(points)))
    return np.asarray(np.where(positive & (kind == NEOPLASTIC_NUCLEUS), density, 0.0), float)


def _endothelial(vessels: VesselTubes, rng: np.random.Generator) -> Nuclei:
    """Flat nuclei within the walls of the vessels."""
    count = np.clip((vessels.perimeter_um / 45.0).astype(int), 0, 4)
    owner = np.repeat(np.arange(len(vessels)), count)
    n = len(owner)
    k = rng.integers(0, POINTS - 1, n)
    a, b = vessels.line_um[owner, k], vessels.line_um[owner, k + 1]
    along = b - a
    norm = np.hypot(*along.T)[:, None]
    turn = rng.uniform(0, 2 * np.pi, n)
    free = np.column_stack([np.cos(turn), np.sin(turn)])
    along = np.where(norm > 1.5, along / np.maximum(norm, 1e-9), free)
    side = np.column_stack([-along[:, 1], along[:, 0]]) * rng.choice([-1.0, 1.0], n)[:, None]
    middle = a + (b - a) * rng.random((n, 1))
    radius = vessels.lumen_um[owner] + 0.5 * vessels.wall_um[owner]
    centre = middle + side * radius[:, None]
    semi = np.column_stack(
        [rng.uniform(3.4, 5.0, n), np.maximum(1.3, 0.48 * vessels.wall_um[owner])]
    )
    one = np.ones(n)
    kind = np.full(n, ENDOTHELIAL_NUCLEUS, np.uint8)
    return Nuclei(centre, semi, along, kind, 1.1 * one, 0.06 * one, 0.0 * one, 0.0 * one)
