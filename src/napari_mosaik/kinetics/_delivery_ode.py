"""The tile equations solved numerically, many tiles at a time."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import csc_array

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.kinetics.delivery import DeliveryParams, plasma_um

__all__ = ["solve_tiles"]

_BATCH = 128


def solve_tiles(
    transfer_per_h: FloatArray, antigen_um: FloatArray, params: DeliveryParams, times: FloatArray
) -> FloatArray:
    """Free, bound and internalised antibody (n, t, 3), µM, with saturation of the antigen.

    Parameters
    ----------
    transfer_per_h
        (n,) permeability times surface density, 1/h.
    antigen_um
        (n,) total surface antigen, µM.
    params
        Settings.
    times
        (t,) ascending times, h.
    """
    out = np.zeros((transfer_per_h.size, times.size, 3))
    if times[-1] == 0:
        return out
    for start in range(0, transfer_per_h.size, _BATCH):
        rows = slice(start, start + _BATCH)
        out[rows] = _Batch(transfer_per_h[rows], antigen_um[rows], params).solve(times)
    return out


class _Batch:
    """The equations of a few tiles as one system, ordered free, bound, internalised."""

    def __init__(self, transfer: FloatArray, antigen: FloatArray, params: DeliveryParams) -> None:
        self.transfer, self.antigen, self.params = transfer, antigen, params
        n = transfer.size
        tile = np.arange(n)
        self.rows = np.concatenate([tile, tile, n + tile, n + tile, 2 * n + tile, 2 * n + tile])
        self.cols = np.concatenate([tile, n + tile, tile, n + tile, n + tile, 2 * n + tile])

    def rates(self, time_h: float, y: FloatArray) -> FloatArray:
        p, (free, bound, inside) = self.params, y.reshape(3, -1)
        binding = p.k_a_per_um_h * (self.antigen - bound) * free
        supply = plasma_um(p, time_h) - free / p.interstitial_fraction
        return np.concatenate(
            [
                self.transfer * supply - binding,
                binding - p.k32_per_h * bound,
                p.k32_per_h * bound - p.k03_per_h * inside,
            ]
        )

    def jacobian(self, _time_h: float, y: FloatArray) -> csc_array:
        p, (free, bound, _) = self.params, y.reshape(3, -1)
        by_free = p.k_a_per_um_h * (self.antigen - bound)
        by_bound = p.k_a_per_um_h * free
        one = np.ones_like(free)
        wash = self.transfer / p.interstitial_fraction
        data = np.concatenate(
            [
                -wash - by_free,
                by_bound,
                by_free,
                -by_bound - p.k32_per_h,
                p.k32_per_h * one,
                -p.k03_per_h * one,
            ]
        )
        return csc_array((data, (self.rows, self.cols)), shape=(y.size, y.size))

    def solve(self, times: FloatArray) -> FloatArray:
        n = self.transfer.size
        solution = solve_ivp(
            self.rates,
            (0.0, float(times[-1])),
            np.zeros(3 * n),
            method="BDF",
            t_eval=np.unique(times),
            jac=self.jacobian,
            rtol=1e-7,
            atol=1e-12,
        )
        if not solution.success:
            raise InputError(f"the tile kinetics could not be solved: {solution.message}")
        y = np.maximum(solution.y, 0.0)[:, np.searchsorted(solution.t, times)]
        return np.ascontiguousarray(y.reshape(3, n, times.size).transpose(1, 2, 0))
