"""Correlation of tile parameters with the uptake; p-values corrected for autocorrelation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, Params, Table, setting
from napari_mosaik.core.progress import checkpoint, part_of_item, reach_of_item
from napari_mosaik.core.tiles import IntArray

__all__ = ["Association", "AssociationParams", "associate", "associate_table"]

_MIN_PAIRS = 3
_FEW_DISTANCES = 40
_SAME = 1e-9
_LOAD_S = 0.9
"""Time in which libraries are loaded, s."""
_SQUARE_S, _CUBE_S, _SIGN_S = 7e-9, 1.4e-10, 1.3e-8
"""Times of the classes of distances (by square of the tiles), of the spectrum (by cube) and of the
random signs (by tile and permutation), s."""
FEW_EFFECTIVE = 10.0
"""Below this effective sample size p-values are rough, and a warning says so."""


class AssociationParams(Params):
    """Settings of the correlations."""

    distance_classes: Literal["auto", "sturges", "every"] = setting(
        "auto",
        "Distance classes for the effective sample size: equal widths (Sturges number), every "
        "distance that occurs, or the latter on small grids only.",
        choices={"auto": "by size", "sturges": "Sturges", "every": "every distance"},
        advanced=True,
    )
    permutations: int = setting(
        999, "Random surrogates with the same spatial spectrum.", ge=99, le=99_999
    )
    max_tiles: int = setting(
        2500,
        "With more tiles the spectral p-value is not computed.",
        label="Maximum tiles",
        ge=10,
        advanced=True,
    )
    seed: int = setting(
        0, "Random seed of the surrogates.", label="Random seed", ge=0, advanced=True
    )


@dataclass(frozen=True, slots=True)
class Association:
    """Correlation of two tile values, dimensionless; NaN where it is not defined.

    Attributes
    ----------
    n
        Tiles in which both values exist.
    pearson, spearman
        Coefficients in [-1, 1] (Spearman with average ranks).
    ess_pearson, ess_spearman
        Effective sample size: number of independent tiles with the same information; at most n.
    p_dutilleul_pearson, p_dutilleul_spearman
        Two-sided p-value of the modified t-test.
    p_msr_pearson, p_msr_spearman
        Two-sided p-value by Moran spectral randomisation.
    p_naive_pearson, p_naive_spearman
        Two-sided p-value as if tiles were independent; far too small on smooth maps.
    """

    n: int
    pearson: float
    spearman: float
    ess_pearson: float
    ess_spearman: float
    p_dutilleul_pearson: float
    p_dutilleul_spearman: float
    p_msr_pearson: float
    p_msr_spearman: float
    p_naive_pearson: float
    p_naive_spearman: float


def associate(
    x: ArrayLike, y: ArrayLike, centres_um: ArrayLike, params: AssociationParams | None = None
) -> Association:
    """Correlate two values over the tiles, p-values corrected for spatial autocorrelation.

    Parameters
    ----------
    x, y
        (n,) values per tile, any unit; tiles in which either is NaN are excluded.
    centres_um
        (n, 2) tile centres, µm.
    params
        Settings.

    Returns
    -------
    Association
        All NaN with fewer than 3 pairs or without variance.  The modified t-test is NaN where
        the estimated variance of the coefficient is not positive or fewer than 2 effective tiles
        remain; the spectral p-value is NaN above ``params.max_tiles``.

    Raises
    ------
    InputError
        If the shapes differ or a value or centre is infinite.

    Notes
    -----
    Spectral randomisation keeps mean, variance, Geary's c, and Moran's I with border tiles that
    count themselves in place of the neighbours that they lack.  Below about `FEW_EFFECTIVE`
    effective tiles the p-values are rough: `docs/performance.md` lists the false positive rates of
    both tests.

    References
    ----------
    Dutilleul 1993, Biometrics 49:305-314; Clifford, Richardson and Hémon 1989, Biometrics
    45:123-134; Wagner and Dray 2015, Methods Ecol Evol 6:1169-1178.
    """
    table = associate_table({"x": np.asarray(x, float)}, y, centres_um, params)
    numbers = {field.name: float(table[field.name][0]) for field in fields(Association)}
    return Association(**{**numbers, "n": int(table["n"][0])})  # type: ignore[arg-type]


def associate_table(
    columns: Mapping[str, NDArray[np.float64]],
    y: ArrayLike,
    centres_um: ArrayLike,
    params: AssociationParams | None = None,
) -> Table:
    """Correlate each of several parameters with one value; see `associate`.

    What depends on the tiles alone is computed once for all parameters with the same gaps.

    Parameters
    ----------
    columns
        Name to (n,) values per tile, any unit; NaN: no value.
    y, centres_um, params
        As in `associate`.

    Returns
    -------
    Table
        One row per parameter in the given order: column ``parameter`` and the fields of
        `Association`, dimensionless.
    """
    from threadpoolctl import threadpool_limits

    params = params or AssociationParams()
    matrix, y, centres = _checked(columns, y, centres_um)
    rows: list[Association] = [_undefined(0)] * matrix.shape[1]
    valid = np.isfinite(matrix) & np.isfinite(y)[:, None]
    groups: dict[bytes, list[int]] = {}
    for column in range(matrix.shape[1]):
        groups.setdefault(valid[:, column].tobytes(), []).append(column)
    masks = [valid[:, which[0]] for which in groups.values()]
    times = np.array([_times_s(int(keep.sum()), params) for keep in masks])
    ends = np.cumsum([_LOAD_S, *times.sum(axis=1)]) / (_LOAD_S + times.sum())
    _load()
    reach_of_item(float(ends[0]))
    with threadpool_limits(1):
        for which, keep, part_of, *span in zip(
            groups.values(), masks, times, ends, ends[1:], strict=False
        ):
            checkpoint()
            part = matrix[keep][:, which]
            with part_of_item(*map(float, span)):
                found = _group(part, y[keep], centres[keep], params, part_of)
            for column, row in zip(which, found, strict=True):
                rows[column] = row
    names = [field.name for field in fields(Association)]
    columns_out = {name: np.array([asdict(row)[name] for row in rows]) for name in names}
    return Table({"parameter": np.array(list(columns), dtype=str), **columns_out}, about=_ABOUT)


_ABOUT = {
    "parameter": "name of the tile parameter",
    "n": "tiles in which both values exist",
    "pearson": "Pearson correlation with the uptake",
    "spearman": "Spearman correlation with the uptake",
    "ess_pearson": "effective sample size (Dutilleul)",
    "ess_spearman": "effective sample size of the ranks (Dutilleul)",
    "p_dutilleul_pearson": "p-value of the modified t-test",
    "p_dutilleul_spearman": "p-value of the modified t-test on ranks",
    "p_msr_pearson": "p-value by Moran spectral randomisation",
    "p_msr_spearman": "p-value by Moran spectral randomisation of ranks",
    "p_naive_pearson": "p-value as if tiles were independent",
    "p_naive_spearman": "p-value as if tiles were independent",
}


def _checked(
    columns: Mapping[str, NDArray[np.float64]], y: ArrayLike, centres_um: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    values, centres = np.asarray(y, float), np.asarray(centres_um, float)
    if values.ndim != 1 or centres.shape != (values.size, 2):
        raise InputError(
            f"values {values.shape} and centres {centres.shape} do not belong together"
        )
    if not np.isfinite(centres).all() or np.isinf(values).any():
        raise InputError("tile centres must be finite and values finite or NaN")
    matrix = np.full((values.size, len(columns)), np.nan)
    for place, (name, column) in enumerate(columns.items()):
        column = np.asarray(column, float)
        if column.shape != values.shape or np.isinf(column).any():
            raise InputError(
                f"parameter '{name}' of shape {column.shape} must be {values.size} finite numbers "
                "or NaN"
            )
        matrix[:, place] = column
    return matrix, values, centres


def _load() -> None:
    """Load what `_group` needs, before the shares of the time by tiles begin."""
    import scipy.stats  # noqa: F401

    _compiled_class_products()(np.zeros((2, 2)), np.ones(1), np.zeros((2, 1)))


def _times_s(n: int, params: AssociationParams) -> tuple[float, float, float]:
    """Times for n tiles, s: until distances are sorted, the spectrum is there, and p-values are."""
    spectrum = _CUBE_S * n**3 if n <= params.max_tiles else 0.0
    return _SQUARE_S * n**2, spectrum, _SIGN_S * n * params.permutations


def _group(
    x: FloatArray,
    y: FloatArray,
    centres: FloatArray,
    params: AssociationParams,
    times: FloatArray,
) -> list[Association]:
    """Associations of the columns of *x* (n, m) with *y* (n,), without gaps; see `_times_s`."""
    from scipy.stats import rankdata

    n, m = x.shape
    if n < _MIN_PAIRS:
        return [_undefined(n)] * m
    order = np.lexsort((centres[:, 1], centres[:, 0]))
    values = np.column_stack([x, y])[order]
    both = np.column_stack([values, rankdata(values, axis=0)])
    both = both - both.mean(axis=0)
    scale = np.sqrt((both**2).sum(axis=0))
    flat = scale <= 1e-12 * np.sqrt(n) * np.abs(np.column_stack([values, values])).max(axis=0)
    both = np.where(flat, np.nan, both / np.where(flat, 1.0, scale))
    return _correlations(both, centres[order], params, times)


def _correlations(
    both: FloatArray, centres: FloatArray, params: AssociationParams, times: FloatArray
) -> list[Association]:
    """Associations from unit columns: m parameters and y, then the same as ranks."""
    n, half = both.shape[0], both.shape[1] // 2
    defined = np.isfinite(both[0])
    filled = np.where(defined, both, 0.0)
    done = np.cumsum(times) / max(times.sum(), 1e-9)
    classes = distance_classes(centres, filled, params.distance_classes)
    reach_of_item(float(done[0]))
    spectrum = spatial_spectrum(centres) if n <= params.max_tiles else None
    reach_of_item(float(done[1]))
    rng = np.random.default_rng(params.seed)
    signs = np.asarray(rng.integers(0, 2, (params.permutations, n - 1)) * 2 - 1, float)
    out: dict[str, FloatArray] = {}
    for kind, first in (("pearson", 0), ("spearman", half)):
        mine, y = np.arange(first, first + half - 1), first + half - 1
        r = np.clip(filled[:, mine].T @ filled[:, y], -1.0, 1.0)
        r[~(defined[mine] & defined[y])] = np.nan
        ess = _effective_size(classes.correlation_variance(mine, y), n)
        out[kind] = r
        out[f"ess_{kind}"] = np.where(np.isnan(r), np.nan, ess)
        out[f"p_dutilleul_{kind}"] = _t_test(r, ess)
        out[f"p_naive_{kind}"] = _t_test(r, np.full_like(r, n))
        out[f"p_msr_{kind}"] = np.full_like(r, np.nan)
        if spectrum is not None:
            part = spectrum.coefficients(filled[:, [*mine, y]])
            out[f"p_msr_{kind}"] = _spectral_p(r, part[:, :-1] * part[:, -1:], signs)
    return [
        Association(n=n, **{name: float(column[row]) for name, column in out.items()})
        for row in range(half - 1)
    ]


def _effective_size(variance: FloatArray, n: int) -> FloatArray:
    """Effective sample size 1 + 1/variance, at most n; NaN for a variance that is not positive."""
    positive = variance > 0
    return np.where(positive, np.minimum(n, 1 + 1 / np.where(positive, variance, 1.0)), np.nan)


def _t_test(r: FloatArray, size: FloatArray) -> FloatArray:
    """Two-sided p-value of a correlation with *size* - 2 degrees of freedom; NaN for size <= 2."""
    from scipy.stats import t

    ok = np.isfinite(r) & (size > 2)
    freedom = np.where(ok, size - 2, 1.0)
    rest = np.maximum(1 - np.where(ok, r, 0.0) ** 2, 0.0)
    with np.errstate(divide="ignore"):
        score = np.abs(r) * np.sqrt(freedom / rest)
    return np.where(ok, 2 * t.sf(score, freedom), np.nan)


def _spectral_p(r: FloatArray, products: FloatArray, signs: FloatArray) -> FloatArray:
    """P-value by random signs of the spatial spectrum: both fields keep their Moran's I."""
    surrogate = np.abs(signs @ np.nan_to_num(products))
    extreme = (surrogate >= np.abs(r) - 1e-12).sum(axis=0)
    return np.where(np.isnan(r), np.nan, (1.0 + extreme) / (1.0 + signs.shape[0]))


