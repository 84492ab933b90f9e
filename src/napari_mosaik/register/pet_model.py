"""How likely a PET slice is if it lies on the section in a given way.

The slice is modelled as the section's tissue times a smooth unknown uptake, blurred by the scanner
and averaged over the voxels, plus noise.  Uptake outside the tissue is zero, so the way in which
the activity fades at the rim tells where the rim is, however bright the tissue is there; a
threshold cannot tell a dark rim from one that lies further in.

The uptake is a sum of B-splines on knots half a resolution apart, with a Gaussian prior: no
parameter of the tissue enters, so an association of uptake and tissue that is computed afterwards
is not made by the alignment.  The noise is that of a reconstructed image, alike in neighbouring
voxels.  Everything but the map is integrated out or chosen by likelihood (noise); `PetModel.cost`
is the negative log marginal likelihood.

    y = A(map) c + e,   c ~ N(0, C),   e ~ N(0, s^2 N)
    cost = 1/2 [ y' (A C A' + s^2 N)^-1 y + log |A C A' + s^2 N| ]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import smoothed_image

__all__ = ["PetModel"]

_SIGMA_PER_FWHM = 1.0 / 2.3548
_MOST_KNOTS = 20
_LIKENESS = 0.8
"""Length over which the uptake is alike (standard deviation of a Gaussian) over that of knots."""
_SPREAD, _LEVEL = 0.6, 1.0
"""Prior standard deviations of the uptake about its mean and of the mean; 1 is a bright part."""
_FLOOR = 0.02
_NOISE_LENGTHS = (0.25, 0.4, 0.6, 0.8)
"""Lengths over which noise may be alike, as shares of the resolution (FWHM of the filter)."""
_NOISE_LEVELS = np.geomspace(0.003, 0.3, 30)


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    """Unit noise: eigenvectors of its correlation along both axes, and what makes it white."""

    across: FloatArray
    along: FloatArray
    weight: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, lattice: Lattice, length_um: float, spread: FloatArray) -> _Noise:
        sides, values = [], []
        for n, step in zip(lattice.shape, lattice.spacing_um, strict=True):
            away = (np.arange(n)[:, None] - np.arange(n)) * step
            alike = np.exp(-((away / (2 * length_um * _SIGMA_PER_FWHM)) ** 2))
            found, vectors = np.linalg.eigh(alike)
            sides.append(vectors)
            values.append(np.clip(found, 0, None))
        weight = 1 / np.sqrt(np.outer(*values) + 0.02)
        return cls(sides[0], sides[1], weight, spread)

    def whiten(self, images: FloatArray) -> FloatArray:
        """(rows, columns, k) images as (rows x columns, k) numbers with white noise."""
        scaled = images / self.spread[..., None]
        turned = np.tensordot(self.across.T, scaled, 1)
        turned = np.einsum("abk,bc->ack", turned, self.along, optimize=True)
        return np.asarray((turned * self.weight[..., None]).reshape(-1, images.shape[2]))

    @property
    def log_scale(self) -> float:
        """Log determinant of the square root of the unit covariance."""
        return float(np.log(self.spread).sum() - np.log(self.weight).sum())


class PetModel:
    """A PET slice and a section, ready to say how well a map between them explains the slice.

    Parameters
    ----------
    pet
        (rows, columns) activity or SUV; NaN counts as 0.
    outline
        The specimen on the PET (see `pet_mask`): only voxels within two resolutions of it count.
    tissue
        Tissue mask of the section.
    fwhm_um
        Resolution of the scanner (full width at half maximum), µm.

    Raises
    ------
    InputError
        If the PET has channels, or if its voxels are wider than its resolution.
    """

    def __init__(self, pet: Raster, outline: Raster, tissue: Raster, fwhm_um: float) -> None:
        if pet.values.ndim != 2:
            raise InputError(f"the PET has channels: shape {pet.values.shape}")
        if max(pet.lattice.spacing_um) > 1.5 * fwhm_um:
            raise InputError(
                f"the PET's voxels of {max(pet.lattice.spacing_um):g} µm are too wide for a "
                f"resolution of {fwhm_um:g} µm; check both"
            )
        self._fwhm_um = fwhm_um
        self._threads = ThreadpoolController()  # one for BLAS: the same sums on any machine
        rows, cols = _around(outline, pet.lattice, 2 * fwhm_um)
        self._lattice = pet.lattice.crop(rows, cols)
        values = np.nan_to_num(np.asarray(pet.values, np.float64))
        ground = float(np.quantile(values, 0.02))
        part = values[rows, cols] - ground
        self._values = part / max(float(np.quantile(part, 0.99)), 1e-300)
        self._lay_knots(outline)
        self._tissue = smoothed_image(tissue, self._fine.spacing_um[0] / 2)
        smooth = np.clip(gaussian_filter(self._values, 1.0), 0, None)
        self._spreads = (np.ones_like(smooth), np.sqrt(_FLOOR + smooth))
        self._noise = _Noise.of(self._lattice, _NOISE_LENGTHS[1] * fwhm_um, self._spreads[1])
        self._level = float(_NOISE_LEVELS[10])

    def _lay_knots(self, outline: Raster) -> None:
        """Knots of the uptake, its prior, and how each spline is seen by the scanner's axes."""
        step = min(self._lattice.spacing_um)
        parts = [
            max(2, math.ceil(s / min(step / 2, self._fwhm_um / 12)))
            for s in self._lattice.spacing_um
        ]
        longest = max(self._lattice.extent_um)
        apart = max(self._fwhm_um / 2, longest / _MOST_KNOTS)
        sides, splines, knots, self._scanner = [], [], [], []
        beyond = [math.ceil(1.3 * self._fwhm_um / s) for s in self._lattice.spacing_um]
        for n, more, size, part in zip(
            self._lattice.shape, beyond, self._lattice.spacing_um, parts, strict=True
        ):
            fine = (np.arange((n + 2 * more) * part) + 0.5) * size / part - more * size
            count = math.ceil((n + 2 * more) * size / apart) + 3
            knot = n * size / 2 + (np.arange(count) - (count - 1) / 2) * apart
            spline = _cubic((fine - knot[:, None]) / apart)
            self._scanner.append((fine, n, size, part))
            splines.append(spline)
            sides.append(count)
            knots.append(knot)
        self._splines, self._sides = splines, sides
        places = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2)
        inside = outline.lattice.centres_um()[np.asarray(outline.values, bool)]
        away, _ = cKDTree(inside).query(places + self._lattice.origin_um)
        self._used = np.flatnonzero(away < self._fwhm_um + 2 * apart)
        places = places[self._used]
        away = ((places[:, None] - places) ** 2).sum(-1) / (_LIKENESS * apart) ** 2
        prior = _SPREAD**2 * np.exp(-away / 2) + _LEVEL**2
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
        """Take the kind, length and level of noise under which the map is most likely."""
        with self._threads.limit(limits=1, user_api="blas"):
            self._choose_noise(self._design(transform, fwhm_um))

    def _choose_noise(self, design: FloatArray) -> None:
        best = math.inf
        for length in _NOISE_LENGTHS:
            for spread in self._spreads:
                noise = _Noise.of(self._lattice, length * self._fwhm_um, spread)
                sums = self._sums(design, noise)
                for level in _NOISE_LEVELS:
                    cost = self._cost(sums, noise, float(level))
                    if cost < best:
                        best, self._noise, self._level = cost, noise, float(level)

    def cost(self, transform: Transform, fwhm_um: float | None = None) -> float:
        """Negative log likelihood of a map from the PET to the section, up to a constant.

        With *fwhm_um* the scanner's resolution is that instead of the one given at first.
        """
        with self._threads.limit(limits=1, user_api="blas"):
            sums = self._sums(self._design(transform, fwhm_um), self._noise)
            return self._cost(sums, self._noise, self._level)

    def _design(self, transform: Transform, fwhm_um: float | None) -> FloatArray:
        """(rows, columns, knots): what the scanner sees of each spline of uptake in the tissue."""
        tissue = self._tissue.at(transform.apply(self._points)).reshape(self._fine.shape)
        sigma = (fwhm_um or self._fwhm_um) * _SIGMA_PER_FWHM
        down, right = (
            (spline[:, None] * _blur(fine, n, size, sigma) * (size / part)).astype(np.float32)
            for spline, (fine, n, size, part) in zip(self._splines, self._scanner, strict=True)
        )
        halves = down @ tissue.astype(np.float32)
        rows, cols = self._lattice.shape
        seen = np.empty((rows, cols, self._used.size))
        for i, half in enumerate(halves):
            here = slice(*np.searchsorted(self._used, [i * len(right), (i + 1) * len(right)]))
            columns = self._used[here] - i * len(right)
            part = half @ right[columns].reshape(-1, half.shape[1]).T
            seen[..., here] = part.reshape(rows, -1, cols).transpose(0, 2, 1)
        return seen

    def _sums(self, design: FloatArray, noise: _Noise) -> tuple[FloatArray, FloatArray, float]:
        """Products of the splines with one another and with the slice, where noise is white."""
        white = noise.whiten(design)
        aim = noise.whiten(self._values[..., None])[:, 0]
        return white.T @ white, white.T @ aim, float(aim @ aim)

    def _cost(
        self, sums: tuple[FloatArray, FloatArray, float], noise: _Noise, level: float
    ) -> float:
        normal, pulled, total = sums
        factor = cho_factor(normal / level**2 + self._prior_inverse, lower=True, check_finite=False)
        explained = float(pulled @ cho_solve(factor, pulled, check_finite=False)) / level**4
        log = 2 * float(np.log(np.diag(factor[0])).sum()) + self._prior_log
        log += self._values.size * 2 * math.log(level)
        return 0.5 * (total / level**2 - explained + log) + noise.log_scale


