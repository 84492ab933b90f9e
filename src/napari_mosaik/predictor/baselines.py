"""Simple baselines, fitted on the same training tiles as the network.

    training cases ─► Surroundings (columns of a tile, of what the scanner sees, of both)
                          └─► mean, lines, ridge, forest, boosting, source and blur ─► model card

They see the measured values as they are: nothing is clipped to the range of the training tiles.
A baseline is a record in the card and, where it has many numbers, arrays beside the weights; no
baseline is stored by pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.preprocessing import StandardScaler

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import TargetScale, TrainedModel
from napari_mosaik.predictor.source_blur import SourceBlur, fit_source_blur
from napari_mosaik.predictor.surroundings import Stack, Surroundings

__all__ = [
    "ABOUT",
    "ARRAY_PREFIX",
    "Baseline",
    "TreeEnsemble",
    "fit_baselines",
    "fit_trees",
    "predict_baselines",
    "with_baselines",
]

_SEEN: Final[dict[Stack, str]] = {
    "tile": "the tile parameters",
    "psf": "means of the tile parameters over what the scanner sees, and its share of tissue",
    "all": "the tile parameters, their means over 3 x 3 and 11 x 11 tiles and over what the "
    "scanner sees, and the shares of tissue",
}
_REGRESSIONS: Final = {
    "ridge": "ridge regression on",
    "forest": "random forest on",
    "boosting": "gradient boosting on",
}


def _descriptions() -> dict[str, str]:
    found = {
        "mean": "mean of the training tiles",
        "caix_linear": "linear regression on the CAIX score",
        "mechanistic": "linear regression on the antibody that the delivery-limited curve of the "
        "tile retains",
    }
    for stack, seen in _SEEN.items():
        ending = "" if stack == "tile" else f"_{stack}"
        found |= {f"{name}{ending}": f"{text} {seen}" for name, text in _REGRESSIONS.items()}
    found["source_blur"] = "a source in each tile, blurred by a Gaussian of learnt width"
    found["position"] = (
        "ridge regression on position and distance to the edge only, without the tissue"
    )
    return found


ABOUT: Final = _descriptions()
"""Name and description of each baseline."""
ARRAY_PREFIX: Final = "baseline."
"""Arrays of a model under such a name belong to a baseline, not to the network."""

_ALPHAS: Final = tuple(10.0 ** np.arange(-2, 5))
_N_CENTRES: Final = 60
_LENGTH: Final = 0.75
_RETAINED: Final = slice(1, 3)
"""Bound and internalised antibody, of free, bound and internalised."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A fitted baseline of the normalised SUV.

    Parameters
    ----------
    name
        One of `ABOUT`.
    record
        JSON-able: ``kind``, what it reads, and its numbers where they are few.
    arrays
        Its other numbers, by name.
    """

    name: str
    record: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What stands in the model's card."""
        return {"about": ABOUT[self.name], **self.record}

    def named_arrays(self) -> dict[str, NDArray[Any]]:
        """What stands beside the network's weights."""
        return {f"{ARRAY_PREFIX}{self.name}.{key}": value for key, value in self.arrays.items()}

    @classmethod
    def of_model(cls, model: TrainedModel, name: str) -> Baseline | None:
        """A baseline of a model; None where it was not available in training."""
        record = model.card["baselines"][name]
        if record is None:
            return None
        start = f"{ARRAY_PREFIX}{name}."
        arrays = {k.removeprefix(start): v for k, v in model.weights.items() if k.startswith(start)}
        return cls(name, {k: v for k, v in record.items() if k != "about"}, arrays)

    def predict(self, surroundings: Surroundings) -> FloatArray:
        """(n,) normalised SUV, not clipped; dimensionless."""
        return _KINDS[self.record["kind"]](self, surroundings)


def _predict_mean(baseline: Baseline, surroundings: Surroundings) -> FloatArray:
    return np.full(len(surroundings.inputs), float(baseline.record["intercept"]))


def _predict_line(baseline: Baseline, surroundings: Surroundings) -> FloatArray:
    record = baseline.record
    columns = _columns(baseline.name, record["stack"], record["columns"], surroundings)
    columns = np.where(np.isfinite(columns), columns, np.asarray(record["medians"]))
    basis = (columns - np.asarray(record["centre"])) / np.asarray(record["scale"])
    if record["knots"]:
        basis = _radial(basis, np.asarray(record["knots"]))
    return np.asarray(basis @ np.asarray(record["weights"]) + record["intercept"], float)


def _predict_trees(baseline: Baseline, surroundings: Surroundings) -> FloatArray:
    record = baseline.record
    columns = _columns(baseline.name, record["stack"], record["columns"], surroundings)
    return TreeEnsemble.from_arrays(baseline.arrays).predict(columns)


