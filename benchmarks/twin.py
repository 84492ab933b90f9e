"""Updating twin: seconds against a plain sampler over an ODE solver; coverage, also of another law.

python benchmarks/twin.py [--patients 200] [--lines 2000] [--seed 0] [--json]

Coverage is that of 90 % intervals of the tumour's curve at day 14 after scans of tumour and blood
at days 3, 5 and 7.  Patients follow the model itself, or the law of the sample's series (finite
antigen, slow internalisation), which the model does not know.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import emcee
import numpy as np
from scipy.integrate import solve_ivp

from napari_mosaik.dosimetry import dose_per_activity_gy, nuclide
from napari_mosaik.twin import (
    Observation,
    Prior,
    chain_posterior,
    log_linear_posterior,
    predict,
    update,
    virtual_cohort,
)
from napari_mosaik.twin.chain import Chain

TIMES = (72.0, 120.0, 168.0)
DAY_14 = 336.0
TWO = ("transfer_per_h", "slow_half_life_h")
FIVE = ("transfer_per_h", "k03_per_h", "plasma_start", "fast_half_life_h", "slow_half_life_h")
BARS = {"two_free_s": 2.0, "five_free_s": 60.0, "cohort_s": 60.0}
WALKERS, STEPS = 32, 4000
CV = 0.06


def chain_prior(transfer=0.0054, sd=0.5):
    """The prior of all patients; the median of the transfer is near that of the sample."""
    return Prior.chain(
        transfer_per_h=(transfer, sd),
        k32_per_h=(0.2, 0.5),
        k03_per_h=(8.33e-4, 1.0),
        plasma_start=(25.0, 0.3),
        fast_half_life_h=(12.0, 0.3),
        slow_half_life_h=(90.0, 0.3),
        fast_fraction=0.4,
    )


def observed(levels, rng):
    """Observations of (time, region): level with the noise that they state, and 5 % more."""
    rows = []
    for (hours, region), level in levels.items():
        mean = level * math.exp(math.hypot(CV, 0.05) * rng.standard_normal())
        rows.append(Observation(time_h=hours, region=region, mean=mean, sd=CV * mean))
    return rows


def own_law(prior, rng):
    """Levels of a patient of the model, all five parameters drawn, and the truth at day 14."""
    chain = Chain(prior, FIVE)
    point = rng.multivariate_normal(chain.mean, chain.covariance)
    levels = {
        (t, r): float(np.exp(chain.ln_curve(point, [t], r)[0]))
        for t in TIMES
        for r in ("tumour", "blood")
    }
    return levels, float(np.exp(chain.ln_curve(point, [DAY_14], "tumour")[0]))


def other_law(rng):
    """Levels of a patient whose antigen is finite and whose internalisation is slow."""
    start = 25 * math.exp(0.1 * rng.standard_normal())
    delivery = 0.005 * math.exp(0.5 * rng.standard_normal())
    capacity = 30 * math.exp(0.2 * rng.standard_normal())
    k32, k03 = 0.03 * math.exp(0.2 * rng.standard_normal()), 8.33e-4
    slow = 90 * math.exp(0.2 * rng.standard_normal())

    def plasma(t):
        return start * (0.4 * 2 ** (-t / 12) + 0.6 * 2 ** (-t / slow))

    def change(t, state):
        bound, inside = state
        gained = delivery * plasma(t) * (1 - (bound + inside) / capacity)
        return [gained - k32 * bound, k32 * bound - k03 * inside]

    times = [*TIMES, DAY_14]
    state = solve_ivp(change, (0, DAY_14), [0, 0], "LSODA", times, rtol=1e-9, atol=1e-9).y
    blood = 0.55 * plasma(np.array(times))
    tumour = 0.95 * state.sum(axis=0) + 0.05 * blood
    levels = {}
    for place, t in enumerate(TIMES):
        levels[t, "tumour"], levels[t, "blood"] = float(tumour[place]), float(blood[place])
    return levels, float(tumour[-1])


def coverage_of_lines(patients, seed):
    """Share of 90 % intervals of day 14 that hold the truth, and largest gap of the ranks."""
    prior = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, 0.005))
    rng = np.random.default_rng(seed)
    held, ranks = [], []
    for intercept, slope in rng.multivariate_normal(prior.mean, prior.covariance, patients):
        levels = {(t, "tumour"): math.exp(intercept - slope * t) for t in TIMES}
        band = predict(log_linear_posterior(observed(levels, rng), prior), DAY_14)
        truth = math.exp(intercept - slope * DAY_14)
        held.append(band.low <= truth <= band.high)
        ranks.append((band.draws[:, 0] < truth).mean())
    return {"lines_coverage": float(np.mean(held)), "lines_rank_gap": rank_gap(ranks)}


def coverage_of_chains(patients, seed):
    """Coverage, ranks and spread of z of patients of the model and of the other law."""
    found = {}
    for law in ("own", "other"):
        rng = np.random.default_rng(seed)
        prior = chain_prior()
        held, ranks, z, widths, errors = [], [], [], [], []
        for _ in range(patients):
            levels, truth = own_law(prior, rng) if law == "own" else other_law(rng)
            rows = observed(levels, rng)
            early = [row for row in rows if row.time_h < TIMES[-1]]
            last = next(r for r in rows if r.time_h == TIMES[-1] and r.region == "tumour")
            before = chain_posterior(early, prior, free=FIVE, method="laplace")
            z.append(update(before, last).z)
            band = predict(chain_posterior(rows, prior, free=FIVE, method="laplace"), DAY_14)
            held.append(band.low <= truth <= band.high)
            ranks.append((band.draws[:, 0] < truth).mean())
            widths.append(math.log(band.high / band.low))
            errors.append(math.log(band.median / truth))
        found |= {
            f"{law}_coverage": float(np.mean(held)),
            f"{law}_rank_gap": rank_gap(ranks),
            f"{law}_z_sd": float(np.std(z)),
            f"{law}_width_ln": float(np.median(widths)),
            f"{law}_bias_ln": float(np.mean(errors)),
        }
    return found


def rank_gap(ranks):
    """Largest distance of the distribution of ranks from the even one (Kolmogorov)."""
    ordered = np.sort(ranks)
    even = (np.arange(len(ordered)) + 0.5) / len(ordered)
    return float(np.abs(ordered - even).max())


def plain_sampler(rows, prior, steps=4):
    """Seconds of one step of emcee with every likelihood through solve_ivp."""
    chain = Chain(prior, TWO)
    sd = np.sqrt(np.diag(chain.covariance))
    times = np.array(sorted({row.time_h for row in rows}))

    def ln_density(point):
        transfer, slow = np.exp(point)
        fast, late = math.log(2) / 12, math.log(2) / slow

        def plasma(t):
            return 25 * (0.4 * np.exp(-fast * t) + 0.6 * np.exp(-late * t))

        def change(t, state):
            return [
                transfer * plasma(t) - 0.2 * state[0],
                0.2 * state[0] - 8.33e-4 * state[1],
            ]

        state = solve_ivp(change, (0, times[-1]), [0, 0], "LSODA", times, rtol=1e-8, atol=1e-9).y
        blood = 0.55 * plasma(times)
        levels = {"tumour": 0.95 * state.sum(axis=0) + 0.05 * blood, "blood": blood}
        total = -0.5 * float((((point - chain.mean) / sd) ** 2).sum())
        for row in rows:
            level = float(levels[row.region][np.searchsorted(times, row.time_h)])
            total -= 0.5 * ((math.log(row.mean) - math.log(level)) / row.ln_sd) ** 2
        return total

    sampler = emcee.EnsembleSampler(WALKERS, 2, ln_density)
    rng = np.random.default_rng(0)
    begin = chain.mean + 0.1 * sd * rng.standard_normal((WALKERS, 2))
    start = time.perf_counter()
    sampler.run_mcmc(begin, steps)
    return (time.perf_counter() - start) / steps


def seconds(work):
    """Best of three."""
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def speed_figures(seed):
    """Seconds of the posteriors of five observations, of a cohort, and of the plain sampler."""
    prior = chain_prior()
    rows = observed(own_law(prior, np.random.default_rng(seed))[0], np.random.default_rng(seed))[:5]
    ensemble = time.perf_counter()
    chain_posterior(rows, prior, free=FIVE, method="ensemble")
    ensemble = time.perf_counter() - ensemble
    figures = {
        "two_free_s": seconds(lambda: chain_posterior(rows, prior, free=TWO)),
        "two_rates_s": seconds(
            lambda: chain_posterior(rows, prior, free=("k03_per_h", "slow_half_life_h"))
        ),
        "five_free_s": seconds(lambda: chain_posterior(rows, prior, free=FIVE, method="laplace")),
        "five_free_ensemble_s": ensemble,
        "cohort_s": seconds(lambda: cohort(prior, seed)),
        "plain_sampler_s": plain_sampler(rows, prior) * STEPS,
    }
    figures["ratio_to_plain_sampler"] = figures["plain_sampler_s"] / figures["two_free_s"]
    return figures


def cohort(prior, seed):
    """400 patients in two arms: absorbed dose of two activities of Lu-177."""
    posterior = chain_posterior([], prior, free=FIVE, method="laplace")
    chain = Chain(prior, FIVE)
    lutetium = nuclide("Lu-177")

    def arm(mbq):
        per_mbq = dose_per_activity_gy(lutetium) / 1.05 / 75_000
        return lambda draws: mbq * per_mbq * np.exp(chain.ln_integral(draws, lutetium.half_life_h))

    return virtual_cohort(posterior, {"low": arm(4000), "high": arm(5000)}, 400, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=200, help="of each law of the chain")
    parser.add_argument("--lines", type=int, default=2000, help="patients of the log-linear model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    figures = speed_figures(options.seed)
    figures |= coverage_of_lines(options.lines, options.seed)
    figures |= coverage_of_chains(options.patients, options.seed)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        bar = f"  (bar {BARS[name]:g})" if name in BARS else ""
        print(f"{name:26} {value:.4g}{bar}")


if __name__ == "__main__":
    main()
