"""Amount of each stain at a point of tissue, from the structures there."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.frame import FloatArray

Floats = NDArray[np.float32]
Here = tuple[float, float, float, float, float, float]
Cells = tuple[float, float, float, float]
Nucleus = tuple[float, float, float, float]

__all__ = [
    "bilinear",
    "cell_of",
    "folded",
    "four",
    "hashed",
    "nucleus_of",
    "plain",
    "ramp",
    "stain_amounts",
    "stroke",
    "with_cell",
    "with_nucleus",
]

_BITS: Final = 31
_CELL: Final = 2**31 - 1


@compiled_unchecked
def cell_of(owner: int) -> int:
    """Index of the nearest neoplastic cell, -1 for none."""
    return (owner & _CELL) - 1


@compiled_unchecked
def nucleus_of(owner: int) -> int:
    """Index of the nucleus, -1 for none."""
    return (owner >> _BITS) - 1


@compiled_unchecked
def with_cell(owner: int, index: int) -> int:
    """The pixel's owner with another cell."""
    return (owner >> _BITS << _BITS) | (index + 1)


@compiled_unchecked
def with_nucleus(owner: int, index: int) -> int:
    """The pixel's owner with another nucleus."""
    return (owner & _CELL) | ((index + 1) << _BITS)


@compiled_unchecked
def hashed(row: int, col: int, seed: int) -> float:
    """A number in [0, 1) that depends only on a position and a seed."""
    h = (row * 0x9E3779B1 + col * 0x85EBCA77 + seed * 0x27D4EB2F) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return float(h ^ (h >> 15)) * (1.0 / 4294967296.0)


@compiled_unchecked
def bilinear(field: Floats, channel: int, row: float, col: float) -> float:
    """Bilinear value of one channel of a field (rows, columns, n), dimensionless or µm."""
    last_i, last_j = field.shape[0] - 1, field.shape[1] - 1
    row, col = min(max(row, 0.0), float(last_i)), min(max(col, 0.0), float(last_j))
    i, j = min(int(row), last_i - 1), min(int(col), last_j - 1)
    t, u = row - i, col - j
    top = field[i, j, channel] * (1 - u) + field[i, j + 1, channel] * u
    low = field[i + 1, j, channel] * (1 - u) + field[i + 1, j + 1, channel] * u
    return float(top * (1 - t) + low * t)


@compiled_unchecked
def four(field: Floats, row: float, col: float) -> tuple[float, float, float, float]:
    """Bilinear values of the channels of a field (rows, columns, 4), dimensionless or µm."""
    last_i, last_j = field.shape[0] - 1, field.shape[1] - 1
    row, col = min(max(row, 0.0), float(last_i)), min(max(col, 0.0), float(last_j))
    i, j = min(int(row), last_i - 1), min(int(col), last_j - 1)
    t, u = row - i, col - j
    w = ((1 - t) * (1 - u), (1 - t) * u, t * (1 - u), t * u)
    return (
        _mixed(field, i, j, 0, w),
        _mixed(field, i, j, 1, w),
        _mixed(field, i, j, 2, w),
        _mixed(field, i, j, 3, w),
    )


@compiled_unchecked
def _mixed(field: Floats, i: int, j: int, k: int, w: tuple[float, float, float, float]) -> float:
    top = w[0] * field[i, j, k] + w[1] * field[i, j + 1, k]
    return float(top + w[2] * field[i + 1, j, k] + w[3] * field[i + 1, j + 1, k])


@compiled_unchecked
def plain(field: Floats, row: float, col: float) -> float:
    """Bilinear value of a field (rows, columns), µm; edges extend."""
    last_i, last_j = field.shape[0] - 1, field.shape[1] - 1
    row, col = min(max(row, 0.0), float(last_i)), min(max(col, 0.0), float(last_j))
    i, j = min(int(row), last_i - 1), min(int(col), last_j - 1)
    t, u = row - i, col - j
    top = field[i, j] * (1 - u) + field[i, j + 1] * u
    low = field[i + 1, j] * (1 - u) + field[i + 1, j + 1] * u
    return float(top * (1 - t) + low * t)


