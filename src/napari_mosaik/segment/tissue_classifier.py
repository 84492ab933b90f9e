"""Tissue classes on H&E: neoplastic, non-neoplastic, background, each with its probability.

The fast classifier, a random forest, trains on a few annotations in seconds.  The paper's network
(`densenet`) implements the same `TissueModel` interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.compiled import compiled, processor_record
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment.filters import Float32, require_rgb
from napari_mosaik.segment.model_files import read_card, save_weights, weights_digest
from napari_mosaik.segment.pixel_features import feature_names, pixel_features, reduce_rgb

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = [
    "CLASSES",
    "FastTissueModel",
    "FlatForest",
    "TissueClassParams",
    "TissueModel",
    "block_features",
    "class_importances",
    "class_labels",
    "grow_forest",
    "load_fast",
    "predict_raster",
    "segment_classes",
    "train_fast",
]

TOLD_FEATURES = 6
"""Features per class in the model card."""
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
        """Class probabilities (fraction), (n, classes): the mean over the trees.

        *samples* are features, (n, features), dimensionless.
        """
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
        """The inverse of `arrays`; inconsistent arrays raise `CorruptArtifact`."""
        missing = [name for name in _NAMES if name not in arrays]
        if missing:
            raise CorruptArtifact(f"the forest's weights lack {', '.join(missing)}; train it again")
        forest = cls(*(np.asarray(arrays[name]) for name in _NAMES))
        n, inner = forest.feature.size, forest.feature >= 0
        children = np.concatenate([forest.left[inner], forest.right[inner]])
        parents = np.tile(np.flatnonzero(inner), 2)
        lengths = {forest.threshold.size, forest.left.size, forest.right.size}
        valid = lengths == {n} and forest.probability.shape[:1] == (n,) and forest.roots.size > 0
        if not valid or (children <= parents).any() or (children >= n).any():
            raise CorruptArtifact("the forest's weights are damaged; train it again")
        if (forest.roots < 0).any() or (forest.roots >= n).any():
            raise CorruptArtifact("the forest's weights are damaged; train it again")
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
    weights: NDArray[Any] | None = None,
) -> FlatForest:
    """Train a random forest with balanced class weights.

    Parameters
    ----------
    samples
        (n, features), dimensionless.
    labels
        (n,) class codes 1..n_classes (label); a class without samples gets probability 0.
    n_trees, max_depth, min_leaf
        Size of the forest.
    seed
        Equal seeds give equal forests, whatever the number of cores.
    weights
        (n,) weight of each sample (fraction); 1 for all if None.
    """
    model = _fitted(samples, labels, n_classes, n_trees, max_depth, min_leaf, seed, weights)
    return _flattened(model, n_classes)


def _fitted(
    samples: Float32,
    labels: NDArray[Any],
    n_classes: int,
    n_trees: int,
    max_depth: int,
    min_leaf: int,
    seed: int,
    weights: NDArray[Any] | None = None,
) -> RandomForestClassifier:
    from sklearn.ensemble import RandomForestClassifier

    codes = np.asarray(labels, np.int64)
    present = np.unique(codes)
    if present.size < 2 or present[0] < 1 or present[-1] > n_classes:
        raise InputError(
            f"a classifier needs samples of at least two of the classes 1 to {n_classes}, not only "
            f"of {present.tolist()}; annotate another class"
        )
    model = RandomForestClassifier(
        n_trees,
        max_depth=max_depth,
        min_samples_leaf=min_leaf,
        class_weight="balanced",
        random_state=seed,
        n_jobs=2,
    )
    return model.fit(np.asarray(samples, np.float32), codes, sample_weight=weights)


def _flattened(model: RandomForestClassifier, n_classes: int) -> FlatForest:
    present = model.classes_
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


def class_importances(model: RandomForestClassifier, n_classes: int) -> FloatArray:
    """How much each feature separates each class, shape (classes, features), fraction of all.

    The decrease of the Gini impurity p (1 - p) of a class at the nodes that split by a feature;
    the sum over the classes is scikit-learn's importance of the features; all together are 1.
    """
    total = np.zeros((n_classes, model.n_features_in_))
    for tree in (estimator.tree_ for estimator in model.estimators_):
        share = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
        impurity = tree.weighted_n_node_samples[:, None] * share * (1 - share)
        inner = np.flatnonzero(tree.children_left >= 0)
        children = impurity[tree.children_left[inner]] + impurity[tree.children_right[inner]]
        own = np.zeros((tree.n_features, share.shape[1]))
        np.add.at(own, tree.feature[inner], impurity[inner] - children)
        if own.sum() > 0:
            total[np.asarray(model.classes_, int) - 1] += own.T / own.sum()
    return total / total.sum() if total.any() else total


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


CLASSES = tuple(name for code, name in sorted(CLASS_NAMES.items()) if code > 0)
"""The program's classes in the order of their codes 1, 2, 3."""


