"""Forests and boosting as plain arrays: fitted by scikit-learn, stored without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray

__all__ = ["TreeEnsemble", "fit_trees"]


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