def _undefined(n: int) -> Association:
    nan = float("nan")
    return Association(n, *[nan] * (len(fields(Association)) - 1))


# --- distance classes and spatial eigenvectors --------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class DistanceClasses:
    """Pairs of n tiles sorted into K distance classes; class 0 pairs each tile with itself.

    Attributes
    ----------
    covariance
        (K + 1, m) autocovariance of each column by class, in the squared unit of the column.
    traces
        (K + 1, K + 1) ``tr(B A_k B A_l)`` of the class indicators A and the centring matrix B.
    single
        (K + 1,) ``tr(B A_k)``.
    """

    covariance: FloatArray
    traces: FloatArray
    single: FloatArray

    def correlation_variance(self, columns: IntArray, other: int) -> FloatArray:
        """Dutilleul's variance of the correlation of the *columns* (c,) with column *other*, (c,).

        Column indices; dimensionless.
        """
        x, y = self.covariance[:, columns], self.covariance[:, other]
        with np.errstate(invalid="ignore", divide="ignore"):
            below = (self.single @ x) * (self.single @ y)
            return np.asarray((x.T @ self.traces @ y) / below, float)


def distance_classes(points_um: FloatArray, columns: FloatArray, rule: str) -> DistanceClasses:
    """Autocovariances by distance class of centred *columns* (n, m), any unit.

    *points_um* are the tile centres, (n, 2) µm; *rule* as in `AssociationParams`.
    """
    n = columns.shape[0]
    upper = _upper_limits(points_um, rule)
    partners, products = _compiled_class_products()(points_um, upper, np.ascontiguousarray(columns))
    used = partners.any(axis=0)
    partners, products = partners[:, used], products[used]
    pairs = np.concatenate([[float(n)], partners.sum(axis=0)])
    covariance = np.vstack([(columns**2).sum(axis=0), products]) / pairs[:, None]
    degree = np.column_stack([np.ones(n), partners])
    traces = np.diag(pairs) - 2 / n * (degree.T @ degree) + np.outer(pairs, pairs) / n**2
    single = -pairs / n
    single[0] += n
    return DistanceClasses(covariance, traces, single)


