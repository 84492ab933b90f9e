"""The tiles that a model was trained on: which tiles are unlike them, and which are most like one.

    parameters of the training tiles, standardised ─► model
    a tile of another slide ─► nearest of them ─► farther than the limit: out of range
                                            └──► case, tile, measured and held-out predicted value

Of the training cases the names are kept, and nothing else that identifies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import CARD_FORMAT, TrainedModel
from napari_mosaik.predictor.surroundings import column_statistics, slide_columns

__all__ = ["NearestTiles", "nearest_tiles", "out_of_range", "with_held_out", "with_range"]

_MAX_POINTS: Final = 3000
_RANGE_SHARE: Final = 0.99
_RANGE: Final = "range."


def with_range(model: TrainedModel, cases: Sequence[TileInputs], fwhm_um: float) -> TrainedModel:
    """A model that knows its training tiles: their parameters, and their measured uptake.

    The distance to the nearest training tile of *another* case says how far apart tiles of
    different slides are; its 99 % quantile is the limit.  With one case there is none.  Of many
    tiles 3,000 are drawn.
    """
    cases = [case for case in cases if case.measured.any()]
    columns = [slide_columns(case, fwhm_um)[case.measured] for case in cases]
    if len(columns) < 2:
        return TrainedModel(model.weights, {**model.card, "range": None})
    median, centre, scale = column_statistics(np.concatenate(columns))
    points = [_standard(own, median, centre, scale) for own in columns]
    rng = np.random.default_rng(0)
    most = max(1, _MAX_POINTS // len(points))
    drawn = [
        np.arange(len(p)) if len(p) <= most else np.sort(rng.choice(len(p), most, False))
        for p in points
    ]
    kept = [p[rows] for p, rows in zip(points, drawn, strict=True)]
    distances = []
    for index, own in enumerate(kept):
        others = np.concatenate([other for i, other in enumerate(kept) if i != index])
        distances.append(cKDTree(others).query(own)[0])
    missing = np.concatenate([np.isnan(own).sum(axis=1) for own in columns])
    tiles = [np.flatnonzero(case.measured)[own] for case, own in zip(cases, drawn, strict=True)]
    suv = [np.asarray(case.suv, float)[own] for case, own in zip(cases, tiles, strict=True)]
    measured = model.target.normalise(np.concatenate(suv), clip=False).astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {
        f"{_RANGE}points": np.concatenate(kept),
        f"{_RANGE}median": median,
        f"{_RANGE}centre": centre,
        f"{_RANGE}scale": scale,
        f"{_RANGE}case": np.repeat(np.arange(len(kept)), [len(p) for p in kept]).astype(np.int32),
        f"{_RANGE}tile": np.concatenate(tiles).astype(np.int32),
        f"{_RANGE}measured": measured,
        f"{_RANGE}predicted": np.full(len(measured), np.nan, np.float32),
    }
    record = {
        "distance": float(np.quantile(np.concatenate(distances), _RANGE_SHARE)),
        "n_missing": float(np.quantile(missing, _RANGE_SHARE)),
        "cases": [case.case for case in cases],
    }
    return TrainedModel({**model.weights, **arrays}, {**model.card, "range": record})


def with_held_out(model: TrainedModel, predicted: Mapping[str, FloatArray]) -> TrainedModel:
    """A model with what was predicted for its training tiles without their case.

    *predicted* has the (n,) normalised SUV of all tiles of a case, by the case's name; tiles of
    other cases keep NaN.
    """
    record = model.card.get("range")
    if record is None or not predicted:
        return model
    case, tile = model.weights[f"{_RANGE}case"], model.weights[f"{_RANGE}tile"]
    values = model.weights[f"{_RANGE}predicted"].copy()
    for number, name in enumerate(record["cases"]):
        if name in predicted:
            own = case == number
            values[own] = predicted[name][tile[own]]
    return TrainedModel({**model.weights, f"{_RANGE}predicted": values}, model.card)


def _standard(
    columns: FloatArray, median: FloatArray, centre: FloatArray, scale: FloatArray
) -> NDArray[np.float32]:
    filled = np.where(np.isfinite(columns), columns, median)
    return np.clip((filled - centre) / scale, -8.0, 8.0).astype(np.float32)


def _neighbours(
    model: TrainedModel, inputs: TileInputs, k: int
) -> tuple[FloatArray, IntArray, IntArray]:
    """(n, k) distance and index of the nearest training tiles; (n,) number of missing values."""
    columns = slide_columns(inputs, float(model.card["fwhm_um"]))
    arrays = {name: model.weights[_RANGE + name] for name in ("median", "centre", "scale")}
    points = cKDTree(model.weights[f"{_RANGE}points"])
    distance, index = points.query(_standard(columns, **arrays), k=np.arange(1, k + 1))
    return np.asarray(distance, float), np.asarray(index), np.isnan(columns).sum(axis=1)


def out_of_range(model: TrainedModel, inputs: TileInputs) -> NDArray[np.bool_] | None:
    """(n,) mask of the tiles unlike any training tile; None where the model does not know.

    Farther from the nearest training tile than 99 % of the training tiles are from those of other
    cases, or with more missing parameters than 99 % of them.
    """
    record = model.card.get("range")
    if record is None:
        return None
    distance, _, missing = _neighbours(model, inputs, 1)
    far = distance[:, 0] > record["distance"]
    return np.asarray(far | (missing > record["n_missing"]), bool)


@dataclass(frozen=True, slots=True, eq=False)
class NearestTiles:
    """The k training tiles that are most like each of n tiles, the nearest first.

    Parameters
    ----------
    cases
        Names of the training cases.
    case, tile
        (n, k) index in *cases*, and of the tile in that case.
    distance
        (n, k) distance in the standardised parameters over the limit of out of range: 1 lies on it.
    measured, predicted
        (n, k) SUV: measured, and predicted by networks without that case (NaN: not held out).
    n_training
        Number of training tiles among which they were sought.
    """

    cases: tuple[str, ...]
    case: IntArray
    tile: IntArray
    distance: FloatArray
    measured: FloatArray
    predicted: FloatArray
    n_training: int

    def of(self, tile: int) -> list[dict[str, Any]]:
        """The training tiles most like one tile: case, tile, distance, and SUV; NaN becomes None.

        A distance of 1 is the limit of out of range.
        """
        return [
            {
                "case": self.cases[int(self.case[tile, place])],
                "tile": int(self.tile[tile, place]),
                "distance": float(self.distance[tile, place]),
                "measured": float(self.measured[tile, place]),
                "predicted": (
                    float(self.predicted[tile, place])
                    if np.isfinite(self.predicted[tile, place])
                    else None
                ),
            }
            for place in range(self.tile.shape[1])
        ]


def nearest_tiles(model: TrainedModel, inputs: TileInputs, k: int = 5) -> NearestTiles:
    """The training tiles nearest to each tile in the space that decides what is out of range.

    A missing parameter counts as the median of the training tiles.

    Raises
    ------
    InputError
        The model was trained by another version, or on one case and keeps no tiles.
    """
    card = model.card
    if card.get("format") != CARD_FORMAT:
        raise InputError(
            f"the predictor {model.hash[:8]} does not keep its training tiles (format "
            f"{card.get('format')}, not {CARD_FORMAT}); train it again"
        )
    if card.get("range") is None:
        raise InputError(
            f"the predictor {model.hash[:8]} was trained on one case: it has no range, and keeps "
            "no training tiles"
        )
    n_training = len(model.weights[f"{_RANGE}points"])
    distance, index, _ = _neighbours(model, inputs, min(k, n_training))
    limit = max(float(card["range"]["distance"]), 1e-12)
    found = {
        name: model.weights[_RANGE + name][index]
        for name in ("case", "tile", "measured", "predicted")
    }
    return NearestTiles(
        tuple(card["range"]["cases"]),
        found["case"],
        found["tile"],
        distance / limit,
        model.target.restore(found["measured"]),
        model.target.restore(found["predicted"]),
        n_training,
    )
