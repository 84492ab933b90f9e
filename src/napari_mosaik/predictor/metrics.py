"""Metrics of the agreement of predicted and measured uptake."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.tiles import IntArray

__all__ = [
    "balanced_accuracy",
    "bland_altman",
    "calibration",
    "classification_metrics",
    "concordance",
    "error_metrics",
    "expected_calibration_error",
    "macro_f1",
    "mae",
    "mae_difference",
    "metrics_record",
    "mse",
    "pearson",
    "plain_record",
    "r2",
    "regression_metrics",
    "similarity_map",
    "spearman",
]

_BLOCK_TILES = 7
_DRAWS = 4000


def _pairs(measured: ArrayLike, predicted: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float arrays without the tiles where either is NaN."""
    y, p = np.asarray(measured, float).ravel(), np.asarray(predicted, float).ravel()
    if y.shape != p.shape:
        raise InputError(f"{y.size} measured and {p.size} predicted values")
    keep = np.isfinite(y) & np.isfinite(p)
    return y[keep], p[keep]


def mse(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean squared error of values (n,), SUV² or dimensionless; NaN pairs are excluded.

    NaN without a pair.
    """
    y, p = _pairs(measured, predicted)
    return float(np.mean((p - y) ** 2)) if y.size else float("nan")


def mae(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error of values (n,), SUV or dimensionless; NaN pairs are excluded.

    NaN without a pair.
    """
    y, p = _pairs(measured, predicted)
    return float(np.mean(np.abs(p - y))) if y.size else float("nan")


def r2(measured: ArrayLike, predicted: ArrayLike, reference: float | None = None) -> float:
    """Coefficient of determination, 1 - SS_res / SS_tot; dimensionless.

    Parameters
    ----------
    measured, predicted
        (n,) values; pairs with NaN are excluded.
    reference
        Mean against which the spread is measured: the *test* tiles' own mean by default, or the
        training mean.

    Returns
    -------
    float
        NaN with fewer than two tiles or without spread.
    """
    y, p = _pairs(measured, predicted)
    if y.size < 2:
        return float("nan")
    spread = float(np.sum((y - (y.mean() if reference is None else reference)) ** 2))
    return 1.0 - float(np.sum((p - y) ** 2)) / spread if spread > 0 else float("nan")


def concordance(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Lin's concordance correlation coefficient of values (n,), divisor n; dimensionless.

    2 s_xy / (s_x^2 + s_y^2 + (mean difference)^2); NaN with fewer than two tiles or when both are
    constant and equal.  Source: Lin 1989, Biometrics 45:255-268.
    """
    y, p = _pairs(measured, predicted)
    if y.size < 2:
        return float("nan")
    covariance = float(np.mean((y - y.mean()) * (p - p.mean())))
    scale = float(y.var() + p.var() + (y.mean() - p.mean()) ** 2)
    return 2.0 * covariance / scale if scale > 0 else float("nan")


def pearson(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson's correlation of values (n,), dimensionless.

    NaN when either is constant or fewer than two tiles remain.
    """
    y, p = _pairs(measured, predicted)
    if y.size < 2 or np.ptp(y) == 0 or np.ptp(p) == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(y, p)[0, 1], -1.0, 1.0))