def _upper_limits(points_um: FloatArray, rule: str) -> FloatArray:
    """Upper limits of the distance classes, µm: every distance that occurs, or equal widths."""
    n = points_um.shape[0]
    if rule == "every" or (rule == "auto" and n <= 400):
        from scipy.spatial.distance import pdist

        distances = np.sort(pdist(points_um))
        new = np.concatenate([[True], np.diff(distances) > _SAME * distances[-1]])
        distinct = distances[new]
        if rule == "every" or distinct.size <= _FEW_DISTANCES:
            return np.asarray(distinct * (1 + 2 * _SAME), float)
    n_classes = math.ceil(1 + math.log2(n * (n - 1) / 2))
    longest = _longest_distance(points_um)
    return np.asarray(np.arange(1, n_classes + 1) * longest / n_classes * (1 + 2 * _SAME), float)


def _longest_distance(points_um: FloatArray) -> float:
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    corners = points_um
    if points_um.shape[0] > 400:
        try:
            corners = points_um[ConvexHull(points_um).vertices]
        except QhullError:
            corners = points_um[[0, -1]]
    return float(pdist(corners).max())


@dataclass(frozen=True, slots=True, eq=False)
class SpatialSpectrum:
    """Eigenvectors (n, n - 1) of the neighbour weights with a closed border.

    Without the constant one; dimensionless.
    """

    vectors: FloatArray

    def coefficients(self, columns: FloatArray) -> FloatArray:
        """(n - 1, m) coefficients of centred columns (n, m), of unit length; dimensionless."""
        raw = self.vectors.T @ columns
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(raw / np.sqrt((raw**2).sum(axis=0)), float)