def _predict_source(baseline: Baseline, surroundings: Surroundings) -> FloatArray:
    record = baseline.record
    _columns(baseline.name, "tile", record["columns"], surroundings)
    seen = SourceBlur.from_record(record, baseline.arrays).predict(surroundings)
    return seen + float(record["intercept"])


_KINDS: Final[dict[str, Callable[[Baseline, Surroundings], FloatArray]]] = {
    "mean": _predict_mean,
    "line": _predict_line,
    "trees": _predict_trees,
    "source_blur": _predict_source,
}


def _columns(
    name: str, stack: Stack, columns: Sequence[str], surroundings: Surroundings
) -> FloatArray:
    """(n, k) raw columns of a baseline."""
    inputs = surroundings.inputs
    if name == "position":
        return _position(inputs)
    if name == "mechanistic":
        return _retained(inputs)
    names = surroundings.names(stack)
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(
            f"case {inputs.case}: baseline '{name}' needs the tile parameter '{missing[0]}'"
        )
    return surroundings.columns(stack)[:, [names.index(column) for column in columns]]


def _retained(inputs: TileInputs) -> FloatArray:
    """(n, 1) antibody that each tile holds at the last time, in the unit of the curves."""
    last = inputs.tile_curves(np.arange(len(inputs)))[:, -1]
    return np.asarray(last[:, _RETAINED].sum(axis=1, keepdims=True), float)


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
    if len(np.unique(groups)) < 2:
        return Ridge(alpha=1.0, solver="cholesky").fit(basis, y)
    folds = list(LeaveOneGroupOut().split(basis, y, groups))
    search = GridSearchCV(
        Ridge(solver="cholesky"),
        {"alpha": list(_ALPHAS)},
        scoring=_negative_square,
        cv=folds,
    )
    return search.fit(basis, y).best_estimator_


