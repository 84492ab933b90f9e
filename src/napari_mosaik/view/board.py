"""The maps of the review board: measured and predicted uptake, difference, interval, source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, Raster, TileGrid, palette
from napari_mosaik.core.catalogue import REFERENCE, TISSUE
from napari_mosaik.io.case import Case
from napari_mosaik.view.formatting import unit_words, uptake_name
from napari_mosaik.view.maps import common_limits, scalar_layer
from napari_mosaik.view.spec import LayerSpec, Legend, placement_um
from napari_mosaik.view.tile_data import TileData

__all__ = [
    "BOARD_TITLES",
    "HATCHED",
    "BoardMap",
    "board_layer",
    "board_maps",
    "hatch_layer",
    "hatch_lines",
    "smooth_maps",
]

BOARD_TITLES: Final = {
    "measured": "Measured",
    "predicted": "Predicted",
    "difference": "Difference",
    "width": "Interval width",
    "source": "Source",
    "inputs": "Spread from inputs",
}
"""Short title of each map of the review board by its key, in the order of the board."""
_HEADINGS: Final = {
    "measured": "measured",
    "predicted": "predicted",
    "difference": "predicted − measured",
    "width": "90 % interval width",
    "source": "source before blur",
    "inputs": "SD from inputs",
}
_ABOUT: Final = {
    "width": "90 % interval for a tile of a new slide of the training patients",
    "source": "not measured: what the network places in a tile before it blurs the slide as the "
    "scanner does; single tiles of it cannot be checked against the PET",
    "inputs": "SD of the prediction when registration, thresholds, calibration and kinetics are "
    "drawn within their errors; the error of the model is not in it",
}
HATCHED: Final = "hatched: beyond the tiles of the training set"
_SMOOTH_UM: Final = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class BoardMap:
    """One map of the review board.

    Parameters
    ----------
    key
        Its name in `BOARD_TITLES`.
    values
        (n_tiles,) values in *unit*; NaN where a tile was not measured or not predicted.
    unit
        Unit of the values, "1" for normalised ones.
    colormap
        Its colour scale.
    limits
        Values at both ends of the scale.
    hatched
        (n_tiles,) True where the inputs lie beyond those of the training tiles.
    smoothed
        The values between the tiles, (rows, columns) in *unit*; None at the level of tiles.
    """

    key: str
    values: FloatArray
    unit: str
    colormap: str
    limits: tuple[float, float]
    hatched: NDArray[np.bool_]
    smoothed: Raster | None = None

    def equals(self, other: BoardMap) -> bool:
        """Whether another map at the level of tiles shows the same."""
        looks = [(one.heading, one.colormap, one.limits) for one in (self, other)]
        return (
            looks[0] == looks[1]
            and np.array_equal(self.values, other.values, equal_nan=True)
            and np.array_equal(self.hatched, other.hatched)
        )

    @property
    def heading(self) -> str:
        """What is shown, with its unit and whether it is smoothed."""
        unit = unit_words(self.unit)
        words = f"{_HEADINGS[self.key]}, {unit}" if unit else f"{_HEADINGS[self.key]}, 0 to 1"
        return words if self.smoothed is None else f"{words} (IDW)"


def board_legends(maps: Iterable[BoardMap]) -> list[Legend]:
    """One legend for each colour scale: which maps share it, and what they mean."""
    scales: dict[tuple[str, tuple[float, float]], list[BoardMap]] = {}
    for one in maps:
        scales.setdefault((one.colormap, one.limits), []).append(one)
    legends = []
    for (colormap, limits), group in scales.items():
        first = group[0]
        titles = [BOARD_TITLES[one.key] for one in group]
        words = ", ".join([titles[0], *(title.lower() for title in titles[1:])])
        notes = [_ABOUT.get(one.key, "") for one in group]
        notes.append(HATCHED if any(one.hatched.any() for one in group) else "")
        legends.append(
            Legend(
                f"{words} · {uptake_name(first.unit)}",
                unit_words(first.unit),
                colormap=colormap,
                limits=limits,
                note="; ".join(filter(None, notes)),
            )
        )
    return legends


def board_maps(
    tile_data: TileData, limits: tuple[float, float] | None = None, *, normalised: bool = False
) -> dict[str, BoardMap]:
    """The maps that the results of a case allow, by key, in the order of the board.

    Measured and predicted uptake and the source share one colour scale: *limits* in the unit of
    the SUV, by default the 2nd and 98th percentile of measured and predicted tiles.  *normalised*
    shows SUV on the scale of the training tiles, which become 0 to 1; values are not clipped.  A
    map whose columns are not there is left away.
    """
    measured, predicted = tile_data.measured(), tile_data.predicted()
    if measured is None or predicted is None or tile_data.grid is None:
        return {}
    target = tile_data.target if normalised else None
    low, span = (0.0, 1.0) if target is None else (target[0], target[1] - target[0])
    unit = tile_data.unit if target is None else "1"
    shared = limits or common_limits(measured, predicted)
    shared = ((shared[0] - low) / span, (shared[1] - low) / span)
    beyond = tile_data.out_of_range()
    none = np.zeros(beyond.shape, bool)

    def scaled_map(key: str, values: FloatArray) -> BoardMap:
        hatched = none if key == "measured" else beyond
        return BoardMap(key, (values - low) / span, unit, palette.UPTAKE_COLORMAP, shared, hatched)

    maps = {
        key: scaled_map(key, v) for key, v in (("measured", measured), ("predicted", predicted))
    }
    difference = (predicted - measured) / span
    reach = max(abs(limit) for limit in common_limits(difference))
    maps["difference"] = BoardMap(
        "difference", difference, unit, palette.DIFFERENCE_COLORMAP, (-reach, reach), beyond
    )
    ends = tile_data.interval()
    if ends is not None:
        width = (ends[1] - ends[0]) / span
        top = (0.0, common_limits(width)[1])
        maps["width"] = BoardMap("width", width, unit, palette.UNCERTAINTY_COLORMAP, top, beyond)
    source = tile_data.source()
    if source is not None:
        maps["source"] = scaled_map("source", source)
    spread = tile_data.input_sd()
    if spread is not None:
        drawn = spread / span
        top = (0.0, common_limits(drawn)[1])
        maps["inputs"] = BoardMap("inputs", drawn, unit, palette.UNCERTAINTY_COLORMAP, top, beyond)
    return maps


def smooth_maps(case: Case, grid: TileGrid, maps: Mapping[str, BoardMap]) -> dict[str, BoardMap]:
    """The maps interpolated between the tile centres (IDW) over the tissue of the reference.

    A tile without a value stays empty.  The values keep their unit (SUV).
    """
    from napari_mosaik.spatial import parameter_map

    mask = case.store.read(TISSUE[REFERENCE])
    smooth = {}
    for key, one in maps.items():
        drawn = one
        if np.isfinite(one.values).any():
            raster = parameter_map(grid, one.values, mask, _SMOOTH_UM, unit=one.unit)
            values = np.where(_empty(grid, one.values, raster), np.nan, raster.values)
            drawn = replace(one, smoothed=Raster(values, raster.lattice, one.unit))
        smooth[key] = drawn
    return smooth


def _empty(grid: TileGrid, values: FloatArray, raster: Raster) -> NDArray[np.bool_]:
    """(rows, columns) True where a sample lies in the cell of a tile without a value."""
    cells = np.rint(grid.lattice.to_index(raster.lattice.centres_um().reshape(-1, 2))).astype(int)
    inside = ((cells >= 0) & (cells < grid.lattice.shape)).all(axis=1)
    tile = np.full(len(cells), -1)
    tile[inside] = grid.index_map()[tuple(cells[inside].T)]
    lacks = (tile >= 0) & ~np.isfinite(np.append(values, 0.0))[tile]
    return np.asarray(lacks.reshape(raster.lattice.shape))


def board_layer(one: BoardMap, grid: TileGrid) -> LayerSpec:
    """A map of the board as an image layer: a square for each tile, or its smoothed values."""
    raster = grid.paint(one.values, one.unit) if one.smoothed is None else one.smoothed
    return scalar_layer(raster, one.heading, one.colormap, one.limits, one.unit, None)


def hatch_lines(grid: TileGrid, hatched: NDArray[np.bool_]) -> FloatArray:
    """Diagonals over the hatched tiles, (n_tiles,), as vectors (n, 2, 2): start and step, µm."""
    rows, stride = np.flatnonzero(hatched), grid.stride_um
    corners = grid.centres_um[rows] - stride / 2
    lines = []
    for shift in (-0.5, 0.0, 0.5):  # columns minus rows, in strides: the lines of neighbours meet
        first, last = max(0.0, -shift) * stride, min(1.0, 1.0 - shift) * stride
        begin = corners + np.array([first, first + shift * stride])
        lines.append(np.stack([begin, np.full(begin.shape, last - first)], axis=1))
    return np.concatenate(lines)


def hatch_layer(grid: TileGrid, hatched: NDArray[np.bool_], name: str) -> LayerSpec:
    """The hatching of tiles, (n_tiles,), as a layer of lines, µm of the section."""
    return LayerSpec(
        name,
        "vectors",
        hatch_lines(grid, hatched),
        placement_um(grid.lattice.frame),
        {
            "edge_color": palette.NOT_TESTABLE,
            "edge_width": max(1.0, grid.stride_um / 9),
            "length": 1.0,
            "vector_style": "line",
        },
    )