def spatial_spectrum(points_um: FloatArray) -> SpatialSpectrum:
    """Spectrum of the graph that joins tiles within 1.5 times the usual nearest distance.

    *points_um* are the tile centres, (n, 2) µm.

    A tile at the border is its own neighbour in place of each that it lacks, so that all rows have
    one sum.  Otherwise the eigenvectors vanish towards the border, as smooth fields do not: their
    coefficients are then correlated, and random signs underestimate how far two independent fields
    agree by chance (`docs/performance.md` has the rates).
    """
    weights = _near(points_um).astype(float)
    n = weights.shape[0]
    degree = weights.sum(axis=1)
    largest = float(degree.max())
    np.fill_diagonal(weights, largest - degree)
    shift = 2 * largest + 1  # sets the constant vector above all others, where it is dropped
    # NumPy's, which lets other threads of the process run; SciPy's holds them for seconds
    _, vectors = np.linalg.eigh(weights + shift / n)
    return SpatialSpectrum(np.ascontiguousarray(vectors[:, :-1]))


def _near(points_um: FloatArray) -> NDArray[np.bool_]:
    from scipy.spatial.distance import cdist

    distance = cdist(points_um, points_um)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance <= 1.5 * np.median(distance.min(axis=1)), np.bool_)


@cache
def _compiled_class_products() -> Callable[..., tuple[FloatArray, FloatArray]]:
    """`_class_products` compiled; numba is loaded when it is first needed."""
    from napari_mosaik.core.compiled import compiled

    return compiled(_class_products)


def _class_products(
    points: FloatArray, upper: FloatArray, columns: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Number of partners of each point (n, K) and summed products per column (K, m), by class.

    Distance class ``k`` holds the ordered pairs of different points with a distance in
    ``(upper[k - 1], upper[k]]``; the products are of the two values of a pair.
    """
    n, n_columns = columns.shape
    partners = np.zeros((n, upper.size))
    total = np.zeros((upper.size, n_columns))
    for i in range(n):
        for j in range(i + 1, n):
            dr = points[i, 0] - points[j, 0]
            dc = points[i, 1] - points[j, 1]
            k = min(np.searchsorted(upper, np.sqrt(dr * dr + dc * dc)), upper.size - 1)
            partners[i, k] += 1.0
            partners[j, k] += 1.0
            for c in range(n_columns):
                total[k, c] += 2.0 * columns[i, c] * columns[j, c]
    return partners, total
