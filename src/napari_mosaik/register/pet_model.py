"""The specimen as the PET scanner images it: its outline, and the likelihood of a slice.

The outlines on a PET slice and on the section are drawn at the same resolution.  A slice shows the
specimen blurred by the scanner and with uneven uptake.  The position of a low threshold depends
little on the uptake at the rim, so the outline is drawn at a low threshold; the section's outline
comes from its tissue mask blurred by the same resolution, so that both are enlarged equally.

Forward model of the scanner: the section's tissue times a smooth unknown uptake, blurred by the
scanner's resolution, averaged over the voxels, plus noise.  Uptake outside the tissue is zero, so
the fall-off of the activity shows where the rim is, however bright the tissue is there; a threshold
cannot distinguish a dim rim from one that lies further in.

The uptake is a sum of B-splines on knots half a resolution apart, with a Gaussian prior: no
parameter of the tissue enters, so the alignment cannot create an association of uptake and tissue
that is computed afterwards.  The noise is that of a reconstructed image, correlated between
neighbouring voxels.  Everything but the transform is integrated out or chosen by likelihood
(noise); `PetModel.cost` is the negative log marginal likelihood.

    y = A(transform) c + e,   c ~ N(0, C),   e ~ N(0, s^2 N)
    cost = 1/2 [ y' (A C A' + s^2 N)^-1 y + log |A C A' + s^2 N| ]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import binary_fill_holes, gaussian_filter, label, zoom
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.progress import checkpoint, side_by_side
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import InverseTransform, smoothed_image
from napari_mosaik.register.params import PetAlignParams

__all__ = [
    "DESCENT_EVALUATIONS",
    "ERROR_EVALUATIONS",
    "LIKELIHOOD_TEMPERATURE",
    "NOISE_EVALUATIONS",
    "TYPICAL_RIM",
    "PetCandidate",
    "PetModel",
    "PetSearch",
    "blurred_outline",
    "pet_mask",
]

TYPICAL_RIM = 0.6
"""Typical uptake at the rim over that of the bright parts of a slice; see `blurred_outline`."""
_SIGMA_PER_FWHM = 1.0 / 2.3548
_OUTLINE_SPACING_UM = 50.0


def pet_mask(pet: Raster, *, fraction: float = 0.1, refine: int = 8) -> Raster:
    """Mask of the specimen on a PET slice.

    The slice is interpolated first, so that the outline does not follow the voxel edges.

    Parameters
    ----------
    pet
        Activity or SUV (rows, columns), any unit; NaN counts as background.
    fraction
        Threshold of the edge between background (0) and the bright parts of the specimen (1).
    refine
        Samples per voxel along each axis of the result.

    Returns
    -------
    Mask (rows, columns) over the area of the PET with *refine* times finer spacing, holes filled,
    largest connected component only.

    Raises
    ------
    InputError
        If the slice has channels or nothing above its background.
    """
    if pet.values.ndim != 2:
        raise InputError(f"the PET must be (rows, columns), not {pet.values.shape}")
    values = np.nan_to_num(np.asarray(pet.values, np.float64))
    fine = _interpolated(values, refine)
    background = float(np.quantile(fine, 0.02))
    top = float(np.quantile(fine, 0.995))
    if not top - background > 1e-6 * abs(top):
        raise InputError(
            "the PET slice is uniform: no specimen can be outlined; choose another slice"
        )
    inside = fine > background + 0.3 * (top - background)
    bright = float(np.quantile(fine[inside], 0.9))
    inside = fine > background + fraction * (bright - background)
    mask = _largest(binary_fill_holes(inside))
    spacing = (pet.lattice.spacing_um[0] / refine, pet.lattice.spacing_um[1] / refine)
    lattice = Lattice(pet.lattice.frame, mask.shape, spacing, pet.lattice.origin_um)
    return Raster(mask, lattice)


def blurred_outline(tissue: Raster, fwhm_um: float, *, fraction: float = 0.1) -> Raster:
    """Mask of the section as a scanner of the given resolution would image it.

    Parameters
    ----------
    tissue
        Tissue mask (rows, columns) of the section.
    fwhm_um
        Resolution of the scanner (full width at half maximum), µm.
    fraction
        The fraction of `pet_mask`; it is divided by `TYPICAL_RIM`, because the uptake at the rim is
        lower than in the bright parts.

    Returns
    -------
    Mask (rows, columns) at about 50 µm per sample, with a margin for the enlarged outline, holes
    filled, largest connected component only.
    """
    values = np.asarray(tissue.values, np.float64)
    step = max(1, round(_OUTLINE_SPACING_UM / max(tissue.lattice.spacing_um)))
    rows, cols = (-(-length // step) * step for length in values.shape)
    padded = np.zeros((rows, cols))
    padded[: values.shape[0], : values.shape[1]] = values
    means = padded.reshape(rows // step, step, cols // step, step).mean(axis=(1, 3))
    spacing = (tissue.lattice.spacing_um[0] * step, tissue.lattice.spacing_um[1] * step)
    margin = [int(np.ceil(2 * fwhm_um / s)) for s in spacing]
    means = np.pad(means, [(m, m) for m in margin])
    blurred = gaussian_filter(means, [fwhm_um * _SIGMA_PER_FWHM / s for s in spacing])
    mask = _largest(binary_fill_holes(blurred > fraction / TYPICAL_RIM))
    origin = (
        tissue.lattice.origin_um[0] - margin[0] * spacing[0],
        tissue.lattice.origin_um[1] - margin[1] * spacing[1],
    )
    return Raster(mask, Lattice(tissue.lattice.frame, mask.shape, spacing, origin))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, n = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    sizes[0] = 0
    return np.asarray(parts == int(sizes.argmax()))


def _interpolated(values: FloatArray, refine: int) -> FloatArray:
    """Cubic interpolation at the centres of the finer samples; edges are repeated."""
    fine = zoom(values, refine, order=3, mode="nearest", grid_mode=True)
    return np.asarray(fine, np.float64)


LIKELIHOOD_TEMPERATURE = 4.0
"""Differences of the cost are divided by this, because the model is an approximation.

