"""The tissue of one specimen slice: outline, cavity, necrosis, nests, stroma and antigen.

All are smooth fields in the coordinate space of the specimen, which is that of the CD34 section.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.catalogue import REFERENCE, STAINS
from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.phantom.fields import (
    interpolate,
    random_field,
    sigmoid,
    star_radius,
)
from napari_mosaik.phantom.presets import CasePlan, CohortSize, random_generator

__all__ = ["COARSE_UM", "FINE_UM", "Anatomy", "PlantedRegion", "build_anatomy"]

Field = NDArray[np.float32]

COARSE_UM = 16.0
FINE_UM = 4.0
NEST_PITCH_UM = 250.0
MARGIN_UM = 90.0


@dataclass(frozen=True, slots=True)
class PlantedRegion:
    """A region of increased ("hot") or decreased ("cold") vessel density and antigen."""

    kind: str
    centre_um: tuple[float, float]
    radius_um: float


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """Fields of one specimen slice; coarse ones on 16 µm samples, `nest` on 4 µm samples.

    Attributes
    ----------
    tissue, outline
        Signed distance to the tissue's edge with and without the cavity, µm, positive inside.
    necrosis, blood
        Fraction of necrosis and of haemorrhage, 0 to 1.
    thickness
        Relative thickness of the section.
    vascular
        Latent field of the vessels, zero mean.
    caix_level, caix_fraction, atypia
        Antigen per positive cell (0 to 1), fraction of positive cells, coarseness of chromatin.
    granular
        Fraction of granular, eosinophilic cytoplasm.
    septum
        Half width of the septa between nests, µm.
    nest
        Signed distance to the nearest nest's edge, µm, positive in a nest.
    """

    extent_um: tuple[float, float]
    tissue: Field
    outline: Field
    necrosis: Field
    blood: Field
    thickness: Field
    vascular: Field
    caix_level: Field
    caix_fraction: Field
    atypia: Field
    granular: Field
    septum: Field
    nest: Field
    planted: tuple[PlantedRegion, ...]
    outline_um: FloatArray

    def at(self, name: str, points_um: FloatArray) -> FloatArray:
        """Bilinear values (n,) of one field, in its unit, at positions (n, 2) in µm."""
        spacing = FINE_UM if name == "nest" else COARSE_UM
        return interpolate(getattr(self, name), spacing, points_um)

    def lattice(self, spacing_um: float) -> Lattice:
        """A lattice over the whole specimen."""
        shape = tuple(math.ceil(e / spacing_um - 1e-6) for e in self.extent_um)
        return Lattice(REFERENCE, (shape[0], shape[1]), (spacing_um, spacing_um))

    def sampled(self, name: str, spacing_um: float) -> Field:
        """One field (rows, columns), in its unit, on `lattice(spacing_um)`; spacing in µm."""
        lattice = self.lattice(spacing_um)
        out = np.empty(lattice.shape, np.float32)
        for row, points in enumerate(lattice.centres_um()):
            out[row] = self.at(name, points)
        return out


def build_anatomy(plan: CasePlan, size: CohortSize, seed: int) -> Anatomy:
    """Draw the tissue of one case; a pure function of the plan, the size and the seed."""
    rng = random_generator(seed, plan.name, 1)
    shape = tuple(math.ceil(e / COARSE_UM) for e in size.extent_um)
    grid = (shape[0], shape[1])
    outline, ring = _outline(rng, plan, size.extent_um, grid)
    cavity = _cavity(rng, ring, grid)
    tissue = np.minimum(outline, -cavity)
    necrosis = _necrosis(rng, cavity, outline, grid)
    planted, bump = _planted(rng, outline, grid)
    inside = tissue > 0
    vascular = _standard(random_field(rng, grid, COARSE_UM, 1700.0) + bump, inside)
    own = random_field(rng, grid, COARSE_UM, 2200.0)
    antigen = _standard(0.45 * vascular + 0.85 * own + 0.5 * bump, inside)
    fibrous = _standard(random_field(rng, grid, COARSE_UM, 1250.0), inside)
    septum = _septum(fibrous)
    atypia = 0.75 * antigen + 0.6 * random_field(rng, grid, COARSE_UM, 1500.0)
    near = np.exp(-np.maximum(cavity + 20.0, 0.0) / 70.0) * (cavity > -60)
    blood = near * sigmoid(3.0 * random_field(rng, grid, COARSE_UM, 260.0) - 0.5)
    thickness = 1.0 + 0.05 * random_field(rng, grid, COARSE_UM, 1600.0)
    return Anatomy(
        size.extent_um,
        tissue.astype(np.float32),
        outline.astype(np.float32),
        necrosis,
        blood.astype(np.float32),
        thickness.astype(np.float32),
        vascular.astype(np.float32),
        sigmoid(0.35 + 1.0 * antigen).astype(np.float32),
        sigmoid(0.8 + 1.5 * antigen).astype(np.float32),
        np.clip(0.5 + 0.22 * atypia, 0.05, 1.0).astype(np.float32),
        _granular(rng, grid),
        septum,
        _nests(rng, size.extent_um, septum),
        planted,
        ring,
    )


def _standard(field: NDArray[Any], inside: NDArray[np.bool_]) -> FloatArray:
    """A latent field with zero mean and unit variance over the tissue, so that cases compare."""
    return np.asarray((field - field[inside].mean()) / field[inside].std(), float)


def _polar(grid: tuple[int, int], centre_um: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = (np.arange(grid[0]) + 0.5)[:, None] * COARSE_UM - centre_um[0]
    cols = (np.arange(grid[1]) + 0.5)[None, :] * COARSE_UM - centre_um[1]
    return np.arctan2(cols, rows), np.hypot(rows, cols)


def _outline(
    rng: np.random.Generator, plan: CasePlan, extent_um: tuple[float, float], grid: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Signed distance to an asymmetric outline that stays on every slide, and its polygon."""
    extent = np.asarray(extent_um)
    semi = (0.435 * extent_um[0], 0.475 * extent_um[1])
    waves = [
        (1, 0.05 + 0.02 * rng.random(), rng.uniform(0, 2 * np.pi)),
        (2, 0.03, rng.uniform(0, 2 * np.pi)),
        (3, 0.045 + 0.02 * rng.random(), rng.uniform(0, 2 * np.pi)),
        (5, 0.025, rng.uniform(0, 2 * np.pi)),
        (7, 0.012, rng.uniform(0, 2 * np.pi)),
    ]
    notch = (rng.uniform(0, 2 * np.pi), 0.18, 0.15)
    angle = np.linspace(-np.pi, np.pi, 1440, endpoint=False)
    ray = np.column_stack([np.cos(angle), np.sin(angle)])
    ring = star_radius(angle, semi, waves, notch)[:, None] * ray
    ring, centre = _placed(ring, plan, extent)
    offset = ring - centre
    known = np.hypot(*offset.T)
    theta, radius = _polar(grid, centre)
    edge = np.interp(theta.ravel(), angle, known, period=2 * np.pi).reshape(grid)
    slope = np.gradient(known, angle)
    steep = np.interp(theta.ravel(), angle, slope / known, period=2 * np.pi).reshape(grid)
    rough = 7.0 * random_field(rng, grid, COARSE_UM, 90.0)
    rough += 12.0 * random_field(rng, grid, COARSE_UM, 320.0)
    distance = (edge - radius) / np.sqrt(1.0 + np.minimum(steep**2, 9.0)) + rough
    return np.clip(distance, -600.0, 4000.0), ring


