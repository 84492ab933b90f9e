"""Metrics of a segmentation: per-class scores of a confusion matrix, and object matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray

__all__ = [
    "ClassScores",
    "ObjectScores",
    "class_calibration",
    "class_metrics",
    "confusion_matrix",
    "object_scores",
]


@dataclass(frozen=True, slots=True, eq=False)
class ClassScores:
    """Scores per class, each (n classes,), in [0, 1]; NaN where a score is not defined.

    ``accuracy`` is one-vs-rest, as the MOSAIK paper prints it: it counts the pixels of all other
    classes as successes and so flatters small classes.  ``overall`` is the fraction of all pixels
    that are right, which is 1 minus half the sum of (1 - accuracy).
    """

    dice: FloatArray
    iou: FloatArray
    precision: FloatArray
    recall: FloatArray
    accuracy: FloatArray
    overall: float

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """JSON-able record: every score by class name, None where it is not defined."""
        names = ("dice", "iou", "precision", "recall", "accuracy")
        return {
            "classes": {
                name: {score: _known(getattr(self, score)[place]) for score in names}
                for place, name in enumerate(classes)
            },
            "overall": _known(self.overall),
        }


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Pixel counts (n, n): row = true class 1..n, column = predicted class; code 0 is ignored."""
    true, assigned = np.asarray(truth).ravel(), np.asarray(predicted).ravel()
    if true.shape != assigned.shape:
        raise InputError(
            f"{true.size} true and {assigned.size} predicted pixels cannot be compared"
        )
    use = (true > 0) & (assigned > 0)
    pairs = (true[use].astype(np.int64) - 1) * n_classes + assigned[use].astype(np.int64) - 1
    counts = np.bincount(pairs, minlength=n_classes**2)
    return np.asarray(counts.reshape(n_classes, n_classes), np.int64)


def class_metrics(confusion: ArrayLike) -> ClassScores:
    """Dice, IoU, precision, recall and one-vs-rest accuracy of a confusion matrix.

    Parameters
    ----------
    confusion
        (n, n) counts, row = true class, column = found class.

    Returns
    -------
    ClassScores
        A class absent from truth and prediction is NaN in every score; precision is NaN where the
        class was never found, recall where it is not in the truth.
    """
    counts = np.asarray(confusion, float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise InputError(f"a confusion matrix is square, not {counts.shape}")
    hit, true, assigned, total = np.diag(counts), counts.sum(1), counts.sum(0), counts.sum()
    absent = (true + assigned) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = np.where(absent, np.nan, (total - true - assigned + 2 * hit) / total)
        return ClassScores(
            dice=2 * hit / (true + assigned),
            iou=hit / (true + assigned - hit),
            precision=hit / assigned,
            recall=hit / true,
            accuracy=accuracy,
            overall=float(hit.sum() / total) if total else float("nan"),
        )


N_BINS = 10


def class_calibration(truth: ArrayLike, probability: ArrayLike) -> dict[str, Any]:
    """Whether the probability of the most probable class is the fraction that is right.

    Parameters
    ----------
    truth
        (n,) true class codes 1..k (label).
    probability
        (n, k) class probabilities (fraction).

    Returns
    -------
    dict
        ``error``: expected calibration error, the mean over the pixels of |confidence - accuracy|
        of their bin, 0 when calibrated; ``bins``: ``confidence``, ``accuracy`` and ``n`` of each
        tenth of the confidence that occurs.  Source: Guo et al. 2017, ICML.
    """
    values, codes = np.asarray(probability, float), np.asarray(truth).ravel()
    confidence, right = values.max(axis=1), values.argmax(axis=1) + 1 == codes
    place = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = []
    for own in (place == number for number in np.unique(place)):
        means = float(confidence[own].mean()), float(right[own].mean())
        bins.append({"confidence": means[0], "accuracy": means[1], "n": int(own.sum())})
    gaps = sum(one["n"] * abs(one["confidence"] - one["accuracy"]) for one in bins)
    return {"error": gaps / codes.size if codes.size else None, "bins": bins}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """How well found objects match true ones.

    ``f1``, ``precision`` and ``recall`` count pairs whose IoU exceeds the cut-off; ``aji`` is the
    aggregated Jaccard index.  NaN where there are no objects on either side.
    """

    n_true: int
    n_found: int
    n_matched: int
    precision: float
    recall: float
    f1: float
    aji: float


def object_scores(truth: ArrayLike, predicted: ArrayLike, min_iou: float = 0.5) -> ObjectScores:
    """Match predicted to true objects of two label images (0 = background) of equal shape.

    From an IoU above 0.5 a match is unique, so no assignment problem arises; lower cut-offs are
    refused.  Source of the AJI: Kumar et al. 2017, IEEE Trans Med Imaging.
    """
    if min_iou < 0.5:
        raise InputError(f"matching is unique only from an IoU of 0.5 on, not {min_iou}")
    true = _compact(np.asarray(truth))
    objects = _compact(np.asarray(predicted))
    if true.shape != objects.shape:
        raise InputError(f"label images of shape {true.shape} and {objects.shape} differ")
    n_true, n_found = int(true.max(initial=0)), int(objects.max(initial=0))
    pairs = np.bincount(true.ravel() * (n_found + 1) + objects.ravel())
    pairs = np.pad(pairs, (0, (n_true + 1) * (n_found + 1) - pairs.size))
    overlap = pairs.reshape(n_true + 1, n_found + 1)
    area_true, area_found = overlap.sum(1)[1:], overlap.sum(0)[1:]
    shared = overlap[1:, 1:]
    union = area_true[:, None] + area_found[None, :] - shared
    iou = shared / np.maximum(union, 1)
    matched = int((iou > min_iou).sum())
    return ObjectScores(
        n_true,
        n_found,
        matched,
        matched / n_found if n_found else float("nan"),
        matched / n_true if n_true else float("nan"),
        2 * matched / (n_true + n_found) if n_true + n_found else float("nan"),
        _aggregated_jaccard(shared, union, area_found),
    )


def _aggregated_jaccard(
    shared: NDArray[np.int64], union: NDArray[np.int64], area_found: NDArray[np.int64]
) -> float:
    n_true, n_found = shared.shape
    if n_true == 0:
        return 0.0 if n_found else float("nan")
    if n_found == 0:
        return 0.0
    best = np.argmax(shared / union, axis=1)
    rows = np.arange(n_true)
    unused = np.ones(n_found, bool)
    unused[best[shared[rows, best] > 0]] = False
    missed = shared[rows, best] == 0
    area_true = union[:, 0] - area_found[0] + shared[:, 0]
    joined = np.where(missed, area_true, union[rows, best]).sum() + area_found[unused].sum()
    return float(shared[rows, best].sum() / joined)


def _compact(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Labels renumbered 0..n without gaps; 0 stays 0."""
    values, inverse = np.unique(labels, return_inverse=True)
    shift = 0 if values.size and values[0] == 0 else 1
    return np.asarray(inverse.reshape(labels.shape) + shift, np.int64)
