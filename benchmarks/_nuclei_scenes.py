"""Pictures of the phantom's H&E with many kinds of nuclei, and their true labels, for training."""

from __future__ import annotations

import dataclasses
import math

import numba
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_mosaik.core.frame import Transform
from napari_mosaik.phantom.cohort import draw_specimen
from napari_mosaik.phantom.objects import Nuclei
from napari_mosaik.phantom.render import render
from napari_mosaik.phantom.section import HE_EOSIN, HE_HAEMATOXYLIN, mount_section

SPACING_UM = 0.5
MARGIN_PX = 32
# (share, mean radius µm, its spread, least and largest aspect, density, coarseness)
KINDS = (
    (0.25, 2.6, 0.18, 1.0, 1.3, 1.35, 0.10),  # round and dark
    (0.40, 3.7, 0.22, 1.0, 1.7, 0.85, 0.55),  # oval, vesicular
    (0.22, 2.7, 0.25, 1.8, 5.0, 1.15, 0.15),  # spindles
    (0.08, 1.7, 0.20, 1.0, 1.5, 1.50, 0.05),  # small
    (0.05, 6.0, 0.20, 1.0, 1.6, 0.90, 0.80),  # large
)


def place_nuclei(side_um, origin_um, rng):
    """Nuclei at random places of a square, with little overlap."""
    density = rng.uniform(0.001, 0.0065)
    spread = rng.uniform(0.85, 1.2)
    heading, coherent = rng.uniform(0, math.pi), rng.uniform(0.2, 1.5)
    shares = np.array([kind[0] for kind in KINDS]) * rng.dirichlet(np.full(len(KINDS), 1.2))
    rows = []
    for kind in rng.choice(
        len(KINDS), rng.poisson(density * side_um**2 * 1.6), p=shares / shares.sum()
    ):
        _, mean, sd, low, high, dark, coarse = KINDS[kind]
        size = mean * spread * math.exp(sd * rng.standard_normal())
        aspect = rng.uniform(low, high)
        angle = (
            heading + coherent * rng.standard_normal() if aspect > 1.5 else rng.uniform(0, math.pi)
        )
        semi = size * math.sqrt(aspect), size / math.sqrt(aspect)
        place = rng.uniform(0, side_um, 2)
        gap = rng.choice([0.75, 1.0, 1.3])
        for other in rows:
            dy, dx = place[0] - other[0], place[1] - other[1]
            away = math.hypot(dy, dx)
            if away < gap * (_reach(semi, angle, dy, dx) + _reach(other[2:4], other[4], dy, dx)):
                break
        else:
            shade = dark * math.exp(0.22 * rng.standard_normal())
            rows.append([*place, *semi, angle, shade, coarse * rng.uniform(0.3, 1.6)])
    table = np.array(rows or np.zeros((0, 7)), float).reshape(-1, 7)
    n, zero = len(table), np.zeros(len(table))
    along = np.column_stack([np.sin(table[:, 4]), np.cos(table[:, 4])])
    kinds = np.where(rng.random(n) < 0.5, 0, 1).astype(np.uint8)
    return Nuclei(
        table[:, :2] + origin_um,
        table[:, 2:4],
        along,
        kinds,
        table[:, 5],
        table[:, 6],
        zero,
        rng.random(n),
    )


def _reach(semi, angle, dy, dx):
    """Distance from an ellipse's centre to its edge in a direction."""
    norm = math.hypot(dy, dx) + 1e-9
    u = (dy * math.sin(angle) + dx * math.cos(angle)) / norm
    v = (dx * math.sin(angle) - dy * math.cos(angle)) / norm
    return 1 / math.sqrt((u / semi[0]) ** 2 + (v / semi[1]) ** 2)


@numba.njit(cache=True)
def _label(out, best, table, spacing):
    for n in range(table.shape[0]):
        cy, cx, a, b, sy, sx = (
            table[n, 0],
            table[n, 1],
            table[n, 2],
            table[n, 3],
            table[n, 4],
            table[n, 5],
        )
        for i in range(
            max(0, int((cy - a) / spacing) - 1), min(out.shape[0], int((cy + a) / spacing) + 2)
        ):
            for j in range(
                max(0, int((cx - a) / spacing) - 1), min(out.shape[1], int((cx + a) / spacing) + 2)
            ):
                dy, dx = (i + 0.5) * spacing - cy, (j + 0.5) * spacing - cx
                u, v = (dy * sy + dx * sx) / a, (dx * sy - dy * sx) / b
                q = (math.sqrt(u * u + v * v) - 1) * b
                if q < 0 and q < best[i, j]:
                    best[i, j] = q
                    out[i, j] = n + 1


