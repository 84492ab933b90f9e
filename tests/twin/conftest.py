"""Priors and a patient of the chain."""

import numpy as np
import pytest

from napari_mosaik.twin import Observation, Prior
from napari_mosaik.twin.chain import Chain

DEFAULTS = {
    "transfer_per_h": (0.054, 0.5),
    "k32_per_h": (0.2, 0.5),
    "k03_per_h": (8.33e-4, 1.0),
    "plasma_start": (25.0, 0.3),
    "fast_half_life_h": (12.0, 0.3),
    "slow_half_life_h": (90.0, 0.3),
    "fast_fraction": 0.4,
}


def chain_prior(**changes):
    return Prior.chain(**{**DEFAULTS, **changes})


def scans(prior, truth, times=(72, 120, 168), regions=("tumour", "blood"), cv=0.05, noise=None):
    """Observations of the chain at *truth*: (name, value) of what differs from the medians."""
    chain = Chain(prior, tuple(truth))
    point = np.log(np.array(list(truth.values()), float))
    rows = []
    for time in times:
        for region in regions:
            level = float(np.exp(chain.ln_curve(point, [time], region)[0]))
            if noise is not None:
                level *= float(np.exp(np.hypot(cv, 0.05) * noise.standard_normal()))
            rows.append(Observation(time_h=time, region=region, mean=level, sd=cv * level))
    return rows


@pytest.fixture(scope="session")
def patient():
    prior = chain_prior()
    return prior, scans(prior, {"transfer_per_h": 0.08, "slow_half_life_h": 80.0})
