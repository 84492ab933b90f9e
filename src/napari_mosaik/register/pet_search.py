"""The search for the map under which a PET slice is most likely, and how exact it is."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import InverseTransform
from napari_mosaik.register.params import PetAlignParams
from napari_mosaik.register.pet_model import PetModel

__all__ = ["LIKELIHOOD_TEMPERATURE", "PetSearch", "Way"]

LIKELIHOOD_TEMPERATURE = 4.0
"""Differences of cost count this many times less: the model is an approximation.

Chosen so that the expected errors are those found on the sample cohort (`docs/registration.md`).
"""
_FWHM_SPREAD = 0.1
"""How well a resolution is known: standard deviation of its logarithm."""
_SHIFT_UM, _TURN, _STRETCH, _WIDER = 300.0, 0.09, 0.03, 0.05
_EVALUATIONS_A_TURN = 8


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A map and how much wider than stated the resolution is (log of the ratio)."""

    pull: InverseTransform
    wider: float = 0.0
    cost: float = math.inf


class PetSearch:
    """The cost of ways to lay a PET slice on a section.

    Parameters
    ----------
    pet, outline
        The slice and the specimen on it.
    tissue
        Tissue mask of the section.
    params
        What may change, and the resolution.
    """

    def __init__(
        self, pet: Raster, outline: Raster, tissue: Raster, params: PetAlignParams
    ) -> None:
        self.model = PetModel(pet, outline, tissue, params.fwhm_um)
        self.params = params
        self.frames = pet.lattice.frame, tissue.lattice.frame
        self.points_um = _thin(tissue)
        n = {"rigid": 1, "similarity": 2, "affine": 4}[params.kind]
        self.units = np.array([_SHIFT_UM] * 2 + [_TURN] + [_STRETCH] * (n - 1) + [_WIDER])

    def moved(self, start: Way, step: FloatArray) -> Way:
        """The way after a step."""
        real = step * self.units
        real[:2] /= start.pull.unit_um
        return Way(start.pull.moved(real[:-1], self.params.kind), start.wider + float(real[-1]))

    def transform(self, way: Way) -> Transform:
        """The map from the PET to the section."""
        return way.pull.to_forward(*self.frames)

    def cost(self, way: Way) -> float:
        """Cost of a way; beyond the plausible scales it rises steeply."""
        transform = self.transform(way)
        beyond = max(
            math.log(self.params.min_scale / transform.scale),
            math.log(transform.scale / self.params.max_scale),
            0.0,
        )
        prior = LIKELIHOOD_TEMPERATURE * 0.5 * (way.wider / _FWHM_SPREAD) ** 2
        return self.model.cost(transform, self.fwhm_um(way)) + 1e5 * beyond + prior

    def fwhm_um(self, way: Way) -> float:
        """The resolution of a way."""
        return self.params.fwhm_um * math.exp(way.wider)

    def distance_um(self, one: Way, other: Way) -> float:
        """How far two ways put the same places apart, root mean square over the tissue, µm."""
        back = self.transform(one).inverse().apply(self.points_um)
        away = self.transform(other).apply(back) - self.points_um
        return float(np.sqrt((away**2).sum(axis=1).mean()))

    def choose_noise(self, way: Way) -> Way:
        """The same way with its cost under the noise that is most likely there."""
        self.model.choose_noise(self.transform(way), self.fwhm_um(way))
        return replace(way, cost=self.cost(way))

    def descend(
        self, start: Way, reach: float, within: float, most: int = 400
    ) -> Generator[float, None, Way]:
        """The least cost near a map (Nelder and Mead), a few evaluations between yields.

        *reach* is the length of the first steps, *within* the precision of the least cost, *most*
        about the greatest number of evaluations.
        """
        k = self.units.size
        simplex = np.vstack([np.zeros(k), np.eye(k) * reach])
        used, best = 0, math.inf
        while used < most:
            found = minimize(  # type: ignore[call-overload]
                lambda step: self.cost(self.moved(start, step)),
                simplex[0],
                method="Nelder-Mead",
                options={
                    "initial_simplex": simplex,
                    "maxfev": _EVALUATIONS_A_TURN + k + 1,
                    "xatol": math.inf,
                    "fatol": within,
                },
            )
            used += int(found.nfev)
            simplex, best = found.final_simplex[0], float(found.fun)
            yield min(used / 100, 0.95)
            if found.success:
                break
        return replace(self.moved(start, simplex[0]), cost=best)

    def uncertainty_um(self, fit: Way) -> Generator[float, None, float]:
        """Expected distance (root mean square over the tissue) of the map from the truth, µm.

        The cost is taken as a quadratic about its minimum (Laplace's approximation), tempered.
        """
        k = self.units.size
        width = 0.25
        curvature = np.empty((k, k))
        sides = {}
        for i in range(k):
            for sign in (1, -1):
                step = np.zeros(k)
                step[i] = sign * width
                sides[i, sign] = self.cost(self.moved(fit, step))
            yield i / (2 * k)
            curvature[i, i] = (sides[i, 1] + sides[i, -1] - 2 * fit.cost) / width**2
        for i in range(k):
            for j in range(i):
                step = np.zeros(k)
                step[[i, j]] = width
                along = self.cost(self.moved(fit, step))
                back = self.cost(self.moved(fit, -step))
                pure = sum(sides[n, sign] for n in (i, j) for sign in (1, -1))
                mixed = (along + back - pure + 2 * fit.cost) / (2 * width**2)
                curvature[i, j] = curvature[j, i] = mixed
            yield 0.5 + i / (2 * k)
        values, vectors = np.linalg.eigh(curvature)
        if values.min() <= 0:
            return math.inf
        spread = vectors / values @ vectors.T * LIKELIHOOD_TEMPERATURE
        there = self.transform(fit)
        moving = fit.pull.apply(self.points_um)
        slopes = []
        for i in range(k):
            step = np.zeros(k)
            step[i] = 0.01
            ahead = self.transform(self.moved(fit, step))
            slopes.append((ahead.apply(moving) - there.apply(moving)) / 0.01)
        slope = np.stack(slopes, axis=-1)
        return float(np.sqrt(np.einsum("nai,ij,naj->n", slope, spread, slope).mean()))


def _thin(tissue: Raster, most: int = 400) -> FloatArray:
    """Positions (n, 2) over the tissue."""
    rows, cols = np.nonzero(np.asarray(tissue.values, bool))
    keep = slice(None, None, max(1, rows.size // most))
    return tissue.lattice.to_um(np.stack([rows[keep], cols[keep]], axis=-1))