def spearman(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation of values (n,), mean ranks for ties; NaN as `pearson`."""
    from scipy.stats import rankdata

    y, p = _pairs(measured, predicted)
    return pearson(rankdata(y), rankdata(p)) if y.size else float("nan")


def bland_altman(measured: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Bias (predicted - measured), its SD with divisor n - 1, and the limits of agreement.

    Of values (n,), SUV or dimensionless.
    """
    y, p = _pairs(measured, predicted)
    if y.size < 2:
        return {"bias": float("nan"), "sd": float("nan"), "low": float("nan"), "high": float("nan")}
    difference = p - y
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    return {"bias": bias, "sd": sd, "low": bias - 1.96 * sd, "high": bias + 1.96 * sd}


def calibration(measured: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Slope (dimensionless) and intercept of measured on predicted values (n,).

    SUV or dimensionless; 1 and 0 when calibrated.
    """
    y, p = _pairs(measured, predicted)
    if y.size < 2 or np.ptp(p) == 0:
        return {"slope": float("nan"), "intercept": float("nan")}
    slope = float(np.mean((p - p.mean()) * (y - y.mean())) / p.var())
    return {"slope": slope, "intercept": float(y.mean() - slope * p.mean())}


def similarity_map(measured: ArrayLike, predicted: ArrayLike, cells: ArrayLike) -> FloatArray:
    """Local structural similarity (SSIM) of two maps of tiles; (n,), dimensionless, at most 1.

    Parameters
    ----------
    measured, predicted
        (n,) normalised SUV; NaN in either leaves the tile out, also as a neighbour.
    cells
        (n, 2) row and column of each tile on the lattice.

    Returns
    -------
    numpy.ndarray
        NaN where a tile was left out.

    Notes
    -----
    Gaussian window of 11 x 11 tiles (SD 1.5 tiles), weights renormalised over the tiles that there
    are; data range 1, K1 0.01, K2 0.03, moments with the divisor of the weights.
    Source: Wang et al. 2004, IEEE Trans Image Process 13:600-612.
    """
    from scipy.ndimage import gaussian_filter

    y, p = np.asarray(measured, float).ravel(), np.asarray(predicted, float).ravel()
    keep = np.isfinite(y) & np.isfinite(p)
    found = np.full(y.size, np.nan)
    if not keep.any():
        return found
    place = np.asarray(cells, np.int64)[keep]
    place = place - place.min(axis=0)
    at = tuple(place.T)

    def seen(values: ArrayLike) -> FloatArray:
        raster = np.zeros(place.max(axis=0) + 1)
        raster[at] = values
        filtered: FloatArray = gaussian_filter(raster, 1.5, mode="constant", truncate=3.5)[at]
        return filtered

    weight = seen(1.0)
    mean_y, mean_p = seen(y[keep]) / weight, seen(p[keep]) / weight
    var_y = np.maximum(seen(y[keep] ** 2) / weight - mean_y**2, 0)
    var_p = np.maximum(seen(p[keep] ** 2) / weight - mean_p**2, 0)
    both = seen(y[keep] * p[keep]) / weight - mean_y * mean_p
    level = (2 * mean_y * mean_p + 0.01**2) / (mean_y**2 + mean_p**2 + 0.01**2)
    found[keep] = level * (2 * both + 0.03**2) / (var_y + var_p + 0.03**2)
    return found


def expected_calibration_error(measured: ArrayLike, probability: ArrayLike) -> float:
    """How far the stated probability of the predicted class is from the share of right ones.

    Mean distance over ten equal bins of the highest of the probabilities (n, k), weighted with the
    tiles in each; tiles with a measured label (n,) below 0 or a NaN are excluded.  In [0, 1]; NaN
    without a tile.  Source: Guo et al. 2017, ICML.
    """
    y, p = np.asarray(measured, np.int64).ravel(), np.asarray(probability, float)
    keep = (y >= 0) & np.isfinite(p).all(axis=1)
    if not keep.any():
        return float("nan")
    highest, right = p[keep].max(axis=1), p[keep].argmax(axis=1) == y[keep]
    which = np.clip(np.ceil(highest * 10).astype(int) - 1, 0, 9)
    gaps = np.abs(np.bincount(which, highest - right, minlength=10))
    return float(gaps.sum() / keep.sum())


def _labelled_pairs(measured: ArrayLike, predicted: ArrayLike) -> tuple[IntArray, IntArray]:
    """Both as integer arrays without the tiles where either label is negative."""
    y, p = np.asarray(measured, np.int64).ravel(), np.asarray(predicted, np.int64).ravel()
    keep = (y >= 0) & (p >= 0)
    return y[keep], p[keep]


def balanced_accuracy(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean recall over the classes of the measured labels (n,); labels below 0 are excluded."""
    from sklearn.metrics import recall_score

    y, p = _labelled_pairs(measured, predicted)
    if not y.size:
        return float("nan")
    return float(recall_score(y, p, labels=np.unique(y), average="macro", zero_division=0))


def macro_f1(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the classes of either labels (n,); labels below 0 are excluded."""
    from sklearn.metrics import f1_score

    y, p = _labelled_pairs(measured, predicted)
    return float(f1_score(y, p, average="macro", zero_division=0)) if y.size else float("nan")


def error_metrics(measured: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """MSE, MAE and R2 (against the test mean) of values (n,), SUV or normalised (dimensionless)."""
    return {
        "mse": mse(measured, predicted),
        "mae": mae(measured, predicted),
        "r2": r2(measured, predicted),
    }


def regression_metrics(measured: ArrayLike, predicted: ArrayLike) -> dict[str, Any]:
    """CCC, correlations, Bland-Altman, calibration, spread of values (n,), SUV or dimensionless."""
    y, p = _pairs(measured, predicted)
    return {
        "ccc": concordance(y, p),
        "pearson": pearson(y, p),
        "spearman": spearman(y, p),
        "bland_altman": bland_altman(y, p),
        "calibration": calibration(y, p),
        "sd_measured": float(y.std()) if y.size else float("nan"),
        "sd_predicted": float(p.std()) if p.size else float("nan"),
    }


def classification_metrics(
    measured: ArrayLike, predicted: ArrayLike, probability: ArrayLike | None = None
) -> dict[str, float]:
    """Balanced accuracy and macro F1 of class labels (n,); labels below 0 are excluded.

    With the probabilities (n, k) also the expected calibration error.
    """
    stated = (
        {} if probability is None else {"ece": expected_calibration_error(measured, probability)}
    )
    return {
        "balanced_accuracy": balanced_accuracy(measured, predicted),
        "macro_f1": macro_f1(measured, predicted),
        **stated,
        "n_tiles": int(np.sum(np.asarray(measured) >= 0)),
    }


def plain_record(value: Any) -> Any:
    """JSON-able form of a record of metrics: NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain_record(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_record(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def mae_difference(
    measured: ArrayLike, first: ArrayLike, second: ArrayLike, cells: ArrayLike, *, seed: int = 0
) -> dict[str, float]:
    """MAE of the *second* prediction minus that of the *first*, with its 95 % interval.

    Parameters
    ----------
    measured, first, second
        (n,) values, SUV or dimensionless; tiles with NaN in any of them are excluded.
    cells
        (n, 2) row and column of each tile on the lattice.
    seed
        Random seed of the draws.

    Returns
    -------
    dict
        ``estimate``, ``low`` and ``high``; above 0 the first prediction is better.  The limits are
        NaN with fewer than two blocks.

    Notes
    -----
    Paired, by blocks of 7 x 7 tiles (2.1 mm, about the reach of the scanner), which are drawn with
    replacement: neighbouring tiles share their error.  Percentiles of 4,000 draws.
    Source: Kunsch 1989, Ann Stat 17:1217 (block bootstrap).
    """
    y, a, b = (np.asarray(values, float).ravel() for values in (measured, first, second))
    keep = np.isfinite(y) & np.isfinite(a) & np.isfinite(b)
    if not keep.any():
        return {"estimate": float("nan"), "low": float("nan"), "high": float("nan")}
    difference = (np.abs(b - y) - np.abs(a - y))[keep]
    block = np.asarray(cells, np.int64)[keep] // _BLOCK_TILES
    _, which = np.unique(block, axis=0, return_inverse=True)
    total, size = np.bincount(which.ravel(), difference), np.bincount(which.ravel())
    estimate, low, high = float(difference.mean()), float("nan"), float("nan")
    if len(size) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), _DRAWS)
        low, high = map(float, np.percentile((drawn @ total) / (drawn @ size), [2.5, 97.5]))
    return {"estimate": estimate, "low": low, "high": high}


def metrics_record(
    *,
    test_case: str,
    split: str,
    shared_patient: bool,
    measured_norm: ArrayLike,
    predicted_norm: ArrayLike,
    measured_suv: ArrayLike,
    predicted_suv: ArrayLike,
    baselines: Mapping[str, ArrayLike | None],
    cells: ArrayLike,
    uses_test_pet: Collection[str] = (),
    measured_class: ArrayLike | None = None,
    predicted_class: ArrayLike | None = None,
    class_probability: ArrayLike | None = None,
    seconds: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The metrics of one tested case as a JSON document.

    Parameters
    ----------
    test_case, split, shared_patient
        Test case, kind of split, and whether its patient has training cases.
    measured_norm, predicted_norm
        (n,) normalised SUV, scaled to the range of the *training* tiles, not clipped.
    measured_suv, predicted_suv
        (n,) SUV (body surface) in its own unit.
    baselines
        Name to predictions (n,) of the normalised SUV; None: not available.
    cells
        (n, 2) row and column of each tile on the lattice.
    uses_test_pet
        Names of the baselines that know the measured uptake of other tiles of this case.
    measured_class, predicted_class
        (n,) uptake classes, -1 where there is none.
    class_probability
        (n, k) probability of each class.
    seconds
        Time of the whole computation.
    extra
        Further entries, for instance ``{"model": ..., "warnings": [...]}``.

    Returns
    -------
    dict
        ``suv_norm`` (mse, mae, r2), not clipped, and ``suv_norm_clipped``, the same with both
        clipped to [0, 1]; ``suv_bsa`` (mae, r2); ``baselines``, each with its errors,
        ``mae_minus_network`` (see `mae_difference`) and ``uses_test_pet``; ``n_tiles``,
        ``n_not_measured``, ``n_not_predicted``, ``agreement`` and ``classes``.  Every method is
        assessed on the same tiles: those measured and predicted by the network.  R2 is against the
        test mean; undefined numbers are None.
    """
    y, p = np.asarray(measured_norm, float), np.asarray(predicted_norm, float)
    keep = np.isfinite(y) & np.isfinite(p)
    raw, raw_p = np.asarray(measured_suv, float)[keep], np.asarray(predicted_suv, float)[keep]
    suv_errors, places = error_metrics(raw, raw_p), np.asarray(cells)[keep]

    def assessed(name: str, values: ArrayLike) -> dict[str, Any]:
        own = np.asarray(values, float)[keep]
        return {
            **error_metrics(y[keep], own),
            "mae_minus_network": mae_difference(y[keep], p[keep], own, places),
            "uses_test_pet": name in uses_test_pet,
        }

    record: dict[str, Any] = {
        "test_case": test_case,
        "split": split,
        "shared_patient": bool(shared_patient),
        "level": "tile",
        "suv_norm": error_metrics(y[keep], p[keep]),
        "suv_norm_clipped": error_metrics(np.clip(y[keep], 0, 1), np.clip(p[keep], 0, 1)),
        "suv_bsa": {"mae": suv_errors["mae"], "r2": suv_errors["r2"]},
        "baselines": {
            name: None if values is None else assessed(name, values)
            for name, values in baselines.items()
        },
        "n_tiles": int(keep.sum()),
        "n_not_measured": int((~np.isfinite(y)).sum()),
        "n_not_predicted": int((~np.isfinite(p)).sum()),
        "agreement": {
            **regression_metrics(y[keep], p[keep]),
            "ssim": float(np.mean(similarity_map(y[keep], p[keep], places)))
            if keep.any()
            else float("nan"),
        },
    }
    if measured_class is not None and predicted_class is not None:
        record["classes"] = classification_metrics(
            np.asarray(measured_class)[keep],
            np.asarray(predicted_class)[keep],
            None if class_probability is None else np.asarray(class_probability, float)[keep],
        )
    record["seconds"] = seconds
    record["version"] = _version()
    return dict(plain_record(record | dict(extra or {})))


def _version() -> str:
    from napari_mosaik import __version__

    return __version__