class TissueClassParams(Params):
    """Settings of the fast tissue classifier."""

    spacing_um: float = setting(8.0, "Pixel size of the class map.", unit="µm", gt=0, le=100)
    read_spacing_um: float = setting(
        2.0,
        "Pixel size at which the slide is read; a whole fraction of that of the class map.",
        unit="µm",
        gt=0,
        le=100,
    )
    scales_um: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = setting(
        (4.0, 8.0),
        "Standard deviations of the surroundings from which features are computed.",
        unit="µm",
        advanced=True,
    )
    n_trees: int = setting(60, "Number of trees.", ge=1, le=1000)
    max_depth: int = setting(12, "Maximum depth of a tree.", ge=1, le=40, advanced=True)
    min_leaf: int = setting(4, "Minimum number of samples in a leaf.", ge=1, le=1000, advanced=True)
    max_per_class: int = setting(
        3000, "Maximum number of training pixels of one class.", ge=10, le=1_000_000, advanced=True
    )


class TissueModel(Protocol):
    """A tissue classifier: the fast one or the paper's network."""

    @property
    def name(self) -> str:
        """Short name of the method."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the code of a class is its position plus one."""

    @property
    def spacing_um(self) -> float:
        """Pixel size of the probabilities, µm."""

    @property
    def read_spacing_um(self) -> float:
        """Pixel size at which the slide is read, µm."""

    @property
    def halo_um(self) -> float:
        """Halo that a block needs, µm; a multiple of `spacing_um`."""

    @property
    def training(self) -> Mapping[str, Any]:
        """JSON-able record of what it was trained on."""

    @property
    def computed_on(self) -> Mapping[str, str]:
        """Device, its precision and the versions of the packages that its numbers depend on."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about what changed during the prediction."""

    @property
    def hash(self) -> str:
        """Digest of weights and settings: equal digests, equal predictions."""

    def predict_block(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Probabilities (fraction) of a block that begins on the class lattice.

        *rgb* holds 8-bit levels, (rows, columns, 3) at *spacing_um*; the result has the shape
        (class rows, class columns, classes).
        """

    def predict(self, image: Raster) -> Raster:
        """Probabilities (fraction) of an image, (rows, columns, classes) at `spacing_um`.

        *image* holds 8-bit levels, (rows, columns, 3).
        """

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``card.json``."""


@dataclass(frozen=True, slots=True, eq=False)
class FastTissueModel:
    """Random forest on colour and texture.

    Parameters
    ----------
    forest
        The trees.
    params
        Settings with which it was trained; they apply to prediction, too.
    classes
        Class names in order of their codes.
    training
        JSON-able record of what it was trained on.
    """

    forest: FlatForest
    params: TissueClassParams
    classes: tuple[str, ...] = CLASSES
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name of the method."""
        return "fast"

    @property
    def spacing_um(self) -> float:
        """Pixel size of the probabilities, µm."""
        return self.params.spacing_um

    @property
    def read_spacing_um(self) -> float:
        """Pixel size at which the slide is read, µm."""
        return self.params.read_spacing_um

    @property
    def halo_um(self) -> float:
        """Halo that a block needs, µm: the reach of the widest smoothing."""
        return fast_halo_um(self.params)

    @property
    def hash(self) -> str:
        """Digest of weights and settings: equal digests, equal predictions."""
        return weights_digest(self.forest.arrays(), self._essentials())

    @property
    def computed_on(self) -> dict[str, str]:
        """The processor, with the packages that its numbers depend on."""
        return processor_record()

    @property
    def notes(self) -> tuple[str, ...]:
        """Empty: nothing changes during the prediction."""
        return ()

    def features(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Features of a block, shape (class rows, class columns, f), dimensionless.

        *rgb* holds 8-bit levels, (rows, columns, 3), at *spacing_um*.
        """
        return block_features(rgb, spacing_um, self.params)

    def predict_block(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Probabilities (fraction) of a block that begins on the class lattice.

        *rgb* holds 8-bit levels, (rows, columns, 3) at *spacing_um*; the result has the shape
        (class rows, class columns, classes).
        """
        features = self.features(rgb, spacing_um)
        probability = self.forest.predict(features.reshape(-1, features.shape[2]))
        return probability.reshape(*features.shape[:2], len(self.classes))

    def predict(self, image: Raster) -> Raster:
        """Probabilities (fraction) of an image, (rows, columns, classes) at `spacing_um`.

        *image* holds 8-bit levels, (rows, columns, 3).
        """
        return predict_raster(self, image)

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``card.json``."""
        save_weights(folder, self.forest.arrays(), self._essentials(), self.training)

    def _essentials(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "classes": list(self.classes),
            "params": self.params.model_dump(mode="json"),
        }


def fast_halo_um(params: TissueClassParams) -> float:
    """Halo that a block needs with these settings, µm: the reach of the widest smoothing."""
    widest = max(params.scales_um, default=0.0)
    return float(np.ceil(3 * widest / params.spacing_um) + 1) * params.spacing_um


def block_features(rgb: NDArray[np.uint8], spacing_um: float, params: TissueClassParams) -> Float32:
    """Features of an image of any pixel size that divides ``read_spacing_um``, dimensionless.

    *rgb* holds 8-bit levels, (rows, columns, 3); the result has the shape (class rows, class
    columns, f).
    """
    factor = max(1, round(params.read_spacing_um / spacing_um))
    if abs(factor * spacing_um - params.read_spacing_um) > 0.02 * params.read_spacing_um:
        raise InputError(
            f"the tissue classifier reads pixels of {params.read_spacing_um:g} µm, and "
            f"{spacing_um:g} µm is not a whole fraction of that; read the slide at that pixel size"
        )
    reduced = reduce_rgb(rgb, factor)
    return pixel_features(reduced, params.read_spacing_um, params.spacing_um, params.scales_um)


def train_fast(
    features: Float32,
    labels: NDArray[Any],
    params: TissueClassParams,
    rng: np.random.Generator,
    classes: tuple[str, ...] = CLASSES,
    training: Mapping[str, Any] | None = None,
    weights: NDArray[Any] | None = None,
) -> FastTissueModel:
    """Train the fast classifier on samples of one or many slides.

    Parameters
    ----------
    features
        (n, f) features of annotated pixels (`FastTissueModel.features`, `sample_training_pixels`).
    labels
        (n,) class codes 1..K.
    params
        Settings.
    rng
        Random number generator; equal states give equal forests.
    classes
        Class names in order of their codes.
    training
        Entries of the model card; the sample counts are added.
    weights
        (n,) weight of each sample (fraction); 1 for all if None.
    """
    n = len(classes)
    seed = int(rng.integers(2**31))
    size = params.n_trees, params.max_depth, params.min_leaf
    fitted = _fitted(features, labels, n, *size, seed, weights)
    counts = np.bincount(np.asarray(labels, np.int64), minlength=n + 1)[1:]
    record = {
        "samples": dict(zip(classes, counts.tolist(), strict=True)),
        "features": _telling_features(class_importances(fitted, n), params, classes),
        **(training or {}),
    }
    return FastTissueModel(_flattened(fitted, n), params, classes, record)


def _telling_features(
    importances: FloatArray, params: TissueClassParams, classes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """The features that separate each class most, and their fractions of what separates it."""
    names = feature_names(params.scales_um)
    found = {}
    for name, own in zip(classes, importances, strict=True):
        if own.sum() > 0 and len(own) == len(names):
            first = np.argsort(-own, kind="stable")[:TOLD_FEATURES]
            found[name] = {names[i]: round(float(own[i] / own.sum()), 4) for i in first}
    return found


def predict_raster(model: TissueModel, image: Raster) -> Raster:
    """Probabilities (fraction) of an image in memory, (rows, columns, classes).

    *image* holds 8-bit levels, (rows, columns, 3); one of an odd pixel size is resampled first.
    """
    rgb = require_rgb(image.values)
    lattice = image.lattice
    ratio = model.read_spacing_um / lattice.spacing_um[0]
    if abs(round(ratio) - ratio) > 0.02 * ratio:
        fine = lattice.resized(model.read_spacing_um)
        nearest = Raster(rgb, lattice).onto(fine, outside=255.0)
        rgb, spacing_um = nearest.values.astype(np.uint8), model.read_spacing_um
    else:
        spacing_um = lattice.spacing_um[0]
    values = model.predict_block(rgb, spacing_um)
    coarse = lattice.resized(model.spacing_um)
    return Raster(values[: coarse.shape[0], : coarse.shape[1]], coarse, "1", model.classes)


def class_labels(probability: Float32) -> NDArray[np.uint8]:
    """Code of the most probable class, (rows, columns) uint8; ties go to the lower code."""
    return np.asarray(np.argmax(probability, axis=2) + 1, np.uint8)


def segment_classes(image: Raster, model: TissueModel) -> tuple[LabelImage, Raster]:
    """Tissue classes of an image in memory.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels; stain-normalised if the model's training
        images were.
    model
        A trained model.

    Returns
    -------
    LabelImage, Raster
        Class codes and probabilities, on the lattice of the model's ``spacing_um``.
    """
    probability = model.predict(image)
    names = dict(enumerate(model.classes, start=1))
    labels = class_labels(probability.values)
    return LabelImage(labels, probability.lattice, {0: CLASS_NAMES[0], **names}), probability


def load_fast(folder: Path) -> FastTissueModel:
    """Read a saved fast classifier; `InputError` for another kind, `CorruptArtifact` for damage."""
    card, arrays = read_card(folder)
    if card["model"] != "fast":
        raise InputError(f"{folder} holds a '{card['model']}' model, not a fast classifier")
    params = TissueClassParams.parse(card["params"], f"{folder}/card.json")
    forest = FlatForest.from_arrays(arrays)
    return FastTissueModel(forest, params, tuple(card["classes"]), card["training"])