@compiled_unchecked
def ramp(x: float, soft: float) -> float:
    """0 below ``-soft``, 1 above ``soft``, a straight line between."""
    return min(max(0.5 + 0.5 * x / soft, 0.0), 1.0)


@compiled_unchecked
def grain(y: float, x: float, size: float, seed: int) -> float:
    """Smooth noise in [0, 1] with grains of *size* µm."""
    a, b = y / size, x / size
    i, j = math.floor(a), math.floor(b)
    t, u = a - i, b - j
    t, u = t * t * (3 - 2 * t), u * u * (3 - 2 * u)
    top = hashed(i, j, seed) * (1 - u) + hashed(i, j + 1, seed) * u
    low = hashed(i + 1, j, seed) * (1 - u) + hashed(i + 1, j + 1, seed) * u
    return top * (1 - t) + low * t


@compiled_unchecked
def folded(y: float, x: float, fold: FloatArray) -> float:
    """Number of tissue layers (count) at a point in µm; above 1 in a fold (6,)."""
    if fold[4] <= 0:
        return 1.0
    dy, dx = y - fold[0], x - fold[1]
    along = dy * fold[2] + dx * fold[3]
    across = dx * fold[2] - dy * fold[3] + 30.0 * math.sin(along / 190.0)
    share = 1.0 - (along / fold[5]) ** 2
    return 1.0 + 0.9 * ramp(share * fold[4] - abs(across), 4.0) if share > 0 else 1.0


@compiled_unchecked
def stroke(y: float, x: float, pen: FloatArray) -> float:
    """Fraction of a point (µm) that the pen strokes (n, 5) cover, 0 to 1."""
    best = 1e9
    for k in range(pen.shape[0]):
        dy, dx = pen[k, 2] - pen[k, 0], pen[k, 3] - pen[k, 1]
        t = ((y - pen[k, 0]) * dy + (x - pen[k, 1]) * dx) / (dy * dy + dx * dx)
        t = min(max(t, 0.0), 1.0)
        best = min(best, math.hypot(y - pen[k, 0] - t * dy, x - pen[k, 1] - t * dx))
    return ramp(pen[0, 4] - best, 8.0)


@compiled_unchecked
def _membrane(cells: Cells, nd: float) -> float:
    """Distance to the border of the own cell: half way to the next cell, or the nest's edge."""
    border = 0.5 * (math.sqrt(cells[1]) - math.sqrt(cells[0])) if cells[1] < 1e8 else 1e3
    return min(border, max(nd, 0.0))


@compiled_unchecked
def _fibres(y: float, x: float, nd: float, seed: int) -> float:
    """Wavy fibres that run along the nests, 0 to 1."""
    bend = 5.0 * grain(y, x, 70.0, seed + 1) + 1.2 * grain(y, x, 14.0, seed + 2)
    return 0.5 + 0.5 * math.sin(nd / 1.7 + 6.2832 * bend)


@compiled_unchecked
def _he_cell(here: Here, cells: Cells, granular: float, seed: int) -> tuple[float, float]:
    """Haematoxylin and eosin of a neoplastic cell: clear or granular cytoplasm, a thin border."""
    y, x, nd = here[0], here[1], here[2]
    web = grain(y, x, 4.2, seed + 4)
    clear = 0.06 + 0.02 + 0.13 * web * web
    e = clear + granular * (0.30 + 0.16 * web - clear)
    edge = ramp(1.15 - _membrane(cells, nd), here[5])
    return 0.035 + 0.05 * web + 0.07 * edge, e + 0.38 * edge


