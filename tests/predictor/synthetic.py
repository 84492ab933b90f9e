"""A cohort of smooth random fields with a known uptake law, for tests of learning."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from napari_mosaik.core import Lattice, Raster, TileGrid
from napari_mosaik.predictor import (
    TileInputs,
    code_windows,
    edge_distance_um,
    fraction_pyramid,
    stack_fractions,
)

SPACING_UM = 20.0
FEATURES = (
    "caix_h_score",
    "vessel_perimeter_density_per_um",
    "neoplastic_fraction",
    "nuclear_area",
)


def field(rng: np.random.Generator, shape: tuple[int, int], length_um: float) -> np.ndarray:
    """Smooth Gaussian field, zero mean, unit variance."""
    raw = gaussian_filter(rng.normal(size=shape), length_um / SPACING_UM, mode="reflect")
    return (raw - raw.mean()) / raw.std()


def local_codes(values: np.ndarray, grid: TileGrid) -> np.ndarray:
    """Rough local Moran labels: signs of value and lag where their product is large."""
    z = (values - values.mean()) / max(values.std(), 1e-9)
    painted = grid.paint(z).values
    known = np.isfinite(painted).astype(float)
    total = uniform_filter(np.nan_to_num(painted), 3, mode="constant") * 9 - np.nan_to_num(painted)
    count = uniform_filter(known, 3, mode="constant") * 9 - known
    rows, cols = grid.cells.T
    lag = (total / np.maximum(count, 1))[rows, cols]
    code = np.select([(z > 0) & (lag > 0), (z < 0) & (lag < 0), z > 0], [1, 2, 3], 4)
    return np.where(np.abs(z * lag) > 0.8, code, 0).astype(np.uint8)


def make_case(
    name: str,
    patient: str,
    seed: int,
    *,
    size_um: tuple[float, float] = (6000.0, 8000.0),
    level: float = 1.0,
    noise: float = 0.05,
    windows_px: tuple[int, int, int] = (16, 34, 82),
    n_times: int = 4,
    tile_curves: bool = True,
) -> TileInputs:
    """One case: elliptic tissue, nests, vessels, CAIX; uptake from vessels and CAIX, blurred."""
    rng = np.random.default_rng(seed)
    shape = (int(size_um[0] / SPACING_UM), int(size_um[1] / SPACING_UM))
    r, c = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    tissue = (np.hypot(r / 0.95, c / 0.95) + 0.05 * field(rng, shape, 600) < 1).astype(float)
    nests = (field(rng, shape, 350) + 0.6 * field(rng, shape, 1200) > -0.3) * tissue
    density = np.clip(0.06 + 0.035 * field(rng, shape, 700), 0.005, None)
    vessel = gaussian_filter((rng.random(shape) < density).astype(float), 0.7) * tissue
    caix = np.clip(0.55 + 0.3 * field(rng, shape, 800), 0, 1) * nests
    hidden = 1 + 0.2 * field(rng, shape, 900)
    truth = level * density * (0.25 + 0.75 * (1 - np.exp(-3 * caix))) * hidden * tissue
    blur = 640 / SPACING_UM
    pet = gaussian_filter(truth, blur) / 0.05
    grid = _grid(tissue)
    lattice = Lattice("cd34", shape, (SPACING_UM, SPACING_UM))
    layers = stack_fractions(
        nests * (1 - vessel), tissue - nests, np.clip(vessel, 0, 1), tissue, lattice
    )

    def mean(a: np.ndarray) -> np.ndarray:
        flat = uniform_filter(a, int(400 / SPACING_UM), mode="constant")
        return Raster(flat, lattice).at(grid.centres_um, 0.0)

    supply, score, neo = mean(vessel) * 0.1, mean(caix), mean(nests)
    score = score + rng.normal(0, 0.03, len(grid))
    features = np.column_stack([score, supply, neo, rng.normal(size=len(grid))])
    features[rng.random(len(grid)) < 0.03, 0] = np.nan
    filled = np.where(np.isfinite(score), score, np.nanmean(score))
    codes = np.column_stack([local_codes(v, grid) for v in (supply, filled, neo)])
    suv = mean(pet) * np.exp(rng.normal(0, noise, len(grid)))
    times = np.linspace(24, 168, n_times)
    decay = np.exp(-np.outer([0.02, 0.01, 0.004], times)).T * [1, 0.5, 0.3] * level
    curves = decay if not tile_curves else decay * (supply[:, None, None] / 0.006)
    return TileInputs(
        case=name,
        patient=patient,
        scales=fraction_pyramid(layers, grid, windows_px),
        codes=code_windows(grid, codes),
        proxies=("vessel_perimeter_density_per_um", "caix_h_score", "neoplastic_fraction"),
        curves=curves,
        times_h=times,
        features=features,
        feature_names=FEATURES,
        centres_um=grid.centres_um,
        cells=grid.cells,
        edge_um=edge_distance_um(grid),
        suv=suv,
        pet_label=local_codes(suv, grid).astype(np.int8),
    )


def _grid(tissue: np.ndarray) -> TileGrid:
    extent = np.asarray(tissue.shape) * SPACING_UM
    cells = ((extent - 400) // 300 + 1).astype(int)
    lattice = Lattice("cd34", (int(cells[0]), int(cells[1])), (300.0, 300.0), (50.0, 50.0))
    flat = uniform_filter(tissue, int(400 / SPACING_UM), mode="constant")
    full = Lattice("cd34", tissue.shape, (SPACING_UM, SPACING_UM))
    coverage = Raster(flat, full).at(lattice.centres_um().reshape(-1, 2), 0.0)
    kept = np.flatnonzero(coverage >= 0.5)
    return TileGrid(lattice, 400.0, kept, coverage[kept], coverage[kept] >= 0.95)


def make_cohort(seed: int = 0, **settings: object) -> list[TileInputs]:
    """Six cases of two patients, as A2-A5 and B8, B11."""
    names = ["A2", "A3", "A4", "A5", "B8", "B11"]
    return [
        make_case(name, name[0], 100 * seed + i, level=1.0 if name[0] == "A" else 1.4, **settings)
        for i, name in enumerate(names)
    ]
