"""A random forest as flat arrays: trained by scikit-learn, kept without pickle, predicted fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.segment.filters import Float32

__all__ = ["FlatForest", "grow_forest"]

_NAMES = ("roots", "feature", "threshold", "left", "right", "probability")


@dataclass(frozen=True, slots=True, eq=False)
class FlatForest:
    """All trees one after another; a node without children has ``feature == -1``.

    Parameters
    ----------
    roots
        (trees,) index of each tree's first node.
    feature, threshold
        (nodes,) a sample goes left where its feature is at most the threshold.
    left, right
        (nodes,) indices of the children.
    probability
        (nodes, classes) class frequencies of the training samples at each node.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    probability: Float32

    def predict(self, samples: Float32) -> Float32:
        """Class probabilities (n, classes) of samples (n, features): the mean over the trees."""
        samples = np.ascontiguousarray(samples, np.float32)
        needed = int(self.feature.max(initial=-1)) + 1
        if samples.ndim != 2 or samples.shape[1] < needed:
            raise InputError(f"the forest needs {needed} features, not shape {samples.shape}")
        return _descend(
            samples,
            self.roots,
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.probability,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, for a weights file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in _NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FlatForest:
        """The inverse of `arrays`; a forest that would lead astray raises `CorruptArtifact`."""
        missing = [name for name in _NAMES if name not in arrays]
        if missing:
            raise CorruptArtifact(f"the forest's weights lack {', '.join(missing)}; train it anew")
        forest = cls(*(np.asarray(arrays[name]) for name in _NAMES))
        n, inner = forest.feature.size, forest.feature >= 0
        children = np.concatenate([forest.left[inner], forest.right[inner]])
        parents = np.tile(np.flatnonzero(inner), 2)
        lengths = {forest.threshold.size, forest.left.size, forest.right.size}
        sound = lengths == {n} and forest.probability.shape[:1] == (n,) and forest.roots.size > 0
        if not sound or (children <= parents).any() or (children >= n).any():
            raise CorruptArtifact("the forest's weights are damaged; train it anew")
        if (forest.roots < 0).any() or (forest.roots >= n).any():
            raise CorruptArtifact("the forest's weights are damaged; train it anew")
        return forest


def grow_forest(
    samples: Float32,
    labels: NDArray[Any],
    n_classes: int,
    *,
    n_trees: int,
    max_depth: int,
    min_leaf: int,
    seed: int,
) -> FlatForest:
    """Train a random forest with classes weighted to equal importance.

    Parameters
    ----------
    samples
        (n, features).
    labels
        (n,) class codes 1..n_classes; a class without samples gets the probability 0.
    n_trees, max_depth, min_leaf
        Size of the forest.
    seed
        Equal seeds give equal forests, whatever the number of cores.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes = np.asarray(labels, np.int64)
    present = np.unique(codes)
    if present.size < 2 or present[0] < 1 or present[-1] > n_classes:
        raise InputError(
            f"a classifier needs samples of at least two of the classes 1 to {n_classes}; "
            f"there are samples of {present.tolist()}. Draw shapes of another class."
        )
    model = RandomForestClassifier(
        n_trees,
        max_depth=max_depth,
        min_samples_leaf=min_leaf,
        class_weight="balanced",
        random_state=seed,
        n_jobs=2,
    )
    model.fit(np.asarray(samples, np.float32), codes)
    trees = [estimator.tree_ for estimator in model.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])
    values = np.concatenate([tree.value[:, 0, :] for tree in trees])
    probability = np.zeros((values.shape[0], n_classes), np.float32)
    probability[:, present - 1] = values / values.sum(axis=1, keepdims=True)
    leaf = np.concatenate([tree.children_left for tree in trees]) < 0

    def joined(name: str) -> NDArray[np.int32]:
        parts = [getattr(tree, name) + start for tree, start in zip(trees, roots, strict=False)]
        return np.where(leaf, -1, np.concatenate(parts)).astype(np.int32)

    feature = np.where(leaf, -1, np.concatenate([tree.feature for tree in trees]))
    return FlatForest(
        roots[:-1].astype(np.int32),
        feature.astype(np.int32),
        np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
        joined("children_left"),
        joined("children_right"),
        probability,
    )


@compiled
def _descend(
    samples: Float32,
    roots: NDArray[np.int32],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    probability: Float32,
) -> Float32:
    n, k = samples.shape[0], probability.shape[1]
    total = np.zeros((n, k), np.float64)
    for root in roots:
        for i in range(n):
            node = root
            while feature[node] >= 0:
                below = samples[i, feature[node]] <= threshold[node]
                node = left[node] if below else right[node]
            for j in range(k):
                total[i, j] += probability[node, j]
    return (total / roots.size).astype(np.float32)