def _stain(stain, rng):
    """Another H&E: turned vectors and other strengths."""
    vectors = np.array([HE_HAEMATOXYLIN, HE_EOSIN]) + rng.normal(0, 0.07, (2, 3))
    vectors = np.clip(vectors, 0.02, 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.array([rng.uniform(0.7, 1.9), rng.uniform(0.5, 1.7)])
    return dataclasses.replace(
        stain, vectors=vectors, strength=strength, white=float(rng.uniform(225, 250))
    )


def smooth(rng, shape, sigma):
    """A random field of unit spread whose patches are about *sigma* pixels wide."""
    field = gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma, mode="wrap")
    return field / field.std()


def _tinged(od, labels, vectors, rng):
    """Basophilic cytoplasm, coarse ground, vacuoles and cracks around the nuclei."""
    shape = labels.shape
    outside = gaussian_filter((labels == 0).astype(np.float32), 0.7)
    blue = np.zeros(shape, np.float32)
    for sigma, amount in ((1.0, 0.12), (2.5, 0.18), (9.0, 0.22)):
        blue += amount * rng.random() * smooth(rng, shape, sigma)
    blue = np.maximum(0, blue + rng.uniform(0, 0.15))
    around = gaussian_filter((labels > 0).astype(np.float32), rng.uniform(2, 6))
    blue += rng.uniform(0, 0.5) * around
    pink = np.maximum(0, 0.35 * rng.random() * smooth(rng, shape, rng.uniform(0.8, 3.0)))
    od = od + (outside * blue)[..., None] * vectors[0] + (outside * pink)[..., None] * vectors[1]
    if rng.random() < 0.6:
        field = smooth(rng, shape, rng.uniform(1.5, 7.0))
        gaps = 1 / (1 + np.exp(-(field - rng.uniform(0.7, 2.0)) * rng.uniform(4, 12)))
        od = od * (1 - outside * gaps)[..., None]
    return od


def _ghosts(od, vectors, rng):
    """Nuclei out of focus that nobody would count: wide and faint."""
    shape = od.shape[:2]
    spots = np.zeros(shape, np.float32)
    n = rng.poisson(4)
    spots[rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)] = rng.uniform(0.2, 1.0, n)
    return od + gaussian_filter(spots, 5.0)[..., None] * 60 * vectors[0] * rng.uniform(0, 0.5)


def _bent(od, labels, rng):
    """Picture and labels bent together, so that nuclei are not ellipses."""
    shape = labels.shape
    where = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for sigma, amount in ((4.0, 0.9), (10.0, 1.8), (30.0, 4.0)):
        amount *= rng.random()
        where += amount * np.stack([smooth(rng, shape, sigma) for _ in range(2)])
    bent = np.stack(
        [map_coordinates(od[..., k], where, order=1, mode="reflect") for k in range(3)], -1
    )
    return bent, map_coordinates(labels, where, order=0, mode="reflect")


class Scenes:
    """Draws scenes from the sections of some phantom cases."""

    def __init__(self, seed, cases=("A2", "B11")):
        self.rng = np.random.default_rng(seed)
        self.specimens = [draw_specimen(case, "tiny", seed) for case in cases]

    def draw(self, side_px):
        """A picture (side, side, 3) and its labels."""
        rng = self.rng
        specimen = self.specimens[rng.integers(len(self.specimens))]
        anatomy, vessels = specimen.anatomy, specimen.vessels
        full = side_px + 2 * MARGIN_PX
        extent = full * SPACING_UM
        while True:
            origin = rng.uniform(0, np.array(anatomy.extent_um) - extent)
            if anatomy.at("tissue", (origin + extent / 2)[None])[0] > -20:
                break
        origin_px = np.round(origin / SPACING_UM).astype(int)
        nuclei = place_nuclei(extent, origin_px * SPACING_UM, rng)
        here = Transform("he", "specimen", np.eye(3))
        section = mount_section(anatomy, vessels, nuclei, here, rng)
        section = dataclasses.replace(section, stain=_stain(section.stain, rng))
        rgb = render(section, tuple(origin_px.tolist()), (full, full), SPACING_UM)
        labels, best = np.zeros((full, full), np.int32), np.zeros((full, full))
        table = np.column_stack(
            [nuclei.centre_um - origin_px * SPACING_UM, nuclei.semi_um, nuclei.along]
        )
        _label(labels, best, table, SPACING_UM)
        labels[(rgb.min(axis=2) > 235)] = 0
        od = -np.log((rgb.astype(np.float32) + 1) / 256)
        vectors = section.stain.vectors.astype(np.float32)
        od = _ghosts(_tinged(od, labels, vectors, rng), vectors, rng)
        od, labels = _bent(od, labels, rng)
        od = gaussian_filter(od, (s := rng.uniform(0.3, 1.0), s, 0))
        picture = 255 * np.exp(-od) + rng.normal(0, rng.uniform(0, 6), od.shape)
        inner = slice(MARGIN_PX, MARGIN_PX + side_px)
        picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        return picture[inner, inner], np.ascontiguousarray(labels[inner, inner])
