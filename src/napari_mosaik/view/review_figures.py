"""The figures of the review, the same in window and report: errors, coverage, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.catalogue import CLUSTER_NAMES
from napari_mosaik.view import plots
from napari_mosaik.view.tile_data import TileData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["REVIEW_FIGURES", "ReviewFigure", "tile_near"]

Points = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, slots=True)
class ReviewFigure:
    """A figure of the review.

    Parameters
    ----------
    title
        What it shows.
    caption
        What to know when reading it.
    draw
        The figure from the results per tile and the index of the tile to ring (None for none).
    possible
        Whether the results allow the figure; nothing is drawn.
    points
        Its points, (n_tiles,) across and up in the units of the axes, NaN where a tile has none;
        None for a figure without a point for each tile.
    """

    title: str
    caption: str
    draw: Callable[[TileData, int | None], Figure]
    possible: Callable[[TileData], bool]
    points: Callable[[TileData], Points] | None = None


def tile_near(figure: ReviewFigure, tile_data: TileData, x: float, y: float) -> int:
    """Index of the tile whose point is nearest to a position in a figure, -1 without points.

    Distances are relative to the range of the points along each axis.
    """
    if figure.points is None or not figure.possible(tile_data):
        return -1
    across, up = figure.points(tile_data)
    known = np.isfinite(across) & np.isfinite(up)
    if not known.any():
        return -1
    gap = ((across - x) / (np.ptp(across[known]) or 1.0)) ** 2
    gap = gap + ((up - y) / (np.ptp(up[known]) or 1.0)) ** 2
    return int(np.nanargmin(np.where(known, gap, np.nan)))


def _has_pairs(tile_data: TileData) -> bool:
    found = (tile_data.measured(), tile_data.predicted(), tile_data.grid)
    return all(one is not None for one in found)


def _compared(tile_data: TileData) -> Points:
    measured, predicted = tile_data.measured(), tile_data.predicted()
    assert measured is not None
    assert predicted is not None
    return measured, predicted


def _means(tile_data: TileData) -> Points:
    measured, predicted = _compared(tile_data)
    return (measured + predicted) / 2, predicted - measured


def _error(tile_data: TileData) -> FloatArray:
    measured, predicted = _compared(tile_data)
    return predicted - measured


def _scatter(tile_data: TileData, tile: int | None) -> Figure:
    return plots.scatter_figure(*_compared(tile_data), tile_data.unit, selected=tile)


def _bland_altman(tile_data: TileData, tile: int | None) -> Figure:
    return plots.bland_altman_figure(*_compared(tile_data), tile_data.unit, selected=tile)


def _calibration(tile_data: TileData, tile: int | None) -> Figure:
    return plots.calibration_figure(*_compared(tile_data), tile_data.unit)


# --- by group ------------------------------------------------------------------------------------
def _share(tile_data: TileData) -> NDArray[np.float64] | None:
    name, table = "neoplastic_fraction", tile_data.parameters
    return None if table is None or name not in table else np.asarray(table[name], float)


def _codes(tile_data: TileData) -> NDArray[np.float64] | None:
    name, table = "suv.label", tile_data.uptake_clusters
    return None if table is None or name not in table else np.asarray(table[name], float)


def _by_class(tile_data: TileData, tile: int | None) -> Figure:
    share, error = _share(tile_data), _error(tile_data)
    assert share is not None
    groups = {
        "mostly neoplastic": error[share >= 0.5],
        "mostly non-neoplastic": error[share < 0.5],
        "not classified": error[np.isnan(share)],
    }
    return plots.error_by_group_figure(groups, tile_data.unit, group_title="tissue of the tile")


def _by_cluster(tile_data: TileData, tile: int | None) -> Figure:
    codes, error = _codes(tile_data), _error(tile_data)
    groups = {name: error[codes == code] for code, name in CLUSTER_NAMES.items()}
    title = "cluster of the measured uptake"
    return plots.error_by_group_figure(groups, tile_data.unit, group_title=title)


def _edge(tile_data: TileData) -> Points:
    from napari_mosaik.predictor import edge_distance_um

    assert tile_data.grid is not None
    return edge_distance_um(tile_data.grid), _error(tile_data)


def _by_distance(tile_data: TileData, tile: int | None) -> Figure:
    return plots.error_by_distance_figure(*_edge(tile_data), tile_data.unit, selected=tile)


# --- intervals -----------------------------------------------------------------------------------
_KINDS: Final = {"": "tile of a new slide", "block_": "whole block (covers more tiles)"}
_FIFTHS: Final = ("all tiles", "lowest\nfifth", "2nd", "3rd", "4th", "highest\nfifth")


def _coverage(tile_data: TileData, tile: int | None) -> Figure:
    """Coverage of all tiles, and by fifths of the predicted uptake: intervals may fail in one."""
    measured, predicted = _compared(tile_data)
    observed = {}
    for kind, words in _KINDS.items():
        ends = tile_data.interval(kind)
        if ends is not None:
            low, high = ends
            known = np.isfinite(measured) & np.isfinite(low) & np.isfinite(high)
            inside = (measured >= low) & (measured <= high)
            observed[words] = _by_fifth(inside[known], predicted[known])
    return plots.coverage_figure(_FIFTHS, observed)


def _by_fifth(inside: NDArray[np.bool_], predicted: FloatArray) -> FloatArray:
    """Share of all tiles, and of each fifth of them in the order of *predicted*, (6,)."""
    order = np.argsort(predicted, kind="stable")
    parts = [inside, *np.array_split(inside[order], len(_FIFTHS) - 1)]
    return np.array([part.mean() if part.size else np.nan for part in parts])


# --- training ------------------------------------------------------------------------------------
def _history(tile_data: TileData) -> list[Mapping[str, Any]]:
    return list((tile_data.card or {}).get("history") or ())


def _training(tile_data: TileData, tile: int | None) -> Figure:
    """Curves of the network that made the prediction, one for each member of the ensemble."""
    history = _history(tile_data)
    curves = {}
    for name, key in (("training", "suv_mse"), ("validation", "validation_mse")):
        members: dict[int, list[float]] = {}
        for entry in history:
            value = entry.get(key)
            known = float("nan") if value is None else float(value)
            members.setdefault(int(entry.get("member", 0)), []).append(known)
        if any(np.isfinite(values).any() for values in members.values()):
            curves[name] = list(members.values())
    single = len({entry.get("member", 0) for entry in history}) == 1
    made = (tile_data.card or {}).get("members") or [{}]
    best = made[0].get("best_epoch") if single and "validation" in curves else None
    figure = plots.training_figure(curves, best)
    figure.axes[0].set_ylabel("mean squared error, normalised SUV", fontsize=9)
    return figure


_SPREAD = (
    "One point per tile. The resolution of the PET spans several tiles, so neighbouring points are "
    "not independent."
)
REVIEW_FIGURES: Final = (
    ReviewFigure(
        "Predicted against measured uptake", _SPREAD, _scatter, _has_pairs, points=_compared
    ),
    ReviewFigure(
        "Bland-Altman plot",
        "Bias and limits of agreement over all tiles.",
        _bland_altman,
        _has_pairs,
        points=_means,
    ),
    ReviewFigure(
        "Calibration",
        "Tenths of the tiles in the order of the predicted uptake. Where a point lies on the "
        "dashed line, the prediction is right on average; the bar is the SD of the measured.",
        _calibration,
        _has_pairs,
    ),
    ReviewFigure(
        "Coverage of the 90 % intervals",
        "All tiles, and fifths of them in the order of the predicted uptake. An interval for a "
        "whole block holds all of its tiles, so it covers more than 90 % of them.",
        _coverage,
        lambda data: _has_pairs(data) and data.interval() is not None,
    ),
    ReviewFigure(
        "Error by tissue class",
        "By the predominant tissue class of each tile.",
        _by_class,
        lambda data: _has_pairs(data) and _share(data) is not None,
    ),
    ReviewFigure(
        "Error by cluster",
        "Hot and cold spots (local Moran) of the measured uptake.",
        _by_cluster,
        lambda data: _has_pairs(data) and _codes(data) is not None,
    ),
    ReviewFigure(
        "Error by distance to the edge",
        "Distance to the nearest place without a tile, where the PET also sees what lies outside.",
        _by_distance,
        _has_pairs,
        points=_edge,
    ),
    ReviewFigure(
        "Training of the network",
        "From the model card. Without a case that was held out for validation there is one curve.",
        _training,
        lambda data: bool(_history(data)),
    ),
)
"""In the order of the report."""