Chosen so that the expected errors match those measured on the sample cohort
(`docs/registration.md`).
"""
_FWHM_SPREAD = 0.1
"""Prior standard deviation of the logarithm of the resolution."""
_SHIFT_UM, _ROTATE, _STRETCH, _LOG_FWHM = 300.0, 0.09, 0.03, 0.05
"""Units of the search: shift, rotation (rad), scale and shear, logarithm of the resolution."""
_EVALUATIONS_PER_YIELD = 8
NOISE_EVALUATIONS, DESCENT_EVALUATIONS, ERROR_EVALUATIONS = 6, 68, 30
"""What a choice of the noise, a descent and the uncertainty usually take, in evaluations of the
cost."""
_MAX_KNOTS = 20
_CORRELATION_LENGTH = 0.8
"""Correlation length of the uptake (standard deviation of a Gaussian), in distances of knots."""
_SPREAD, _LEVEL = 0.6, 1.0
"""Prior standard deviations of the uptake about its mean, and of its mean; bright parts are 1."""
_NOISE_FLOOR = 0.02
_NOISE_LENGTHS = (0.25, 0.4, 0.6, 0.8)
"""Candidate correlation lengths of the noise, as fractions of the resolution (FWHM)."""
_NOISE_LEVELS = np.geomspace(0.003, 0.3, 30)


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    """Unit noise: eigenvectors of its correlation along both axes, and the whitening weights."""

    across: FloatArray
    along: FloatArray
    weight: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, lattice: Lattice, length_um: float, spread: FloatArray) -> _Noise:
        sides, values = [], []
        for n, step in zip(lattice.shape, lattice.spacing_um, strict=True):
            distance = (np.arange(n)[:, None] - np.arange(n)) * step
            correlation = np.exp(-((distance / (2 * length_um * _SIGMA_PER_FWHM)) ** 2))
            eigenvalues, vectors = np.linalg.eigh(correlation)
            sides.append(vectors)
            values.append(np.clip(eigenvalues, 0, None))
        weight = 1 / np.sqrt(np.outer(*values) + 0.02)
        return cls(sides[0], sides[1], weight, spread)

    def whiten(self, images: FloatArray) -> FloatArray:
        """Images (rows, columns, k) as (rows x columns, k) whitened values, dimensionless."""
        scaled = images / self.spread[..., None]
        rotated = (self.across.T @ scaled.reshape(len(scaled), -1)).reshape(scaled.shape)
        rotated = np.matmul(self.along.T, rotated)
        rotated *= self.weight[..., None]
        return np.asarray(rotated.reshape(-1, images.shape[2]))

    def whiten_one(self, image: FloatArray) -> FloatArray:
        """One image (rows, columns) as (rows x columns,) whitened values, dimensionless."""
        rotated = (self.along.T @ (self.across.T @ (image / self.spread)).T).T
        return np.asarray((rotated * self.weight).ravel())

    @property
    def log_scale(self) -> float:
        """Log determinant of the square root of the unit covariance."""
        return float(np.log(self.spread).sum() - np.log(self.weight).sum())


class _OneBlasThread(AbstractContextManager[None]):
    """One BLAS thread while any thread of the process is inside: the limit is the process's.

    The order of the sums, and so the result, is then the same on any machine.
    """

    def __init__(self) -> None:
        self._controller, self._lock, self._inside = ThreadpoolController(), Lock(), 0
        self._restore: Callable[[], Any] = int

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                limiter = self._controller.limit(limits=1, user_api="blas")
                self._restore = limiter.restore_original_limits
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore()


_one_blas_thread = cache(_OneBlasThread)


class PetModel:
    """The likelihood of a PET slice given its transform to a section.

    Parameters
    ----------
    pet
        Activity or SUV (rows, columns), any unit; NaN counts as 0.
    outline
        Mask (rows, columns) of the specimen on the PET (see `pet_mask`): only voxels within two
        resolutions of it are modelled.
    tissue
        Tissue mask (rows, columns) of the section.
    fwhm_um
        Resolution of the scanner (full width at half maximum), µm.

    Raises
    ------
    InputError
        If the PET has channels, or if its voxels are wider than its resolution.
    """

    def __init__(self, pet: Raster, outline: Raster, tissue: Raster, fwhm_um: float) -> None:
        if pet.values.ndim != 2:
            raise InputError(f"the PET must be (rows, columns), not {pet.values.shape}")
        if max(pet.lattice.spacing_um) > 1.5 * fwhm_um:
            raise InputError(
                f"the PET's voxels of {max(pet.lattice.spacing_um):g} µm are too wide for a "
                f"resolution of {fwhm_um:g} µm; check both"
            )
        self._fwhm_um = fwhm_um
        rows, cols = _around(outline, pet.lattice, 2 * fwhm_um)
        self._lattice = pet.lattice.crop(rows, cols)
        values = np.nan_to_num(np.asarray(pet.values, np.float64))
        background = float(np.quantile(values, 0.02))
        part = values[rows, cols] - background
        self._values = part / max(float(np.quantile(part, 0.99)), 1e-300)
        self._place_knots(outline)
        self._tissue = smoothed_image(tissue, self._fine.spacing_um[0] / 2)
        smooth = np.clip(gaussian_filter(self._values, 1.0), 0, None)
        self._spreads = (np.ones_like(smooth), np.sqrt(_NOISE_FLOOR + smooth))
        self._noise = _Noise.of(self._lattice, _NOISE_LENGTHS[1] * fwhm_um, self._spreads[1])
        self._level = float(_NOISE_LEVELS[10])

    def _place_knots(self, outline: Raster) -> None:
        """The knots of the uptake, its prior, and the fine lattice of the forward model."""
        step = min(self._lattice.spacing_um)
        parts = [
            max(2, math.ceil(s / min(step / 2, self._fwhm_um / 12)))
            for s in self._lattice.spacing_um
        ]
        longest = max(self._lattice.extent_um)
        knot_distance = max(self._fwhm_um / 2, longest / _MAX_KNOTS)
        sides, splines, knots, self._scanner = [], [], [], []
        beyond = [math.ceil(1.3 * self._fwhm_um / s) for s in self._lattice.spacing_um]
        for n, more, size, part in zip(
            self._lattice.shape, beyond, self._lattice.spacing_um, parts, strict=True
        ):
            fine = (np.arange((n + 2 * more) * part) + 0.5) * size / part - more * size
            count = math.ceil((n + 2 * more) * size / knot_distance) + 3
            knot = n * size / 2 + (np.arange(count) - (count - 1) / 2) * knot_distance
            spline = _cubic((fine - knot[:, None]) / knot_distance)
            self._scanner.append((fine, n, size, part))
            splines.append(spline)
            sides.append(count)
            knots.append(knot)
        self._splines, self._sides = splines, sides
        positions = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2)
        inside = outline.lattice.centres_um()[np.asarray(outline.values, bool)]
        distance, _ = cKDTree(inside).query(positions + self._lattice.origin_um)
        self._used = np.flatnonzero(distance < self._fwhm_um + 2 * knot_distance)
        positions = positions[self._used]
        squared = ((positions[:, None] - positions) ** 2).sum(-1)
        squared = squared / (_CORRELATION_LENGTH * knot_distance) ** 2
        prior = _SPREAD**2 * np.exp(-squared / 2) + _LEVEL**2
        prior[np.diag_indices_from(prior)] += 1e-4
        self._prior_inverse = np.linalg.inv(prior)
        self._prior_log = float(np.linalg.slogdet(prior)[1])
        voxels = self._lattice
        sides_px = [(n + 2 * b) * p for n, b, p in zip(voxels.shape, beyond, parts, strict=True)]
        spacing = [s / p for s, p in zip(voxels.spacing_um, parts, strict=True)]
        origin = [
            o - b * s for o, b, s in zip(voxels.origin_um, beyond, voxels.spacing_um, strict=True)
        ]
        self._fine = Lattice(
            voxels.frame,
            (sides_px[0], sides_px[1]),
            (spacing[0], spacing[1]),
            (origin[0], origin[1]),
        )
        self._points = self._fine.centres_um().reshape(-1, 2)

    def choose_noise(self, transform: Transform, fwhm_um: float | None = None) -> None:
        """Set the kind, length and level of the noise for which the transform is most likely."""
        with _one_blas_thread():
            self._choose_noise(self._design(transform, fwhm_um))

    def _choose_noise(self, design: FloatArray) -> None:
        best = math.inf
        for length in _NOISE_LENGTHS:
            for spread in self._spreads:
                noise = _Noise.of(self._lattice, length * self._fwhm_um, spread)
                cost, level = self._best_level(self._sums(design, noise), noise)
                if cost < best:
                    best, self._noise, self._level = cost, noise, level

    def _best_level(
        self, sums: tuple[FloatArray, FloatArray, float], noise: _Noise
    ) -> tuple[float, float]:
        """The least cost over the levels of the noise, and its level; every third is tried first.

        The cost of a level has one minimum.
        """
        costs = {
            number: self._cost(sums, noise, float(_NOISE_LEVELS[number]))
            for number in range(1, _NOISE_LEVELS.size, 3)
        }
        middle = min(costs, key=costs.__getitem__)
        for number in (middle - 1, middle + 1):
            costs[number] = self._cost(sums, noise, float(_NOISE_LEVELS[number]))
        best = min(costs, key=costs.__getitem__)
        return costs[best], float(_NOISE_LEVELS[best])

    def cost(self, transform: Transform, fwhm_um: float | None = None) -> float:
        """Negative log likelihood of a transform from the PET to the section, up to a constant.

        *fwhm_um* replaces the resolution of the constructor.
        """
        checkpoint()
        with _one_blas_thread():
            sums = self._sums(self._design(transform, fwhm_um), self._noise)
            return self._cost(sums, self._noise, self._level)

    def _design(self, transform: Transform, fwhm_um: float | None) -> FloatArray:
        """The image (rows, columns, knots) of each spline of uptake in the tissue."""
        tissue = self._tissue.at_where_it_shows(transform.apply(self._points))
        tissue = tissue.reshape(self._fine.shape)
        sigma = (fwhm_um or self._fwhm_um) * _SIGMA_PER_FWHM
        down, right = (
            (spline[:, None] * _blur(fine, n, size, sigma) * (size / part)).astype(np.float32)
            for spline, (fine, n, size, part) in zip(self._splines, self._scanner, strict=True)
        )
        halves = down @ tissue.astype(np.float32)
        rows, cols = self._lattice.shape
        images = np.empty((rows, cols, self._used.size))
        for i, half in enumerate(halves):
            here = slice(*np.searchsorted(self._used, [i * len(right), (i + 1) * len(right)]))
            columns = self._used[here] - i * len(right)
            part = half @ right[columns].reshape(-1, half.shape[1]).T
            images[..., here] = part.reshape(rows, -1, cols).transpose(0, 2, 1)
        return images

    def _sums(self, design: FloatArray, noise: _Noise) -> tuple[FloatArray, FloatArray, float]:
        """Products of the splines with one another and with the slice, after whitening."""
        white = noise.whiten(design)
        target = noise.whiten_one(self._values)
        return white.T @ white, white.T @ target, float(target @ target)

    def _cost(
        self, sums: tuple[FloatArray, FloatArray, float], noise: _Noise, level: float
    ) -> float:
        normal, projected, total = sums
        factor = cho_factor(normal / level**2 + self._prior_inverse, lower=True, check_finite=False)
        explained = float(projected @ cho_solve(factor, projected, check_finite=False)) / level**4
        log = 2 * float(np.log(np.diag(factor[0])).sum()) + self._prior_log
        log += self._values.size * 2 * math.log(level)
        return 0.5 * (total / level**2 - explained + log) + noise.log_scale


def _cubic(t: FloatArray) -> FloatArray:
    """The cubic B-spline; shifted by whole numbers it sums to 1."""
    t = np.abs(t)
    near, far = (4 - 6 * t**2 + 3 * t**3) / 6, np.clip(2 - t, 0, None) ** 3 / 6
    return np.asarray(np.where(t < 1, near, far), np.float64)


def _blur(fine: FloatArray, n: int, size: float, sigma: float) -> FloatArray:
    """Mean (n, fine) over each voxel of a blurred point at each fine position, 1/µm."""
    middle = (np.arange(n) + 0.5)[:, None] * size
    upper, lower = (middle + size / 2 - fine) / sigma, (middle - size / 2 - fine) / sigma
    return np.asarray((ndtr(upper) - ndtr(lower)) / size, np.float64)


def _around(outline: Raster, lattice: Lattice, margin_um: float) -> tuple[slice, slice]:
    """Rows and columns of the voxels around an outline."""
    inside = outline.lattice.centres_um()[np.asarray(outline.values, bool)]
    low = np.floor(lattice.to_index(inside.min(axis=0) - margin_um))
    high = np.ceil(lattice.to_index(inside.max(axis=0) + margin_um))
    rows, cols = [
        slice(max(0, int(a)), min(n, int(b) + 1))
        for a, b, n in zip(low, high, lattice.shape, strict=True)
    ]
    return rows, cols


@dataclass(frozen=True, slots=True, eq=False)
class PetCandidate:
    """A candidate transform of the PET with its cost.

    ``log_fwhm_ratio`` is the logarithm of the resolution over the one in the settings.
    """

    inverse: InverseTransform
    log_fwhm_ratio: float = 0.0
    cost: float = math.inf


class PetSearch:
    """The search for the most likely transform of a PET slice, and its uncertainty.

    Parameters
    ----------
    pet, outline
        The slice and the mask of the specimen on it, each (rows, columns).
    tissue
        Tissue mask (rows, columns) of the section.
    params
        Degrees of freedom, resolution and plausible scales.
    """

    def __init__(
        self, pet: Raster, outline: Raster, tissue: Raster, params: PetAlignParams
    ) -> None:
        self.model = PetModel(pet, outline, tissue, params.fwhm_um)
        self.params = params
        self.frames = pet.lattice.frame, tissue.lattice.frame
        self.points_um = _tissue_positions(tissue)
        n = {"rigid": 1, "similarity": 2, "affine": 4}[params.kind]
        self.units = np.array([_SHIFT_UM] * 2 + [_ROTATE] + [_STRETCH] * (n - 1) + [_LOG_FWHM])

    def moved(self, start: PetCandidate, step: FloatArray) -> PetCandidate:
        """The candidate after a step (k,), dimensionless (in the units of the search)."""
        scaled = step * self.units
        scaled[:2] /= start.inverse.unit_um
        return PetCandidate(
            start.inverse.moved(scaled[:-1], self.params.kind),
            start.log_fwhm_ratio + float(scaled[-1]),
        )

    def transform(self, candidate: PetCandidate) -> Transform:
        """The transform from the PET to the section."""
        return candidate.inverse.to_forward(*self.frames)

    def cost(self, candidate: PetCandidate) -> float:
        """Cost of a candidate; it rises steeply outside the plausible scales."""
        transform = self.transform(candidate)
        beyond = max(
            math.log(self.params.min_scale / transform.scale),
            math.log(transform.scale / self.params.max_scale),
            0.0,
        )
        prior = LIKELIHOOD_TEMPERATURE * 0.5 * (candidate.log_fwhm_ratio / _FWHM_SPREAD) ** 2
        return self.model.cost(transform, self.fwhm_um(candidate)) + 1e5 * beyond + prior

    def fwhm_um(self, candidate: PetCandidate) -> float:
        """The resolution of a candidate, µm."""
        return self.params.fwhm_um * math.exp(candidate.log_fwhm_ratio)

    def distance_um(self, one: PetCandidate, other: PetCandidate) -> float:
        """Distance of two transforms, root mean square over the tissue, µm."""
        back = self.transform(one).inverse().apply(self.points_um)
        difference = self.transform(other).apply(back) - self.points_um
        return float(np.sqrt((difference**2).sum(axis=1).mean()))

    def choose_noise(self, candidate: PetCandidate) -> PetCandidate:
        """The candidate with its cost under the noise that is most likely for it."""
        self.model.choose_noise(self.transform(candidate), self.fwhm_um(candidate))
        return replace(candidate, cost=self.cost(candidate))

    def descend(
        self, start: PetCandidate, reach: float, tolerance: float, max_evaluations: int = 400
    ) -> Generator[float, None, PetCandidate]:
        """The minimum of the cost near a candidate (Nelder and Mead).

        *reach* is the length of the first steps, *tolerance* the precision of the cost.  Yields
        after a few evaluations, so that the search can be cancelled.
        """
        k = self.units.size
        simplex = np.vstack([np.zeros(k), np.eye(k) * reach])
        used, best = 0, math.inf
        known: dict[bytes, float] = {}

        def cost(step: FloatArray) -> float:
            # each part of the search begins with the corners of the one before
            key = step.tobytes()
            if key not in known:
                known[key] = self.cost(self.moved(start, step))
            return known[key]

        while used < max_evaluations:
            result = minimize(
                cost,
                simplex[0],
                method="Nelder-Mead",
                options={
                    "initial_simplex": simplex,
                    "maxfev": _EVALUATIONS_PER_YIELD + k + 1,
                    "xatol": math.inf,
                    "fatol": tolerance,
                },
            )
            used += int(result.nfev)
            simplex, best = result.final_simplex[0], float(result.fun)
            yield min(len(known) / DESCENT_EVALUATIONS, 0.95)
            if result.success:
                break
        return replace(self.moved(start, simplex[0]), cost=best)

    def uncertainty_um(self, fit: PetCandidate) -> Generator[float, None, float]:
        """Expected registration error, root mean square over the tissue, µm.

        Laplace approximation: the tempered cost is a quadratic about its minimum.  Infinite where
        the cost has no minimum there.
        """
        k = self.units.size
        width = 0.25
        axes = np.eye(k) * width
        pairs = [(i, j) for i in range(k) for j in range(i)]
        steps = [sign * axes[i] for i in range(k) for sign in (1, -1)]
        steps += [sign * (axes[i] + axes[j]) for i, j in pairs for sign in (1, -1)]
        costs = yield from side_by_side(lambda step: self.cost(self.moved(fit, step)), steps)
        both = [one + other for one, other in zip(costs[::2], costs[1::2], strict=True)]
        curvature = np.diag([(sides - 2 * fit.cost) / width**2 for sides in both[:k]])
        for (i, j), mixed in zip(pairs, both[k:], strict=True):
            sides = sum(costs[2 * n + m] for n in (i, j) for m in (0, 1))
            curvature[i, j] = (mixed - sides + 2 * fit.cost) / (2 * width**2)
            curvature[j, i] = curvature[i, j]
        values, vectors = np.linalg.eigh(curvature)
        if values.min() <= 0:
            return math.inf
        covariance = vectors / values @ vectors.T * LIKELIHOOD_TEMPERATURE
        fitted = self.transform(fit)
        moving = fit.inverse.apply(self.points_um)
        derivatives = []
        for i in range(k):
            step = np.zeros(k)
            step[i] = 0.01
            shifted = self.transform(self.moved(fit, step))
            derivatives.append((shifted.apply(moving) - fitted.apply(moving)) / 0.01)
        jacobian = np.stack(derivatives, axis=-1)
        return float(np.sqrt(np.einsum("nai,ij,naj->n", jacobian, covariance, jacobian).mean()))


def _tissue_positions(tissue: Raster, max_positions: int = 400) -> FloatArray:
    """Positions (n, 2) over the tissue, µm."""
    rows, cols = np.nonzero(np.asarray(tissue.values, bool))
    subset = slice(None, None, max(1, rows.size // max_positions))
    return tissue.lattice.to_um(np.stack([rows[subset], cols[subset]], axis=-1))