def _negative_square(model: Ridge, x: FloatArray, target: FloatArray) -> float:
    return -float(((model.predict(x) - target) ** 2).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """The measured tiles of the training cases."""

    cases: tuple[Surroundings, ...]
    target: TargetScale
    seed: int

    @property
    def y(self) -> FloatArray:
        """(m,) normalised SUV, not clipped."""
        found = [self.target.normalise(_suv(c)[c.inputs.measured], clip=False) for c in self.cases]
        return np.concatenate(found)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(m,) number of the case of each tile."""
        return np.repeat(np.arange(len(self.cases)), [c.inputs.measured.sum() for c in self.cases])

    def columns(self, name: str, stack: Stack, columns: Sequence[str]) -> FloatArray:
        """(m, k) raw columns of a baseline."""
        parts = [_columns(name, stack, columns, c)[c.inputs.measured] for c in self.cases]
        raw = np.concatenate(parts)
        return np.where(np.isfinite(raw), raw, np.nan)


def _suv(case: Surroundings) -> FloatArray:
    return np.asarray(case.inputs.suv, float)


def _fit_line(name: str, stack: Stack, columns: Sequence[str], training: _Training) -> Baseline:
    """Impute, standardise, and fit a line or a ridge."""
    known = training.columns(name, stack, columns)
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(known)
    scaler = StandardScaler().fit(imputer.transform(known))
    basis = scaler.transform(imputer.transform(known))
    knots = _farthest(basis, _N_CENTRES) if name == "position" else np.zeros((0, 0))
    basis = _radial(basis, knots) if len(knots) else basis
    penalised = name not in ("caix_linear", "mechanistic")
    y = training.y
    model = _ridge(basis, y, training.groups) if penalised else LinearRegression().fit(basis, y)
    record = {
        "kind": "line",
        "stack": stack,
        "columns": list(columns),
        "medians": imputer.statistics_.tolist(),
        "n_imputed": [int(n) for n in np.isnan(known).sum(axis=0)],
        "centre": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "weights": model.coef_.tolist(),
        "intercept": float(model.intercept_),
        "alpha": float(model.alpha) if penalised else 0.0,
        "knots": knots.tolist(),
    }
    return Baseline(name, record)


def _fit_trees(name: str, stack: Stack, columns: Sequence[str], training: _Training) -> Baseline:
    kind, known = name.partition("_")[0], training.columns(name, stack, columns)
    if kind not in ("forest", "boosting"):
        raise ValueError(f"'{kind}' are not trees")
    fitted = fit_trees(
        "forest" if kind == "forest" else "boosting", known, training.y, training.seed
    )
    record = {"kind": "trees", "stack": stack, "columns": list(columns), "trees": len(fitted.roots)}
    return Baseline(name, record, fitted.arrays())


def _fit_source(columns: Sequence[str], training: _Training) -> Baseline:
    """The source is of SUV, not of normalised SUV: no source, no uptake."""
    span = training.target.high - training.target.low
    targets = [np.where(c.inputs.measured, _suv(c) / span, np.nan) for c in training.cases]
    fitted = fit_source_blur(training.cases, targets, training.seed)
    record = {
        "kind": "source_blur",
        "columns": list(columns),
        "learnt_fwhm_um": fitted.fwhm_um,
        "intercept": -training.target.low / span,
    }
    return Baseline("source_blur", record, fitted.arrays)


def fit_baselines(
    cases: Sequence[TileInputs],
    target: TargetScale,
    *,
    caix: str = "caix_h_score",
    fwhm_um: float,
    seed: int = 0,
    only: Collection[str] = (),
) -> dict[str, Baseline | None]:
    """Fit every baseline on the measured tiles of the training cases.

    Parameters
    ----------
    cases
        Training cases, with the same tile parameters in the same order.
    target
        Scaling of the SUV.
    caix
        Name of the tile parameter that is the CAIX score.
    fwhm_um
        Resolution of the scanner, µm of the reference section.
    seed
        Random seed of forests, boosting and the source network.
    only
        Names of the baselines that are fitted; all of them if empty.

    Returns
    -------
    dict
        Name (see `ABOUT`) to baseline; None where what it reads is missing.

    Notes
    -----
    Missing values become the training median, trees split them off; the strength of the ridge
    penalty is chosen by leave-one-case-out over the training cases.
    """
    if len({case.feature_names for case in cases}) != 1:
        raise InputError("the training cases have different tile parameters")
    features = cases[0].feature_names
    seen = tuple(Surroundings(case, fwhm_um) for case in cases)
    training = _Training(seen, target, seed)
    fits: dict[str, Callable[[], Baseline]] = {
        "mean": lambda: Baseline("mean", {"kind": "mean", "intercept": float(training.y.mean())}),
        "position": partial(_fit_line, "position", "tile", (), training),
    }
    if caix in features:
        fits["caix_linear"] = partial(_fit_line, "caix_linear", "tile", (caix,), training)
    if all(case.curves.ndim == 3 for case in cases):
        fits["mechanistic"] = partial(_fit_line, "mechanistic", "tile", (), training)
    if features:
        fits["source_blur"] = partial(_fit_source, features, training)
        for stack in _SEEN:
            ending, names = "" if stack == "tile" else f"_{stack}", seen[0].names(stack)
            fits[f"ridge{ending}"] = partial(_fit_line, f"ridge{ending}", stack, names, training)
            for kind in ("forest", "boosting"):
                name = f"{kind}{ending}"
                fits[name] = partial(_fit_trees, name, stack, names, training)
    wanted = [name for name in ABOUT if name in only or not only]
    return {name: fits[name]() if name in fits else None for name in wanted}


def with_baselines(
    model: TrainedModel,
    cases: Sequence[TileInputs],
    *,
    caix: str = "caix_h_score",
    fwhm_um: float,
    only: Collection[str] = (),
) -> TrainedModel:
    """A trained network with the baselines that were fitted on its training cases.

    Parameters as for `fit_baselines`.
    """
    seed = int(model.card["seed"])
    found = fit_baselines(cases, model.target, caix=caix, fwhm_um=fwhm_um, seed=seed, only=only)
    weights, records = dict(model.weights), dict[str, Any]()
    for name, baseline in found.items():
        records[name] = None if baseline is None else baseline.as_dict()
        weights |= {} if baseline is None else baseline.named_arrays()
    return TrainedModel(weights, {**model.card, "fwhm_um": fwhm_um, "baselines": records})


def predict_baselines(
    model: TrainedModel, inputs: TileInputs
) -> dict[str, NDArray[np.float64] | None]:
    """Predictions (n,) of the normalised SUV by every baseline of a model; dimensionless."""
    surroundings = Surroundings(inputs, float(model.card["fwhm_um"]))
    found = {name: Baseline.of_model(model, name) for name in model.card["baselines"]}
    return {
        name: None if baseline is None else baseline.predict(surroundings)
        for name, baseline in found.items()
    }


# --- forests and boosting as arrays ---------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class TreeEnsemble:
    """Regression trees whose values add up; nodes of all trees one after the other.

    Parameters
    ----------
    roots
        (t,) index of the first node of each tree.
    column
        (m,) column that a node asks about; -1 for a leaf.
    threshold
        (m,) largest value of the column that goes to the left, in its unit.
    left, right
        (m,) index of the next node.
    missing_left
        (m,) whether a missing value (NaN) goes to the left.
    value
        (m,) what a leaf adds to the prediction; 0 elsewhere; dimensionless.
    base
        (1,) the prediction before any tree, dimensionless.
    """

    roots: NDArray[np.int32]
    column: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    base: NDArray[np.float64]

    def predict(self, columns: FloatArray) -> FloatArray:
        """(n,) predictions from the columns (n, k), in their units, NaN allowed; dimensionless."""
        columns = columns.astype(np.float32)
        out = np.full(len(columns), self.base[0])
        tile = np.arange(len(columns))
        for root in self.roots:
            node = np.full(len(columns), root)
            while (inner := self.column[node] >= 0).any():
                at, who = node[inner], tile[inner]
                asked = columns[who, self.column[at]]
                with np.errstate(invalid="ignore"):
                    goes_left = asked <= self.threshold[at]
                goes_left = np.where(np.isnan(asked), self.missing_left[at], goes_left)
                node[inner] = np.where(goes_left, self.left[at], self.right[at])
            out += self.value[node]
        return out

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name to array, for storing."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def fit_trees(
    kind: Literal["forest", "boosting"], columns: FloatArray, target: FloatArray, seed: int
) -> TreeEnsemble:
    """Fit scikit-learn's random forest or histogram gradient boosting.

    Parameters
    ----------
    kind
        "forest" or "boosting".
    columns
        (n, k) columns in the unit of each; NaN: missing, which the trees know how to split.  A
        column without a value (a stain that no case has) is never used.
    target
        (n,) what is predicted, dimensionless.
    seed
        Random seed of the samples.

    Raises
    ------
    RuntimeError
        The arrays do not predict what scikit-learn predicts.
    """
    from threadpoolctl import threadpool_limits

    columns = np.where(np.isnan(columns).all(axis=0), 0.0, columns).astype(np.float32)
    # Sums over threads end in other last bits for another number of cores.
    with threadpool_limits(1):
        model = _forest(seed) if kind == "forest" else _boosting(seed)
        model.fit(columns, target)
        expected = model.predict(columns)
    trees = _of_forest(model) if kind == "forest" else _of_boosting(model)
    if not np.allclose(trees.predict(columns), expected, rtol=1e-9, atol=1e-9):
        raise RuntimeError(f"the {kind} of this scikit-learn is stored in another way")
    return trees


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(
        n_estimators=100, min_samples_leaf=5, max_features=1 / 3, random_state=seed
    )


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=200,
        learning_rate=0.06,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )


def _of_forest(model: Any) -> TreeEnsemble:
    found = [one.tree_ for one in model.estimators_]
    parts = [
        {
            "column": np.where(tree.children_left < 0, -1, tree.feature),
            "threshold": tree.threshold,
            "left": tree.children_left,
            "right": tree.children_right,
            "missing_left": tree.missing_go_to_left,
            "value": np.where(tree.children_left < 0, tree.value[:, 0, 0], 0.0) / len(found),
        }
        for tree in found
    ]
    return _joined(parts, 0.0)


def _of_boosting(model: Any) -> TreeEnsemble:
    parts = []
    for (tree,) in model._predictors:
        nodes = tree.nodes
        leaf = nodes["is_leaf"].astype(bool)
        parts.append(
            {
                "column": np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)),
                "threshold": nodes["num_threshold"],
                "left": nodes["left"].astype(np.int64),
                "right": nodes["right"].astype(np.int64),
                "missing_left": nodes["missing_go_to_left"],
                "value": np.where(leaf, nodes["value"], 0.0),
            }
        )
    return _joined(parts, float(np.ravel(model._baseline_prediction)[0]))


def _joined(parts: list[dict[str, Any]], base: float) -> TreeEnsemble:
    """One list of nodes; positions within a tree become positions in the list."""
    sizes = np.array([len(part["value"]) for part in parts])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    column = np.concatenate([part["column"] for part in parts]).astype(np.int32)
    shift = np.repeat(roots, sizes)
    inner = column >= 0

    def moved(name: str) -> NDArray[np.int32]:
        found = np.concatenate([part[name] for part in parts])
        return np.where(inner, found + shift, 0).astype(np.int32)

    def plain(name: str) -> NDArray[np.float64]:
        return np.concatenate([part[name] for part in parts]).astype(float)

    return TreeEnsemble(
        roots.astype(np.int32),
        column,
        np.where(inner, plain("threshold"), 0.0),
        moved("left"),
        moved("right"),
        (plain("missing_left") > 0) & inner,
        plain("value"),
        np.array([base]),
    )
