"""Simple baselines, fitted on the same training tiles as the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.preprocessing import StandardScaler

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import TargetScale

__all__ = ["ABOUT", "Baseline", "BaselineColumns", "fit_baselines", "predict_baselines"]

ABOUT: Final = {
    "mean": "mean of the training tiles",
    "caix_linear": "linear regression on the CAIX score",
    "mechanistic": "linear regression on vessel surface density times CAIX",
    "ridge": "ridge regression on the tile parameters",
    "position": "ridge regression on position and distance to the edge only, without the tissue",
}
"""Name and description of each baseline."""

_ALPHAS: Final = tuple(10.0 ** np.arange(-2, 5))
_N_CENTRES: Final = 60
_LENGTH: Final = 0.75


@dataclass(frozen=True, slots=True)
class BaselineColumns:
    """Tile parameters of the simple baselines; without them a baseline is not available."""

    caix: str = "caix_h_score"
    supply: str = "vessel_perimeter_density_per_um"


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted linear prediction of the normalised SUV, JSON-able.

    Parameters
    ----------
    name
        One of `ABOUT`.
    columns
        Tile parameters (or their product) that it uses; empty for the mean and for position.
    medians
        Training medians that replace missing values.
    n_imputed
        Missing values among the training tiles, per column.
    centre, scale
        (k,) mean and SD of the columns over the training tiles.
    weights, intercept
        Coefficients (k,) of the standardised columns or radial functions, and intercept.
    alpha
        Strength of the ridge penalty; 0 for least squares.
    knots
        (k, 3) centres of the radial functions of the position baseline.
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
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        fields.pop("about", None)
        fields["knots"] = tuple(tuple(knot) for knot in fields.get("knots", ()))
        return cls(**fields)

    def predict(self, inputs: TileInputs) -> FloatArray:
        """(n,) normalised SUV, clipped to [0, 1]; dimensionless."""
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
    """Up to *n* points far from one another, the first nearest to the mean (deterministic)."""
    distance = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(np.argmin(distance))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(n, len(points)) and nearest.max() > 0:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _ridge(basis: FloatArray, y: FloatArray, groups: NDArray[np.int64]) -> Ridge:
    """Ridge regression; its strength has the smallest squared error on held-out training cases."""
    n_cases = len(np.unique(groups))
    if n_cases < 2:
        return Ridge(alpha=1.0, solver="cholesky").fit(basis, y)

    def score(model: Ridge, x: FloatArray, target: FloatArray) -> float:
        return -float(((np.clip(model.predict(x), 0, 1) - target) ** 2).sum())

    folds = list(LeaveOneGroupOut().split(basis, y, groups))
    search = GridSearchCV(
        Ridge(solver="cholesky"), {"alpha": list(_ALPHAS)}, scoring=score, cv=folds
    )
    return search.fit(basis, y).best_estimator_


def _fit(
    name: str,
    columns: Sequence[str],
    cases: Sequence[TileInputs],
    y: FloatArray,
    groups: NDArray[np.int64],
) -> Baseline:
    """Impute, standardise, and fit a line or a ridge."""
    raw = np.concatenate([_columns(name, columns, case)[case.measured] for case in cases])
    known = np.where(np.isfinite(raw), raw, np.nan)
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(known)
    scaler = StandardScaler().fit(imputer.transform(known))
    basis = scaler.transform(imputer.transform(known))
    knots = _farthest(basis, _N_CENTRES) if name == "position" else np.zeros((0, 0))
    basis = _radial(basis, knots) if len(knots) else basis
    penalised = name in ("ridge", "position")
    model = _ridge(basis, y, groups) if penalised else LinearRegression().fit(basis, y)
    return Baseline(
        name,
        tuple(columns),
        tuple(imputer.statistics_.tolist()),
        tuple(int(n) for n in np.isnan(known).sum(axis=0)),
        tuple(scaler.mean_.tolist()),
        tuple(scaler.scale_.tolist()),
        tuple(model.coef_.tolist()),
        float(model.intercept_),
        float(model.alpha) if penalised else 0.0,
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
        Name (see `ABOUT`) to baseline; None where a tile parameter is missing.

    Notes
    -----
    Missing values become the training median; the strength of the ridge penalty is chosen by
    leave-one-case-out over the training cases.
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
        available = set(used) <= set(features) and (used or name == "position")
        fitted[name] = _fit(name, used, cases, y, groups) if available else None
    return fitted


def predict_baselines(
    card: Mapping[str, Any], inputs: TileInputs
) -> dict[str, NDArray[np.float64] | None]:
    """Predictions (n,) of the normalised SUV by every baseline of a model's card; dimensionless."""
    predictions: dict[str, NDArray[np.float64] | None] = {}
    for name, values in card["baselines"].items():
        predictions[name] = None if values is None else Baseline.from_dict(values).predict(inputs)
    return predictions
