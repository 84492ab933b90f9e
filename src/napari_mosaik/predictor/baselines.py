"""Plain predictions that the network has to beat, fitted on the same training tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import TargetScale

__all__ = ["ABOUT", "Baseline", "BaselineColumns", "fit_baselines", "predict_baselines"]

ABOUT: Final = {
    "mean": "mean of the training tiles",
    "caix_linear": "straight line on the CAIX score",
    "mechanistic": "straight line on vessel surface density times CAIX",
    "ridge": "ridge regression on the tile parameters",
    "position": "ridge on position and distance to the edge only, blind to the tissue",
}
"""Name of each baseline and what it is."""

_ALPHAS: Final = tuple(10.0 ** np.arange(-2, 5))
_N_CENTRES: Final = 60
_LENGTH: Final = 0.75


@dataclass(frozen=True, slots=True)
class BaselineColumns:
    """Which tile parameters the simple baselines use; a missing one makes them not available."""

    caix: str = "caix_h_score"
    supply: str = "vessel_perimeter_density_per_um"


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted linear prediction of the normalised SUV; all of it can be written as JSON.

    Parameters
    ----------
    name
        One of `ABOUT`.
    columns
        Tile parameters (or their product) that it uses; empty for the mean and for position.
    medians
        Training medians that stand for missing values.
    n_imputed
        Missing values among the training tiles, per column.
    centre, scale
        Mean and SD of the columns over the training tiles.
    weights, intercept
        Of the standardised columns (or radial functions).
    alpha
        Strength of the ridge; 0 for plain least squares.
    knots
        Centres of the radial functions of the position baseline.
    """

    name: str
    columns: tuple[str, ...]
    medians: tuple[float, ...]
    n_imputed: tuple[int, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    alpha: float = 0.0
    knots: tuple[tuple[float, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"about": ABOUT[self.name], **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Baseline:
        """The inverse of `as_dict`."""
        kept: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        kept.pop("about", None)
        kept["knots"] = tuple(tuple(knot) for knot in kept.get("knots", ()))
        return cls(**kept)

    def predict(self, inputs: TileInputs) -> FloatArray:
        """(n,) normalised SUV, clipped to [0, 1]."""
        columns = _columns(self.name, self.columns, inputs)
        columns = np.where(np.isfinite(columns), columns, np.asarray(self.medians))
        basis = (columns - np.asarray(self.centre)) / np.asarray(self.scale)
        if self.knots:
            basis = _radial(basis, np.asarray(self.knots))
        return np.asarray(
            np.clip(basis @ np.asarray(self.weights) + self.intercept, 0.0, 1.0), float
        )


def _columns(name: str, columns: Sequence[str], inputs: TileInputs) -> FloatArray:
    """(n, k) raw columns of a baseline."""
    if name == "position":
        return _position(inputs)
    missing = [column for column in columns if column not in inputs.feature_names]
    if missing:
        raise InputError(
            f"case {inputs.case}: baseline '{name}' needs the tile parameter '{missing[0]}'"
        )
    at = [inputs.feature_names.index(column) for column in columns]
    chosen = inputs.features[:, at]
    return chosen.prod(axis=1, keepdims=True) if name == "mechanistic" else chosen


def _position(inputs: TileInputs) -> FloatArray:
    """(n, 3) row and column from the slide's centre in mm, and distance to the edge in mm."""
    centre = (inputs.centres_um.min(axis=0) + inputs.centres_um.max(axis=0)) / 2
    offset = (inputs.centres_um - centre) / 1000.0
    return np.column_stack([offset, inputs.edge_um / 1000.0])


def _radial(points: FloatArray, knots: FloatArray) -> FloatArray:
    """(n, k) Gaussian functions of the distance to each knot."""
    square = ((points[:, None, :] - knots[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-square / (2 * _LENGTH**2)), float)


def _farthest(points: FloatArray, n: int) -> FloatArray:
    """Up to *n* points far from one another, the first nearest to the mean; deterministic."""
    distance = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(np.argmin(distance))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(n, len(points)) and nearest.max() > 0:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _solve(basis: FloatArray, y: FloatArray, alpha: float) -> tuple[FloatArray, float]:
    """Ridge weights and intercept (the intercept is not shrunk)."""
    mean, offset = basis.mean(axis=0), float(y.mean())
    x = basis - mean
    gram = x.T @ x + alpha * np.eye(x.shape[1])
    weights = np.asarray(np.linalg.lstsq(gram, x.T @ (y - offset), rcond=None)[0], float)
    return weights, offset - float(mean @ weights)


def _choose_alpha(basis: FloatArray, y: FloatArray, groups: NDArray[np.int64]) -> float:
    """Ridge strength with the smallest squared error on left-out training cases."""
    names = np.unique(groups)
    if len(names) < 2:
        return 1.0
    total = np.zeros(len(_ALPHAS))
    for name in names:
        out = groups == name
        for i, alpha in enumerate(_ALPHAS):
            weights, intercept = _solve(basis[~out], y[~out], alpha)
            total[i] += float(
                ((np.clip(basis[out] @ weights + intercept, 0, 1) - y[out]) ** 2).sum()
            )
    return float(_ALPHAS[int(np.argmin(total))])


def _fit(
    name: str,
    columns: Sequence[str],
    cases: Sequence[TileInputs],
    y: FloatArray,
    groups: NDArray[np.int64],
) -> Baseline:
    """Impute, standardise, choose the ridge's strength and solve."""
    raw = np.concatenate([_columns(name, columns, case)[case.measured] for case in cases])
    known = np.where(np.isfinite(raw), raw, np.nan)
    missing = np.isnan(known)
    medians = np.array(
        [np.median(c[~m]) if (~m).any() else 0.0 for c, m in zip(known.T, missing.T, strict=True)]
    )
    filled = np.where(missing, medians, known)
    centre, scale = filled.mean(axis=0), filled.std(axis=0)
    scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(centre)), scale, 1.0)
    basis = (filled - centre) / scale
    knots = _farthest(basis, _N_CENTRES) if name == "position" else np.zeros((0, 0))
    basis = _radial(basis, knots) if len(knots) else basis
    alpha = _choose_alpha(basis, y, groups) if name in ("ridge", "position") else 0.0
    weights, intercept = _solve(basis, y, alpha)
    return Baseline(
        name,
        tuple(columns),
        tuple(medians.tolist()),
        tuple(int(m) for m in missing.sum(axis=0)),
        tuple(centre.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        intercept,
        alpha,
        tuple(tuple(knot) for knot in knots.tolist()),
    )


def fit_baselines(
    cases: Sequence[TileInputs], target: TargetScale, columns: BaselineColumns | None = None
) -> dict[str, Baseline | None]:
    """Fit every baseline on the measured tiles of the training cases.

    Parameters
    ----------
    cases
        Training cases, with the same tile parameters in the same order.
    target
        Scaling of the SUV.
    columns
        Names of the CAIX and of the vessel supply parameter.

    Returns
    -------
    dict
        Name (see `ABOUT`) to baseline; None where a tile parameter that it needs is not there.

    Notes
    -----
    Missing values become the training median; the ridge's strength is chosen by leaving out one
    training case at a time.
    """
    columns = columns or BaselineColumns()
    if len({case.feature_names for case in cases}) != 1:
        raise InputError("the training cases have different tile parameters")
    features = cases[0].feature_names
    y = np.concatenate([target.normalise(np.asarray(c.suv)[c.measured]) for c in cases])
    groups = np.repeat(np.arange(len(cases)), [int(c.measured.sum()) for c in cases])
    uses: dict[str, tuple[str, ...]] = {
        "caix_linear": (columns.caix,),
        "mechanistic": (columns.supply, columns.caix),
        "ridge": features,
        "position": (),
    }
    mean = Baseline("mean", (), (), (), (), (), (), float(y.mean()))
    fitted: dict[str, Baseline | None] = {"mean": mean}
    for name, used in uses.items():
        there = set(used) <= set(features) and (used or name == "position")
        fitted[name] = _fit(name, used, cases, y, groups) if there else None
    return fitted


def predict_baselines(
    card: Mapping[str, Any], inputs: TileInputs
) -> dict[str, NDArray[np.float64] | None]:
    """Predictions (n,) of the normalised SUV by every baseline of a model's card."""
    found: dict[str, NDArray[np.float64] | None] = {}
    for name, values in card["baselines"].items():
        found[name] = None if values is None else Baseline.from_dict(values).predict(inputs)
    return found