@compiled_unchecked
def _he_ground(here: Here, cells: Cells, granular: float, seed: int) -> tuple[float, float]:
    """Haematoxylin and eosin between the nuclei."""
    y, x, nd, nec, blood = here[0], here[1], here[2], here[3], here[4]
    nest = ramp(nd, 1.2)
    fine = grain(y, x, 2.6, seed + 3) if nest < 1 or nec > 0 else 0.0
    h = e = 0.0
    if nest < 1:
        h, e = 0.10 + 0.06 * fine, 0.36 + 0.28 * _fibres(y, x, nd, seed) + 0.12 * fine
    if nest > 0:
        h_cell, e_cell = _he_cell(here, cells, granular, seed)
        h, e = h + nest * (h_cell - h), e + nest * (e_cell - e)
    if nec > 0:
        debris = _debris(y, x, seed)
        ghost = grain(y, x, 17.0, seed + 6)
        e_nec, h_nec = 0.44 + 0.26 * fine + 0.30 * ghost, 0.09 + 0.55 * debris * ghost
        h, e = h + nec * (h_nec - h), e + nec * (e_nec - e)
    if blood > 0.02:
        cover, disc = min(1.0, 1.6 * blood), _red_cell(y, x, seed)
        h, e = h + cover * (0.08 - h), e + cover * (0.25 + 1.0 * disc - e)
    return h, e


@compiled_unchecked
def _debris(y: float, x: float, seed: int) -> float:
    """Specks of broken nuclei; the noise is turned so that no rows and columns show."""
    return ramp(grain(0.8 * y + 0.6 * x, 0.8 * x - 0.6 * y, 3.1, seed + 5) - 0.80, 0.06)


@compiled_unchecked
def _red_cell(y: float, x: float, seed: int) -> float:
    """Red cells: discs of about 6 µm at jittered places."""
    a, b = y / 6.6, x / 6.6
    i, j = math.floor(a), math.floor(b)
    best = 9.0
    for p in range(i - 1, i + 2):
        for q in range(j - 1, j + 2):
            dy = a - p - 0.25 - 0.5 * hashed(p, q, seed + 21)
            dx = b - q - 0.25 - 0.5 * hashed(p, q, seed + 22)
            best = min(best, dy * dy + dx * dx)
    return ramp(0.45 - math.sqrt(best), 0.07)


@compiled_unchecked
def _chromatin(y: float, x: float, q: float, nucleus: Nucleus, seed: int) -> float:
    """Relative density within a nucleus: clumps, a darker rim, a nucleolus."""
    clump = grain(y, x, 1.7, seed + 9) - 0.5
    coarse = nucleus[3]
    spot = 0.0
    if coarse > 0.1:
        a, b = int(nucleus[0] * 64.0), int(nucleus[1] * 64.0)
        dy, dx = hashed(a, b, seed + 1) - 0.5, hashed(a, b, seed + 2) - 0.5
        away = math.hypot(y - nucleus[0] - 3.2 * dy, x - nucleus[1] - 3.2 * dx)
        spot = 0.55 * coarse * ramp(1.1 - away, 0.7)
    rim = 0.30 * ramp(q + 1.0, 0.6)
    return max(0.25, 0.82 + 1.7 * coarse * clump + coarse * rim + spot)


@compiled_unchecked
def _he(
    here: Here, cells: Cells, granular: float, wall: float, nucleus: Nucleus, seed: int
) -> tuple[float, float]:
    h, e = _he_ground(here, cells, granular, seed)
    vessel = cells[3]
    if vessel < wall + 1.5:
        ring = ramp(wall - vessel, here[5])
        h, e = h + ring * (0.16 - h), e + ring * (0.66 - e)
        lumen = ramp(-vessel, here[5])
        crowd = ramp(grain(here[0], here[1], 24.0, seed + 8) - 0.55, 0.08)
        red = crowd * _red_cell(here[0], here[1], seed) if crowd > 0 else 0.0
        h, e = h + lumen * (0.01 - h), e + lumen * (0.03 + 0.80 * red - e)
    cover = ramp(-cells[2], here[5])
    if cover > 0:
        dark = nucleus[2] * _chromatin(here[0], here[1], cells[2], nucleus, seed)
        h, e = h + cover * (1.02 * dark - h), e + cover * (0.20 - e)
    return h, e


