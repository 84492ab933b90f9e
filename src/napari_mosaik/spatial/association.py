"""How a tile parameter goes with the uptake, with p-values that know that neighbours resemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, Params, Table, setting
from napari_mosaik.spatial._association_parts import distance_classes, spatial_spectrum

__all__ = ["Association", "AssociationParams", "associate", "associate_table"]

_FEWEST = 3
FEW_EFFECTIVE = 10.0
"""Below this effective sample size p-values are rough and say so."""


class AssociationParams(Params):
    """Settings of the correlations."""

    distance_classes: Literal["auto", "sturges", "every"] = setting(
        "auto",
        "Classes of distance for the effective sample size: equal widths (Sturges number), every "
        "distance that occurs, or the latter on small grids only.",
        choices={"auto": "by size", "sturges": "Sturges", "every": "every distance"},
        advanced=True,
    )
    permutations: int = setting(
        999, "Random surrogates with the same spatial spectrum.", ge=99, le=99_999
    )
    most_tiles: int = setting(
        2500, "Above this many tiles the spectral p-value is left out.", ge=10, advanced=True
    )
    seed: int = setting(0, "Seed of the surrogates.", ge=0, advanced=True)


@dataclass(frozen=True, slots=True)
class Association:
    """Correlation of two tile values, pure numbers; NaN where it is not defined.

    Attributes
    ----------
    n
        Tiles in which both values exist.
    pearson, spearman
        Coefficients in [-1, 1] (Spearman with average ranks).
    ess_pearson, ess_spearman
        Effective sample size: independent tiles that would tell as much; at most n.
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
    """Correlate two values over the tiles, with p-values that allow for autocorrelation.

    Parameters
    ----------
    x, y
        (n,) values per tile, any unit; tiles in which either is NaN are left out.
    centres_um
        (n, 2) tile centres, µm.
    params
        Settings.

    Returns
    -------
    Association
        All NaN with fewer than 3 pairs or without variance.  The modified t-test is NaN where
        the estimated variance of the coefficient is not positive or fewer than 2 effective tiles
        remain; the spectral p-value is NaN above ``params.most_tiles``.

    Raises
    ------
    InputError
        If the shapes differ or a value or centre is infinite.

    Notes
    -----
    Spectral randomisation keeps mean, variance, Geary's c, and Moran's I with border tiles that
    count themselves in place of the neighbours that they lack.  Below about `FEW_EFFECTIVE`
    effective tiles the p-values are rough: `docs/spatial.md` tells how often both tests reject
    when nothing is there.

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
        Name to (n,) values per tile.
    y, centres_um, params
        As in `associate`.

    Returns
    -------
    Table
        One row per parameter in the given order: column ``parameter`` and the fields of
        `Association`.
    """
    from threadpoolctl import threadpool_limits

    params = params or AssociationParams()
    matrix, y, centres = _checked(columns, y, centres_um)
    rows: list[Association] = [_undefined(0)] * matrix.shape[1]
    valid = np.isfinite(matrix) & np.isfinite(y)[:, None]
    groups: dict[bytes, list[int]] = {}
    for column in range(matrix.shape[1]):
        groups.setdefault(valid[:, column].tobytes(), []).append(column)
    with threadpool_limits(1):
        for which in groups.values():
            keep = valid[:, which[0]]
            part = matrix[keep][:, which]
            found = _group(part, y[keep], centres[keep], params)
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


def _group(
    x: FloatArray, y: FloatArray, centres: FloatArray, params: AssociationParams
) -> list[Association]:
    """Associations of the columns of *x* (n, m) with *y* (n,), without gaps."""
    from scipy.stats import rankdata

    n, m = x.shape
    if n < _FEWEST:
        return [_undefined(n)] * m
    order = np.lexsort((centres[:, 1], centres[:, 0]))
    values = np.column_stack([x, y])[order]
    both = np.column_stack([values, rankdata(values, axis=0)])
    both = both - both.mean(axis=0)
    scale = np.sqrt((both**2).sum(axis=0))
    flat = scale <= 1e-12 * np.sqrt(n) * np.abs(np.column_stack([values, values])).max(axis=0)
    both = np.where(flat, np.nan, both / np.where(flat, 1.0, scale))
    return _correlations(both, centres[order], params)


def _correlations(
    both: FloatArray, centres: FloatArray, params: AssociationParams
) -> list[Association]:
    """Associations from unit columns: m parameters and y, then the same as ranks."""
    n, half = both.shape[0], both.shape[1] // 2
    defined = np.isfinite(both[0])
    filled = np.where(defined, both, 0.0)
    classes = distance_classes(centres, filled, params.distance_classes)
    spectrum = spatial_spectrum(centres) if n <= params.most_tiles else None
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
