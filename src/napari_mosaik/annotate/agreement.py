"""Agreement of two readers over reading tiles: kappa with interval, tile kappa, Dice per class.

    shapes of two readers ─► class codes on one lattice ─► one confusion matrix per reading tile
                                                        ─► blocks of tiles ─► bootstrap ─► interval

Only samples count that both readers have classified, in tiles that both have finished.  Samples of
one annotation are not independent, so blocks of neighbouring tiles are drawn, not samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy  # its parts are loaded on first use
import shapely
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, Lattice
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.text import counted

__all__ = [
    "READING_TILE_UM",
    "PairAgreement",
    "ReaderAgreement",
    "ReadingTile",
    "TileConfusion",
    "agreement_of",
    "kappa_of",
    "pair_agreement",
    "tile_confusion",
]

READING_TILE_UM: Final = 400.0
"""Edge of a reading tile: a square of the annotated slide, counted from its corner, µm."""
SPACINGS_UM: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Spacings of the samples that are compared, µm; whole fractions of a reading tile."""
_MAX_SAMPLES: Final = 30_000_000
RESAMPLES: Final = 2000
WIDEST_BLOCK: Final = 4
"""Edge of a bootstrap block, in reading tiles, where there are enough of them."""
FEW_BLOCKS: Final = 10
_LEVEL: Final = 0.95

ReadingTile = tuple[int, int]
"""Row and column of a reading tile."""


@dataclass(frozen=True, slots=True, eq=False)
class ReaderAgreement:
    """Agreement of two readers over the samples that both have classified.

    Parameters
    ----------
    codes
        Class codes that at least one reader used, ascending.
    confusion
        (k, k) count of samples, class of the first reader by class of the second.
    observed
        Fraction of samples with the same class; NaN without samples.
    kappa
        Cohen's kappa; NaN without samples, or when both readers used only one and the same class.
    dice
        Dice coefficient per code.
    n_compared
        Number of samples that both readers classified.
    """

    codes: tuple[int, ...]
    confusion: NDArray[np.int64]
    observed: float
    kappa: float
    dice: dict[int, float]
    n_compared: int


def agreement_of(codes: tuple[int, ...], confusion: NDArray[np.int64]) -> ReaderAgreement:
    """The agreement that a confusion matrix stands for.

    *confusion* is a count (k, k), class of the first reader by class of the second, in the order of
    *codes*; a class that neither used gets no Dice.
    """
    rows, columns, same = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    used = np.flatnonzero(rows + columns)
    dice = {codes[k]: float(2 * same[k] / (rows[k] + columns[k])) for k in used}
    observed, kappa = (float(value) for value in kappa_of(confusion))
    n = int(confusion.sum())
    return ReaderAgreement(codes, confusion, observed, kappa, dice, n)