@compiled_unchecked
def _ihc_cell(code: int, here: Here, cells: Cells, amount: float, seed: int) -> tuple[float, float]:
    """Haematoxylin and DAB of a neoplastic cell; *amount* of DAB lies on its membrane (CAIX)."""
    y, x = here[0], here[1]
    web = grain(y, x, 4.2, seed + 4)
    membrane = _membrane(cells, here[2])
    h, d = 0.075 + 0.05 * web + 0.05 * ramp(1.0 - membrane, here[5]), 0.022
    if code == 2 and amount > 0:
        amount *= 0.85 + 0.3 * grain(y, x, 7.0, seed + 10)
        d += amount * (ramp(2.0 - membrane, here[5]) * 0.84 + 0.16 * web)
    return h, d


@compiled_unchecked
def _ihc_ground(
    code: int, here: Here, cells: Cells, membrane: float, seed: int
) -> tuple[float, float]:
    """Haematoxylin and DAB between the nuclei of a CD34 or CAIX section."""
    y, x, nd, nec, blood = here[0], here[1], here[2], here[3], here[4]
    nest = ramp(nd, 1.2)
    fine = grain(y, x, 2.6, seed + 3) if nest < 1 or nec > 0 else 0.0
    h = d = 0.0
    if nest < 1:
        h, d = 0.09 + 0.07 * _fibres(y, x, nd, seed) + 0.03 * fine, 0.02 + 0.02 * fine
    if nest > 0:
        h_cell, d_cell = _ihc_cell(code, here, cells, membrane, seed)
        h, d = h + nest * (h_cell - h), d + nest * (d_cell - d)
    if nec > 0:
        h_nec = 0.10 + 0.08 * fine + 0.3 * _debris(y, x, seed)
        h, d = h + nec * (h_nec - h), d + nec * (0.05 + 0.05 * fine - d)
    if blood > 0.02:
        d += min(1.0, 1.6 * blood) * 0.10 * _red_cell(y, x, seed)
    return h, d


@compiled_unchecked
def _ihc(
    code: int,
    here: Here,
    cells: Cells,
    membrane: float,
    wall: float,
    nucleus: Nucleus,
    seed: int,
) -> tuple[float, float]:
    h, d = _ihc_ground(code, here, cells, membrane, seed)
    vessel = cells[3]
    if vessel < wall + 1.5:
        ring = ramp(wall - vessel, here[5])
        amount = 0.04
        if code == 1:
            amount = 1.15 + 0.55 * grain(here[0], here[1], 6.0, seed + 11)
        h, d = h + ring * (0.10 - h), d + ring * (amount - d)
        lumen = ramp(-vessel, here[5])
        h, d = h + lumen * (0.005 - h), d + lumen * (0.01 - d)
    cover = ramp(-cells[2], here[5])
    if cover > 0:
        dark = nucleus[2] * _chromatin(here[0], here[1], cells[2], nucleus, seed)
        h, d = h + cover * (0.58 * dark - h), d * (1.0 - 0.75 * cover * ramp(vessel - wall, 0.8))
    return h, d


@compiled_unchecked
def stain_amounts(
    code: int,
    here: Here,
    cells: Cells,
    cell: tuple[float, float],
    wall: float,
    nucleus: Nucleus,
    seed: int,
) -> tuple[float, float]:
    """Natural optical density of both stains at a point within the tissue.

    Only numbers are passed, no arrays: handing an array on costs more than the arithmetic.

    Parameters
    ----------
    code
        0 H&E, 1 CD34, 2 CAIX.
    here
        Row and column (µm), nest distance (µm), necrosis, blood, softness of edges (µm).
    cells
        Squared distances to the two nearest neoplastic cells (µm²), signed distances to the
        nearest nucleus' edge and to the nearest vessel's lumen (µm).
    cell
        DAB on the membrane of the nearest cell and its share of granular cytoplasm.
    wall
        Thickness of the nearest vessel's wall, µm.
    nucleus
        Row and column (µm), density and coarseness of the nearest nucleus.
    seed
        The section's seed.
    """
    if code == 0:
        return _he(here, cells, cell[1], wall, nucleus, seed)
    return _ihc(code, here, cells, cell[0], wall, nucleus, seed)