def _cubic(t: FloatArray) -> FloatArray:
    """The cubic B-spline; neighbours one apart add up to 1."""
    t = np.abs(t)
    near, far = (4 - 6 * t**2 + 3 * t**3) / 6, np.clip(2 - t, 0, None) ** 3 / 6
    return np.asarray(np.where(t < 1, near, far), np.float64)


def _blur(fine: FloatArray, n: int, size: float, sigma: float) -> FloatArray:
    """(n, fine) mean over each voxel of a blurred point at each fine place, per µm."""
    middle = (np.arange(n) + 0.5)[:, None] * size
    upper, lower = (middle + size / 2 - fine) / sigma, (middle - size / 2 - fine) / sigma
    return np.asarray((ndtr(upper) - ndtr(lower)) / size, np.float64)


def _around(outline: Raster, lattice: Lattice, margin_um: float) -> tuple[slice, slice]:
    """Rows and columns of the voxels around an outline."""
    inside = outline.lattice.centres_um()[np.asarray(outline.values, bool)]
    low = np.floor(lattice.to_index(inside.min(axis=0) - margin_um))
    high = np.ceil(lattice.to_index(inside.max(axis=0) + margin_um))
    found = [
        slice(max(0, int(a)), min(n, int(b) + 1))
        for a, b, n in zip(low, high, lattice.shape, strict=True)
    ]
    return found[0], found[1]