def _placed(ring: FloatArray, plan: CasePlan, extent: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shrink an outline about the slide's centre until it lies within the margin of each slide."""
    centre = extent / 2 - (ring.max(axis=0) + ring.min(axis=0)) / 2
    ring = ring + centre
    margin = min(MARGIN_UM, 0.03 * float(extent.min()))
    for _ in range(60):
        spans = [plan.transform(s, tuple(extent)).inverse().apply(ring) for s in STAINS]
        if all((s > margin).all() and (s < extent - margin).all() for s in spans):
            break
        ring = extent / 2 + 0.985 * (ring - extent / 2)
        centre = extent / 2 + 0.985 * (centre - extent / 2)
    return ring, centre


def _cavity(rng: np.random.Generator, ring: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """Signed distance to the cavity, positive within."""
    middle, reach = ring.mean(axis=0), np.hypot(*(ring - ring.mean(axis=0)).T).min()
    size = float(np.clip(0.17 * reach, 170.0, 900.0))
    size = max(size, min(380.0, 0.25 * reach))
    angle = rng.uniform(0, 2 * np.pi)
    centre = middle + 0.42 * reach * np.array([np.cos(angle), np.sin(angle)])
    waves = [(2, 0.16, rng.uniform(0, 6)), (3, 0.12, rng.uniform(0, 6)), (5, 0.06, 1.0)]
    theta, radius = _polar(grid, centre)
    edge = star_radius(theta, (0.95 * size, 1.25 * size), waves)
    return edge - radius + 6.0 * random_field(rng, grid, COARSE_UM, 90.0)


def _necrosis(
    rng: np.random.Generator, cavity: FloatArray, outline: FloatArray, grid: tuple[int, int]
) -> Field:
    """Share of necrosis: a rim about the cavity and patches away from the edge."""
    wobble = random_field(rng, grid, COARSE_UM, 420.0)
    fine = random_field(rng, grid, COARSE_UM, 90.0)
    rim = 150.0 + 110.0 * wobble + cavity + 14.0 * fine
    patch = random_field(rng, grid, COARSE_UM, 950.0) * 320.0 - 480.0 + 40.0 * wobble + 14.0 * fine
    patch = np.minimum(patch, (outline - 260.0) * 0.7)
    return np.asarray(np.clip(0.5 + np.maximum(rim, patch) / 30.0, 0.0, 1.0), np.float32)


def _planted(
    rng: np.random.Generator, outline: FloatArray, grid: tuple[int, int]
) -> tuple[tuple[PlantedRegion, ...], FloatArray]:
    """Hot and cold regions away from each other, and the field that they add to the latents."""
    area_mm2 = float((outline > 0).sum()) * COARSE_UM**2 / 1e6
    count = max(1, round(area_mm2 / 22.0))
    radius = float(np.clip(430.0 * math.sqrt(area_mm2 / count / 5.0), 260.0, 1050.0))
    inside = np.argwhere(outline > 0.55 * radius)
    chosen: list[PlantedRegion] = []
    bump = np.zeros(grid)
    for index in range(2 * count):
        candidates = (inside[rng.integers(0, len(inside), 60)] + 0.5) * COARSE_UM
        known = np.array([p.centre_um for p in chosen]).reshape(-1, 2)
        apart = np.array([np.hypot(*(known - c).T).min(initial=1e9) for c in candidates])
        centre = candidates[int(np.argmax(apart))]
        kind = "hot" if index % 2 == 0 else "cold"
        chosen.append(PlantedRegion(kind, (float(centre[0]), float(centre[1])), radius))
        _, distance = _polar(grid, centre)
        bump += (1.7 if kind == "hot" else -2.0) * np.exp(-((distance / radius) ** 4))
    return tuple(chosen), bump


def _granular(rng: np.random.Generator, grid: tuple[int, int]) -> Field:
    """Clones of cells with granular instead of clear cytoplasm."""
    broad = random_field(rng, grid, COARSE_UM, 700.0)
    local = random_field(rng, grid, COARSE_UM, 150.0)
    return sigmoid(4.0 * (0.7 * broad + 0.6 * local - 1.0)).astype(np.float32)


def _septum(fibrous: FloatArray) -> Field:
    """Half width of the septa: thin in nested areas, wide in fibrous bands."""
    thin = 9.0 * np.exp(0.35 * np.clip(fibrous, -2.0, 1.5))
    return np.asarray(thin + 75.0 * np.maximum(fibrous - 0.75, 0.0), np.float32)


def _nests(rng: np.random.Generator, extent_um: tuple[float, float], septum: Field) -> Field:
    """Signed distance to the edge of the nests: warped Voronoi cells less half the septum."""
    shape = tuple(math.ceil(e / FINE_UM) for e in extent_um)
    cells = tuple(math.ceil(e / NEST_PITCH_UM) + 8 for e in extent_um)
    seeds = rng.uniform(0.06, 0.94, (cells[0], cells[1], 2))
    grid = septum.shape
    warp = np.stack(
        [18.0 * random_field(rng, grid, COARSE_UM, 110.0) for _ in range(2)], axis=-1
    ).astype(np.float32)
    out = np.empty((shape[0], shape[1]), np.float32)
    _voronoi(out, seeds, warp, septum)
    return out


@compiled_unchecked
def _bilinear(field: Field, row: float, col: float) -> float:
    """Bilinear value at a fractional index; the edge is continued."""
    i, j = math.floor(row), math.floor(col)
    t, u = row - i, col - j
    i0, i1 = min(max(i, 0), field.shape[0] - 1), min(max(i + 1, 0), field.shape[0] - 1)
    j0, j1 = min(max(j, 0), field.shape[1] - 1), min(max(j + 1, 0), field.shape[1] - 1)
    top = field[i0, j0] * (1 - u) + field[i0, j1] * u
    low = field[i1, j0] * (1 - u) + field[i1, j1] * u
    return float(top * (1 - t) + low * t)


@compiled_unchecked
def _bisector(y: float, x: float, seeds: FloatArray) -> float:
    """Distance to the border of the Voronoi cell around (y, x), both in units of the pitch."""
    a, b = math.floor(y), math.floor(x)
    best, second = 1e9, 1e9
    by = bx = sy = sx = 0.0
    for i in range(a - 2, a + 3):
        for j in range(b - 2, b + 3):
            cy, cx = i + seeds[i, j, 0], j + seeds[i, j, 1]
            d = (y - cy) ** 2 + (x - cx) ** 2
            if d < best:
                second, sy, sx = best, by, bx
                best, by, bx = d, cy, cx
            elif d < second:
                second, sy, sx = d, cy, cx
    return (second - best) / (2.0 * math.hypot(sy - by, sx - bx) + 1e-9)


@compiled_unchecked
def _voronoi(out: Field, seeds: FloatArray, warp: Field, septum: Field) -> None:
    """Fill *out* with the signed distance to the nests' edges, µm."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row = (i + 0.5) * FINE_UM / COARSE_UM - 0.5
            col = (j + 0.5) * FINE_UM / COARSE_UM - 0.5
            y = (i + 0.5) * FINE_UM + _bilinear(warp[:, :, 0], row, col)
            x = (j + 0.5) * FINE_UM + _bilinear(warp[:, :, 1], row, col)
            border = _bisector(y / NEST_PITCH_UM + 3.0, x / NEST_PITCH_UM + 3.0, seeds)
            out[i, j] = border * NEST_PITCH_UM - _bilinear(septum, row, col)