def kappa_of(confusion: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Observed agreement (fraction) and Cohen's kappa (dimensionless) of confusion matrices.

    *confusion* is a count (..., k, k); both results have the shape of its leading axes.  Both are
    NaN without samples, kappa also where both readers used only one and the same class.
    """
    counts = np.asarray(confusion, float)
    n = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(counts, axis1=-2, axis2=-1) / n
        expected = (counts.sum(axis=-1) / n[..., None] * counts.sum(axis=-2)).sum(axis=-1) / n
        kappa = (observed - expected) / (1 - expected)
    return observed, np.where(np.abs(1 - expected) > 1e-12, kappa, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class TileConfusion:
    """How often each pair of classes meets in each reading tile.

    Parameters
    ----------
    tiles
        (n, 2) row and column of the reading tiles in which both readers have drawn, index.
    counts
        (n, k, k) count of samples, class of the first reader by class of the second.
    drawn
        (2, k) whether each reader has drawn each class in a tile that counts, mask.
    spacing_um
        Spacing of the samples, µm.
    """

    tiles: NDArray[np.int64]
    counts: NDArray[np.int64]
    drawn: NDArray[np.bool_]
    spacing_um: float


@dataclass(frozen=True, slots=True, eq=False)
class PairAgreement:
    """Agreement of two readers; NaN where a figure is not defined, and *why* says it.

    Parameters
    ----------
    kappa, kappa_low, kappa_high
        Cohen's kappa over all samples, and its 95 % interval.
    tile_kappa, tile_kappa_low, tile_kappa_high
        Cohen's kappa over the most frequent class of each tile, and its 95 % interval.
    observed
        Fraction of samples with the same class.
    dice
        Dice coefficient of each class that either reader has drawn, by name.
    area_mm2
        Compared area, mm².
    n_tiles, n_blocks
        Number of tiles with compared samples, and of bootstrap blocks.
    why
        Sentences about what is not defined or doubtful.
    """

    kappa: float
    kappa_low: float
    kappa_high: float
    tile_kappa: float
    tile_kappa_low: float
    tile_kappa_high: float
    observed: float
    dice: dict[str, float]
    area_mm2: float
    n_tiles: int
    n_blocks: int
    why: tuple[str, ...]


def tile_confusion(
    first: Sequence[AnnotatedShape],
    second: Sequence[AnnotatedShape],
    classes: Sequence[str],
    slide: Lattice,
    counts: Callable[[ReadingTile], bool] = lambda tile: True,
) -> TileConfusion:
    """Compare the shapes of two readers sample by sample, tile by tile.

    The samples are the pixels of the slide, or as fine as 30 million of them allow.

    Parameters
    ----------
    first, second
        Shapes in µm of the slide; later ones lie on top.
    classes
        Names of the classes that are compared.
    slide
        Lattice of the slide; what lies outside is not compared.
    counts
        Whether a reading tile is compared.
    """
    codes = {name: code for code, name in enumerate(classes, 1)}
    k = len(codes)
    spacing_um = _spacing_um(slide)
    lattice, edge = slide.resized(spacing_um), round(READING_TILE_UM / spacing_um)
    tiles: list[ReadingTile] = []
    found: list[NDArray[np.int64]] = []
    drawn = np.zeros((2, k + 1), bool)
    for row, strip, own in _strips(first, second, lattice, edge):
        checkpoint()
        maps = [rasterise(shapes, strip, codes) for shapes in own]
        for col in range(-(-strip.shape[1] // edge)):
            part = slice(col * edge, (col + 1) * edge)
            a, b = maps[0][:, part], maps[1][:, part]
            used = [np.bincount(one.ravel(), minlength=k + 1) > 0 for one in (a, b)]
            if not (used[0][1:].any() or used[1][1:].any()) or not counts((row, col)):
                continue
            drawn |= used
            both = (a > 0) & (b > 0)
            if both.any():
                pairs = (a[both].astype(np.int64) - 1) * k + (b[both] - 1)
                tiles.append((row, col))
                found.append(np.bincount(pairs, minlength=k * k).reshape(k, k))
    return TileConfusion(
        np.array(tiles, np.int64).reshape(-1, 2),
        np.array(found, np.int64).reshape(-1, k, k),
        drawn[:, 1:],
        spacing_um,
    )


def _spacing_um(slide: Lattice) -> float:
    """The finest spacing that the pixels of a slide are worth and that few samples allow."""
    area = slide.extent_um[0] * slide.extent_um[1]
    pixel = 0.7 * min(slide.spacing_um)
    fine = (um for um in SPACINGS_UM if um >= pixel and area / um**2 <= _MAX_SAMPLES)
    return next(fine, SPACINGS_UM[-1])


def _strips(
    first: Sequence[AnnotatedShape], second: Sequence[AnnotatedShape], lattice: Lattice, edge: int
) -> Iterator[tuple[int, Lattice, list[list[AnnotatedShape]]]]:
    """Rows of reading tiles, *edge* samples wide, with shapes: number, lattice, shapes of each."""
    bounds = [
        np.asarray(shapely.bounds([one.geometry for one in own]), float).reshape(-1, 4)
        for own in (first, second)
    ]
    for row in range(-(-lattice.shape[0] // edge)):
        strip = lattice.crop(slice(row * edge, (row + 1) * edge), slice(None))
        top = strip.origin_um[0]
        low = top + strip.extent_um[0]
        own = [
            [shapes[i] for i in np.flatnonzero((box[:, 1] < low) & (box[:, 3] > top)).tolist()]
            for shapes, box in zip((first, second), bounds, strict=True)
        ]
        if any(own):
            yield row, strip, own


def pair_agreement(
    found: TileConfusion, classes: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> PairAgreement:
    """Kappa with its interval, tile kappa and Dice of two readers.

    Parameters
    ----------
    found
        The confusion matrices of the tiles.
    classes
        Name of each class, in the order of *found*.
    seed, resamples
        Random seed and number of resamples of the bootstrap.

    Notes
    -----
    Whole blocks of tiles are drawn with replacement.  The interval takes the quantiles of the
    resampled kappas at the levels that a t distribution with one degree of freedom less than there
    are blocks needs, which mends the narrowness of the percentile interval with few blocks
    (Hesterberg 2015, Am Stat 69:371).  Blocks are 4 x 4 tiles; smaller where fewer than ten would
    remain.
    """
    codes = tuple(range(1, len(classes) + 1))
    whole = agreement_of(codes, found.counts.sum(axis=0))
    main = _main_classes(found.counts)
    tiles = agreement_of(codes, main.sum(axis=0))
    why = list(_undefined(whole))
    low = high = tile_low = tile_high = math.nan
    n_blocks = 0
    if whole.n_compared:
        block = _blocks(found.tiles)
        n_blocks = int(block.max()) + 1
        low, high = _interval(found.counts, block, whole.kappa, seed, resamples)
        tile_low, tile_high = _interval(main, block, tiles.kappa, seed, resamples)
        if n_blocks == 1 and math.isfinite(whole.kappa):
            why.append("all compared areas lie in one reading tile, so kappa has no interval")
        elif n_blocks < FEW_BLOCKS and math.isfinite(whole.kappa):
            why.append(f"the interval of kappa rests on only {counted(n_blocks, 'block')} of tiles")
        if math.isnan(tiles.kappa) and math.isfinite(whole.kappa):
            why.append("both have the same class in every tile, so the tile kappa is undefined")
    used = found.drawn[0] | found.drawn[1]
    dice = {name: whole.dice.get(k + 1, 0.0) for k, name in enumerate(classes) if used[k]}
    apart = [name for k, name in enumerate(classes) if used[k] and k + 1 not in whole.dice]
    why += [f"'{name}' is drawn only where the other has drawn nothing: Dice 0" for name in apart]
    return PairAgreement(
        whole.kappa, low, high, tiles.kappa, tile_low, tile_high, whole.observed, dice,
        whole.n_compared * found.spacing_um**2 / 1e6, len(found.tiles), n_blocks, tuple(why),
    )  # fmt: skip


def _main_classes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """One sample per tile: its most frequent class for each reader; counts (n, k, k)."""
    n, k = counts.shape[:2]
    main = np.zeros_like(counts)
    first, second = counts.sum(axis=2).argmax(axis=1), counts.sum(axis=1).argmax(axis=1)
    main[np.arange(n), first, second] = 1
    return main.reshape(n, k, k)


def _blocks(tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the block of each tile (n,): the widest blocks of which there are enough."""
    for edge in range(WIDEST_BLOCK, 0, -1):
        _, block = np.unique(tiles // edge, axis=0, return_inverse=True)
        if block.max() + 1 >= FEW_BLOCKS:
            break
    return block.reshape(-1)


def _interval(
    counts: NDArray[np.int64], block: NDArray[np.int64], kappa: float, seed: int, resamples: int
) -> tuple[float, float]:
    """Limits of the 95 % interval of kappa; NaN with one block, or where kappa is undefined."""
    n, k = int(block.max()) + 1, counts.shape[1]
    if n < 2 or math.isnan(kappa):
        return math.nan, math.nan
    blocks = np.zeros((n, k * k), np.int64)
    np.add.at(blocks, block, counts.reshape(-1, k * k))
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    times = np.stack([np.bincount(one, minlength=n) for one in drawn])
    kappas = kappa_of((times @ blocks).reshape(-1, k, k))[1]
    tail = scipy.stats.norm.cdf(math.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 - _LEVEL) / 2, n - 1))
    low, high = np.quantile(kappas[np.isfinite(kappas)], (tail, 1 - tail))
    return min(float(low), kappa), max(float(high), kappa)


def _undefined(found: ReaderAgreement) -> Iterator[str]:
    """Why there is no kappa; nothing where there is one."""
    if not found.n_compared:
        yield "no place is drawn by both, so kappa is undefined"
    elif math.isnan(found.kappa):
        yield "both have used one class, the same, wherever both have drawn: kappa is undefined"
