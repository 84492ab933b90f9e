"""Tile parameters: the catalogue (name, unit, group, formula, meaning) and their computation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.progress import checkpoint, reach_of_item
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.core.window import Slices
from napari_mosaik.features.tile_aggregation import (
    PixelSums,
    count_in_tiles,
    mean_in_tiles,
    means_in_tiles,
    over,
    per_tile,
    sum_in_tiles,
)

__all__ = [
    "CUTOFFS_OD10",
    "PARAMETERS",
    "Group",
    "TileParameter",
    "caix_grades",
    "caix_parameters",
    "class_fractions",
    "nuclear_parameters",
    "parameter_table",
    "parameters_of",
    "vascular_parameters",
    "vessel_distance_in_tiles",
    "vessel_distance_shares",
]

Group = Literal["vascular", "nuclear", "caix", "tissue"]


@dataclass(frozen=True, slots=True)
class TileParameter:
    """One parameter of a tile.

    Parameters
    ----------
    name
        Column of the parameter table.
    title
        The words shown to a reader.
    unit
        Unit; "1" for pure numbers.
    group
        Which stain or structure it belongs to.
    formula
        How it is computed.
    meaning
        One sentence for the reader.
    """

    name: str
    title: str
    unit: str
    group: Group
    formula: str
    meaning: str


def _all() -> tuple[TileParameter, ...]:
    p = TileParameter
    mean = "mean over the {} whose centroid lies in the tile"
    vessel, nucleus = mean.format("vessels"), mean.format("nuclei")
    return (
        p("vessel_density_per_mm2", "Vessel density", "1/mm²", "vascular",
          "vessels with centroid in the tile / tissue area of the tile",
          "Microvessel density: number of vessels per square millimetre of tissue."),
        p("vessel_area_fraction", "Vessel area fraction", "1", "vascular",
          "area of vessels with lumen / tissue area, by pixels",
          "Fraction of the tissue that is vessel, lumen included."),
        p("vessel_equivalent_diameter_um", "Vessel equivalent diameter", "µm", "vascular",
          f"2·sqrt(area/π), lumen filled; {vessel}",
          "Typical calibre: diameter of the circle of the same area."),
        p("vessel_area_um2", "Vessel area", "µm²", "vascular", vessel,
          "Typical size of a vessel, lumen included."),
        p("vessel_eccentricity", "Vessel eccentricity", "1", "vascular",
          f"sqrt(1 - l2/l1); {vessel}",
          "0 for round profiles, near 1 for elongated ones."),
        p("vessel_solidity", "Vessel solidity", "1", "vascular",
          f"area / area of the convex hull; {vessel}",
          "1 for convex vessels, lower for branched or bent ones."),
        p("vessel_perimeter_density_per_um", "Vessel perimeter density", "1/µm", "vascular",
          "perimeters of the vessels with centroid in the tile / tissue area",
          "Length of vessel wall per tissue area: the exchange surface S/V."),
        p("vessel_distance_um", "Distance to the nearest vessel", "µm", "vascular",
          "mean over the tile's tissue of the distance to the nearest vessel's border",
          "Distance of the tissue from its blood supply."),
        p("nucleus_density_per_mm2", "Nuclear density", "1/mm²", "nuclear",
          "nuclei with centroid in the tile / tissue area of the tile",
          "Cellularity: number of nuclei per square millimetre of tissue."),
        p("nucleus_area_um2", "Nuclear area", "µm²", "nuclear", nucleus,
          "Typical size of a nucleus."),
        p("nucleus_eccentricity", "Nuclear eccentricity", "1", "nuclear",
          f"sqrt(1 - l2/l1); {nucleus}",
          "0 for round nuclei, near 1 for spindle-shaped ones."),
        p("nucleus_solidity", "Nuclear solidity", "1", "nuclear",
          f"area / area of the convex hull; {nucleus}",
          "1 for smooth nuclei, lower for indented ones."),
        p("nucleus_haematoxylin_od", "Nuclear haematoxylin", "OD", "nuclear",
          f"mean haematoxylin density of the nucleus in OD (natural); {nucleus}",
          "Staining intensity of the nuclei (hyperchromasia)."),
        p("nucleus_difference_entropy_bits", "Nuclear difference entropy", "bit", "nuclear",
          f"-Σ p_d(k)·log2 p_d(k), mean of 4 angles; {nucleus}",
          "Irregularity of the chromatin texture."),
        p("nucleus_contrast", "Nuclear contrast", "1", "nuclear",
          f"Σ k²·p_d(k), mean of 4 angles; {nucleus}",
          "Difference between neighbouring grey levels within the nuclei."),
        p("nucleus_angular_second_moment", "Nuclear angular second moment", "1", "nuclear",
          f"Σ p(i,j)², mean of 4 angles; {nucleus}",
          "High for homogeneous chromatin, low for heterogeneous chromatin."),
        p("nucleus_inverse_difference_moment", "Nuclear inverse difference moment", "1", "nuclear",
          f"Σ p(i,j)/(1+(i-j)²), mean of 4 angles; {nucleus}",
          "Local homogeneity of the chromatin."),
        p("nucleus_entropy_bits", "Nuclear entropy", "bit", "nuclear",
          f"-Σ p(i,j)·log2 p(i,j), mean of 4 angles; {nucleus}",
          "Diversity of the pairs of grey levels within the nuclei."),
        p("nucleus_sum_entropy_bits", "Nuclear sum entropy", "bit", "nuclear",
          f"-Σ p_s(k)·log2 p_s(k), k = i + j, mean of 4 angles; {nucleus}",
          "Diversity of the local brightness within the nuclei."),
        p("caix_h_score", "CAIX H-score", "1", "caix",
          "1·%(1+) + 2·%(2+) + 3·%(3+) of the cells with centroid in the tile, 0 to 300",
          "Staining intensity combined with the fraction of positive cells."),
        p("caix_positive_fraction", "CAIX-positive cells", "1", "caix",
          "cells with grade 1+ or more / cells with centroid in the tile",
          "Fraction of the cells that express the target."),
        p("caix_intensity_fraction", "CAIX intensity × fraction", "OD10", "caix",
          "mean membrane density, OD (base 10), of the positive cells × their fraction",
          "Mean staining of the positive cells weighted by their fraction."),
        p("caix_membrane_od10", "CAIX membrane density", "OD10", "caix",
          "mean DAB density, OD (base 10), in the ring of the cells with centroid in the tile",
          "Mean membrane staining of the cells."),
        p("neoplastic_fraction", "Neoplastic fraction", "1", "tissue",
          "area classified neoplastic / classified tissue area",
          "Fraction of the tissue that is tumour."),
        p("non_neoplastic_fraction", "Non-neoplastic fraction", "1", "tissue",
          "area classified non-neoplastic / classified tissue area",
          "Fraction of the tissue that is stroma, vessel or other normal tissue."),
    )  # fmt: skip


PARAMETERS: Final[dict[str, TileParameter]] = {p.name: p for p in _all()}
"""Name to parameter, in the order in which they are shown."""


def parameters_of(group: Group) -> tuple[str, ...]:
    """Names of a group's parameters, in the order in which they are shown."""
    return tuple(name for name, parameter in PARAMETERS.items() if parameter.group == group)


