"""Checks of the machinery of the twin on the log-linear model, whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Final

import numpy as np

from napari_mosaik.core.progress import blocking, checkpoint
from napari_mosaik.twin.data import Observation, Prior
from napari_mosaik.twin.posterior import log_linear_posterior
from napari_mosaik.twin.scans import predict_scan

__all__ = ["RANK_LIMIT", "SEQUENTIAL_LIMIT", "iter_verified_by_lines", "verified_by_lines"]

RANK_LIMIT: Final = 0.062
"""Largest gap of 1,000 ranks to even ones in 999 of 1,000 right programs (Kolmogorov)."""
SEQUENTIAL_LIMIT: Final = 1e-12
"""Deviation of one scan after the other from all at once, relative to the SD."""
_CALIBRATION_PATIENTS: Final = 1000
_SURGERY_H: Final = 336.0


def iter_verified_by_lines(
    rows: Sequence[Observation],
) -> Generator[float, None, dict[str, float]]:
    """What the machinery of the twin does to the log-linear model, whose answer is known.

    ``sequential_gap``: the tumour's scans one after the other against all at once, in SD.
    ``rank_gap``: largest gap of the ranks of 1,000 simulated truths among their draws to even ones.
    """
    prior = Prior.log_linear(intercept=(math.log(rows[0].mean), 1.0), slope_per_h=(0.002, 0.005))
    region = max(row.region for row in rows)
    lines = [row for row in rows if row.region == region]
    whole, step = log_linear_posterior(lines, prior), prior
    for row in lines:
        one = log_linear_posterior([row], step)
        step = Prior(one.names, one.mean, one.covariance)
    gap = float(np.max(np.abs(step.mean - whole.mean) / whole.sd))
    if not _KNOWN_GAP:
        _KNOWN_GAP.append((yield from _iter_rank_gap()))
    return {"sequential_gap": gap, "rank_gap": _KNOWN_GAP[0]}


verified_by_lines = blocking(iter_verified_by_lines)
_KNOWN_GAP: list[float] = []
"""The gap of the ranks, once it was computed: it is the same in every case."""


def _iter_rank_gap() -> Generator[float, None, float]:
    prior = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, 0.005))
    rng, ranks = np.random.default_rng(0), []
    truths = rng.multivariate_normal(prior.mean, prior.covariance, _CALIBRATION_PATIENTS)
    for number, (intercept, slope) in enumerate(truths):
        yield number / len(truths)
        checkpoint()
        seen = []
        for time in (72.0, 120.0, 168.0):
            mean = math.exp(intercept - slope * time + math.hypot(0.06, 0.05) * rng.normal())
            seen.append(Observation(time_h=time, region="tumour", mean=mean, sd=0.06 * mean))
        draws = predict_scan(log_linear_posterior(seen, prior), _SURGERY_H).draws[:, 0]
        ranks.append(float((draws < math.exp(intercept - slope * _SURGERY_H)).mean()))
    even = (np.arange(len(ranks)) + 0.5) / len(ranks)
    return float(np.abs(np.sort(ranks) - even).max())