def parameter_table(columns: dict[str, FloatArray], frame: str = "") -> Table:
    """A table of tile parameters with the catalogue's units and meanings.

    Raises
    ------
    InputError
        If a column is not in the catalogue.
    """
    unknown = [name for name in columns if name not in PARAMETERS]
    if unknown:
        raise InputError(f"no such tile parameter: {', '.join(unknown)}")
    data: dict[str, NDArray[np.float64]] = dict(columns)
    return Table(
        data,
        {name: PARAMETERS[name].unit for name in columns},
        {name: f"{PARAMETERS[name].meaning} {PARAMETERS[name].formula}" for name in columns},
        frame,
    )


_VESSEL_MEANS: Final = {
    "vessel_equivalent_diameter_um": "equivalent_diameter_um",
    "vessel_area_um2": "area_um2",
    "vessel_eccentricity": "eccentricity",
    "vessel_solidity": "solidity",
}
_UM2_PER_MM2: Final = 1e6


def vascular_parameters(
    grid: TileGrid,
    vessels: Table,
    *,
    tissue_area_um2: ArrayLike,
    vessel_area_um2: ArrayLike,
    distance_um: ArrayLike | None = None,
) -> Table:
    """Vascular parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    vessels
        One row per vessel (`measure_objects`, lumen filled); centroids in the grid's frame.
    tissue_area_um2, vessel_area_um2
        (n,) areas of tissue and of vessel pixels per tile (`area_in_tiles`).
    distance_um
        (n,) mean distance to the nearest vessel (`vessel_distance_in_tiles`); all NaN if None.

    Returns
    -------
    Table of n rows with the group "vascular" of the catalogue.  A tile with tissue but without
    vessels has densities 0 and NaN shapes; a tile without tissue is NaN throughout.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    tissue = per_tile(tissue_area_um2, grid, "tissue_area_um2")
    vessel = per_tile(vessel_area_um2, grid, "vessel_area_um2")
    distance = per_tile(
        np.full(len(grid), np.nan) if distance_um is None else distance_um, grid, "distance_um"
    )
    points = vessels.points_um()
    empty = tissue <= 0
    perimeter = sum_in_tiles(grid, points, vessels["perimeter_um"])
    columns = {
        "vessel_density_per_mm2": over(count_in_tiles(grid, points), tissue) * _UM2_PER_MM2,
        "vessel_area_fraction": np.minimum(over(vessel, tissue), 1.0),
    }
    for name, source in _VESSEL_MEANS.items():
        columns[name] = np.where(empty, np.nan, mean_in_tiles(grid, points, vessels[source]))
    columns["vessel_perimeter_density_per_um"] = over(perimeter, tissue)
    columns["vessel_distance_um"] = np.where(empty, np.nan, distance)
    return parameter_table(columns, grid.lattice.frame)


def vessel_distance_in_tiles(
    grid: TileGrid,
    vessels: Raster | LabelImage,
    tissue: Raster | None = None,
    reach_um: float | None = None,
) -> FloatArray:
    """Mean distance of each tile's tissue to the nearest vessel, µm.

    Parameters
    ----------
    grid
        n tiles.
    vessels
        Vessels (lumen filled) in the grid's frame; 2 to 5 µm per pixel serve, for example one of a
        label image's coarser copies, which is read in strips.  Pixels above 0 are vessel.
    tissue
        Tissue mask on any lattice of the same frame; everything is tissue if None.
    reach_um
        The vessels are looked for within this distance around the tiles, µm, and farther until
        those of all their tissue are found; in the whole image if None.  The result is the same.

    Returns
    -------
    (n,) distances, 0 inside vessels, precise to about half a pixel of *vessels*; NaN where a tile
    has no tissue, and everywhere when there is no vessel at all.
    """
    lattice = vessels.lattice
    whole = (slice(0, lattice.shape[0]), slice(0, lattice.shape[1]))
    square = lattice.spacing_um[0] == lattice.spacing_um[1]
    if reach_um is None or not square:
        return _distances(grid, vessels, tissue, whole)[0]
    mean = np.full(len(grid), np.nan)
    for rows in _neighbourhoods(grid):  # what lies between them is not read
        part, reach = grid.subset(rows), reach_um
        while (window := _around(part, lattice, reach)) != whole:
            mean[rows], farthest = _distances(part, vessels, tissue, window)
            if farthest <= reach:
                break
            reach *= 2
        else:
            return _distances(grid, vessels, tissue, whole)[0]
    return mean


def vessel_distance_shares(
    grid: TileGrid,
    vessels: Raster | LabelImage,
    edges_um: ArrayLike,
    tissue: Raster | None = None,
) -> FloatArray:
    """How far from the nearest vessel the pixels of each tile's tissue are.

    Parameters
    ----------
    grid, vessels, tissue
        As in `vessel_distance_in_tiles`.
    edges_um
        (j + 1,) ascending distances, µm, between which pixels are counted; below the first and from
        the last one on they are not.

    Returns
    -------
    (n, j) share of the tissue, dimensionless; NaN where a tile has no tissue, and everywhere when
    there is no vessel at all.
    """
    edges = np.asarray(edges_um, float)
    lattice = vessels.lattice
    whole = (slice(0, lattice.shape[0]), slice(0, lattice.shape[1]))
    area = PixelSums(grid, lattice)
    found = [PixelSums(grid, lattice) for _ in range(edges.size - 1)]
    any_vessel = False
    for row, far, inside in _distance_parts(grid, vessels, tissue, whole):
        any_vessel = True
        area.add(inside, row)
        place = np.where(inside, np.searchsorted(edges, far, "right") - 1, -1)
        for number, one in enumerate(found):
            one.add(place == number, row)
        checkpoint()
        reach_of_item((row + far.shape[0]) / lattice.shape[0])
    if not any_vessel:
        return np.full((len(grid), edges.size - 1), np.nan)
    total = area.area_um2()
    return np.stack([over(one.area_um2(), total) for one in found], axis=1)


def _neighbourhoods(grid: TileGrid) -> list[NDArray[np.int64]]:
    """The tiles of a grid, index, in groups that are at least three positions apart."""
    from scipy.ndimage import binary_dilation, label

    near = np.ones((3, 3), bool)
    used = grid.index_map() >= 0
    groups = label(binary_dilation(used, near), near)[0][tuple(grid.cells.T)]
    return [np.flatnonzero(groups == number) for number in np.unique(groups)]


def _distances(
    grid: TileGrid, vessels: Raster | LabelImage, tissue: Raster | None, window: Slices
) -> tuple[FloatArray, float]:
    """Mean distances (n,), µm, within a window, and the largest one; infinite without a vessel."""
    lattice, cols = vessels.lattice, window[1]
    weighted, area = PixelSums(grid, lattice), PixelSums(grid, lattice)
    farthest = -np.inf
    for row, far, inside in _distance_parts(grid, vessels, tissue, window):
        weighted.add(np.where(inside, far, 0.0), row, cols.start)
        area.add(inside, row, cols.start)
        near = _box(grid, lattice, 0.0)
        part = far[:, max(near[1].start - cols.start, 0) : near[1].stop - cols.start]
        farthest = max(farthest, float(part.max(initial=0.0)))
    mean = over(weighted.area_um2(), area.area_um2())
    return mean, np.inf if farthest < 0 else farthest


def _distance_parts(
    grid: TileGrid, vessels: Raster | LabelImage, tissue: Raster | None, window: Slices
) -> Iterator[tuple[int, FloatArray, NDArray[np.bool_]]]:
    """First row, distances (h, w), µm, and where tissue is, of the strips that meet a tile."""
    from napari_mosaik.core.distance import distance_strips

    lattice, cols = vessels.lattice, window[1]
    needed = PixelSums(grid, lattice)
    for row, far in distance_strips(vessels.values, lattice.spacing_um, window):
        checkpoint()
        if needed.needed(slice(row, row + len(far)), cols) is None:
            continue
        inside = np.ones(far.shape, bool)
        if tissue is not None:
            strip = lattice.crop(slice(row, row + len(far)), slice(0, lattice.shape[1]))
            inside = _inside(tissue, strip, cols)
        yield row, far, inside


def _inside(mask: Raster, lattice: Lattice, part: slice) -> NDArray[np.bool_]:
    """A mask on some columns of another lattice of its frame.

    Nearest neighbour, `Raster.onto` axis by axis.
    """
    known = []
    for axis in (0, 1):
        place = np.zeros((lattice.shape[axis], 2))
        place[:, axis] = np.arange(len(place))
        index = np.floor(mask.lattice.to_index(lattice.to_um(place))[:, axis] + 0.5)
        known.append(index.astype(np.int64))
    known[1] = known[1][part]
    values = np.zeros((len(known[0]), len(known[1])), bool)
    rows, cols = ((i >= 0) & (i < n) for i, n in zip(known, mask.lattice.shape, strict=True))
    values[np.ix_(rows, cols)] = mask.values[np.ix_(known[0][rows], known[1][cols])] > 0.5
    return values


def _around(grid: TileGrid, lattice: Lattice, reach_um: float) -> Slices:
    """The part of a lattice around all tiles; its rows are those of whole strips."""
    from napari_mosaik.core.distance import STRIP

    rows, cols = _box(grid, lattice, reach_um)
    stop = min(-(-rows.stop // STRIP) * STRIP, lattice.shape[0])
    return slice(rows.start // STRIP * STRIP, stop), cols


def _box(grid: TileGrid, lattice: Lattice, reach_um: float) -> Slices:
    """The part of a lattice that holds all tiles with a reach around them."""
    ends = []
    for axis in (0, 1):
        corner = (grid.corners_um[:, axis] - lattice.origin_um[axis]) / lattice.spacing_um[axis]
        wide = (grid.size_um + reach_um) / lattice.spacing_um[axis]
        first = int(np.floor(corner.min() - reach_um / lattice.spacing_um[axis])) - 1
        last = int(np.ceil(corner.max() + wide)) + 1
        ends.append(slice(max(0, first), min(lattice.shape[axis], max(last, 1))))
    return ends[0], ends[1]


_NUCLEUS_MEANS: Final = (
    "area_um2",
    "eccentricity",
    "solidity",
    "haematoxylin_od",
    "difference_entropy_bits",
    "contrast",
    "angular_second_moment",
    "inverse_difference_moment",
    "entropy_bits",
    "sum_entropy_bits",
)


def nuclear_parameters(
    grid: TileGrid,
    nuclei: Table,
    *,
    tissue_area_um2: ArrayLike,
    points_um: ArrayLike | None = None,
) -> Table:
    """Nuclear parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    nuclei
        One row per nucleus: `measure_objects` with the intensity ``haematoxylin_od``, and the
        columns of `texture_table`.  A column that is missing makes its parameter NaN.
    tissue_area_um2
        (n,) area of tissue per tile.
    points_um
        (m, 2) centroids in the grid's frame; the table's own if None.

    Returns
    -------
    Table of n rows with the group "nuclear" of the catalogue.  A tile with tissue but without
    nuclei has the density 0 and NaN means; a tile without tissue is NaN throughout.

    Raises
    ------
    InputError
        If an array does not have one value per tile or per nucleus.
    """
    tissue = per_tile(tissue_area_um2, grid, "tissue_area_um2")
    points = nuclei.points_um() if points_um is None else np.asarray(points_um, float)
    columns: dict[str, FloatArray] = {
        "nucleus_density_per_mm2": over(count_in_tiles(grid, points), tissue) * 1e6
    }
    known = {source: nuclei[source] for source in _NUCLEUS_MEANS if source in nuclei}
    means, nothing = means_in_tiles(grid, points, known), np.full(len(grid), np.nan)
    for source in _NUCLEUS_MEANS:
        values = means.get(source, nothing)
        columns[f"nucleus_{source}"] = np.where(tissue > 0, values, np.nan)
    return parameter_table(columns, grid.lattice.frame)


CUTOFFS_OD10 = (0.2, 0.4, 0.6)
"""Minimum optical density (base 10) of the grades 1+, 2+ and 3+."""


def caix_grades(
    membrane_od10: ArrayLike, cutoffs_od10: tuple[float, float, float] = CUTOFFS_OD10
) -> NDArray[np.float64]:
    """Grade 0 to 3 (index) of each cell: the number of cut-offs that its density reaches (>=).

    *membrane_od10* and the grades have the shape (n,); densities are to base 10.  NaN stays NaN.
    """
    if not 0 < cutoffs_od10[0] < cutoffs_od10[1] < cutoffs_od10[2]:
        raise InputError(f"the cut-offs must be positive and ascending, not {cutoffs_od10}")
    density = np.asarray(membrane_od10, float)
    grades = np.searchsorted(np.asarray(cutoffs_od10), density, side="right").astype(float)
    return np.where(np.isnan(density), np.nan, grades)


def caix_parameters(
    grid: TileGrid,
    points_um: ArrayLike,
    membrane_od10: ArrayLike,
    *,
    cutoffs_od10: tuple[float, float, float] = CUTOFFS_OD10,
    grades: ArrayLike | None = None,
) -> Table:
    """CAIX parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    points_um
        (m, 2) cell centroids in the grid's frame; leave out cells that shall not count (for
        example those outside the neoplastic tissue).
    membrane_od10
        (m,) mean DAB density (base 10) in each cell's ring; NaN cells are left out.
    cutoffs_od10
        Least densities of the grades 1+, 2+, 3+.
    grades
        (m,) grades 0 to 3 that take the place of the cut-offs.

    Returns
    -------
    Table of n rows with the group "caix" of the catalogue; NaN where a tile has no cell.

    Raises
    ------
    InputError
        If the cut-offs do not ascend or a grade is not 0 to 3.

    References
    ----------
    McCarty et al. 1985 (H-score).
    """
    density = np.asarray(membrane_od10, float)
    grade = caix_grades(density, cutoffs_od10)
    if grades is not None:
        grade = np.where(np.isnan(density), np.nan, np.asarray(grades, float))
        known = grade[np.isfinite(grade)]
        if not np.isin(known, (0, 1, 2, 3)).all():
            raise InputError("grades of CAIX are 0, 1, 2 or 3")
    points = np.asarray(points_um, float).reshape(-1, 2)
    positive = np.where(np.isnan(grade), np.nan, grade >= 1)
    strength = np.where(np.isnan(grade), np.nan, np.where(positive == 1, density, 0.0))
    means = means_in_tiles(
        grid,
        points,
        {"grade": grade, "positive": positive, "strength": strength, "density": density},
    )
    return parameter_table(
        {
            "caix_h_score": 100.0 * means["grade"],
            "caix_positive_fraction": means["positive"],
            "caix_intensity_fraction": means["strength"],
            "caix_membrane_od10": means["density"],
        },
        grid.lattice.frame,
    )


def class_fractions(
    grid: TileGrid,
    neoplastic: ArrayLike,
    non_neoplastic: ArrayLike,
    others: Mapping[str, ArrayLike] | None = None,
) -> Table:
    """Fractions of the tissue classes in each tile.

    Parameters
    ----------
    grid
        n tiles.
    neoplastic, non_neoplastic
        (n,) areas (one unit for both) or fractions of each tile (`fractions_in_tiles`).
    others
        The same of further tissue classes of the user's own, by name.

    Returns
    -------
    Table of n rows with the group "tissue" of the catalogue, and a column ``NAME_fraction`` for
    each further class: each class over the sum of all, so that gaps and lumina do not count; NaN
    where a tile has none.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    tumour = per_tile(neoplastic, grid, "neoplastic")
    other = per_tile(non_neoplastic, grid, "non_neoplastic")
    own = {name: per_tile(area, grid, name) for name, area in (others or {}).items()}
    tissue = np.asarray(sum(own.values(), tumour + other), np.float64)
    table = parameter_table(
        {
            "neoplastic_fraction": over(tumour, tissue),
            "non_neoplastic_fraction": over(other, tissue),
        },
        grid.lattice.frame,
    )
    columns = {f"{_word(name)}_fraction": over(area, tissue) for name, area in own.items()}
    about = {
        f"{_word(name)}_fraction": f"Fraction of the tissue that is '{name}', a user-defined "
        "class. area of the class / classified tissue area"
        for name in own
    }
    return table.with_columns(columns, dict.fromkeys(columns, "1"), about)


def _word(name: str) -> str:
    """A class name as part of a column name; the catalogue's own names stay free."""
    word = re.sub(r"\W+", "_", name.lower()).strip("_")
    return f"own_{word}" if f"{word}_fraction" in PARAMETERS else word
