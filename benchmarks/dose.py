"""Dose what-if: response, protraction and spread of dose against what a reader would write.

python benchmarks/dose.py [--tiles 40000] [--draws 1000] [--seed 0] [--json]

Ratios come from one run, both ways in turns.  A loop is timed on a part of the tiles and scaled.
The peak of the memory is that of a process of its own, which streams all draws of all tiles.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np
from scipy.integrate import dblquad, quad
from scipy.signal import fftconvolve
from scipy.special import j0

from napari_mosaik.dosimetry import (
    DoseKernel,
    protraction,
    respond,
    spread_dose,
    summarise_draws,
)

REPAIR = ((0.6, math.log(2) / 0.5), (0.4, math.log(2) / 4))
BARS = {"response_s": 20.0, "spread_s": 2.0, "peak_gib": 1.0}
ACCURACY = 1e-3
"""Largest deviation from the Hankel integral at which the two convolutions are compared."""
BLOCK = 20
"""Draws of one block; all tiles of a block are held at once."""


def drawn(tiles, draws, seed):
    """Dose of each tile, and factors and radiobiology of each draw."""
    rng = np.random.default_rng(seed)
    return {
        "dose": rng.gamma(4, 10, tiles),
        "factor": rng.lognormal(0, 0.15, draws),
        "g": rng.uniform(0.005, 0.02, draws),
        "alpha": rng.lognormal(math.log(0.3), 0.2, draws),
        "beta": rng.lognormal(math.log(0.03), 0.2, draws),
        "oxygen": rng.uniform(0.7, 1, draws),
    }


def evaluated(case, draws, tiles):
    """Response (draws, tiles) of some draws and tiles."""
    dose = case["factor"][draws, None] * case["dose"][tiles]
    return respond(
        dose,
        case["g"][draws, None] * dose**2,
        alpha_per_gy=case["alpha"][draws, None],
        beta_per_gy2=case["beta"][draws, None],
        oxygen=case["oxygen"][draws, None],
        time_h=1000.0,
        doubling_time_h=2000.0,
    )


def blocks(case):
    """Response of a block of draws and all tiles, block by block."""
    for start in range(0, case["factor"].size, BLOCK):
        yield evaluated(case, slice(start, start + BLOCK), slice(None))


def streamed(case):
    """Quantiles of each tile, and indices of each draw; nothing of tiles x draws is kept."""
    return summarise_draws(
        partial(evaluated, case),
        case["factor"].size,
        np.ones(case["dose"].size),
        alpha_per_gy=case["alpha"],
        beta_per_gy2=case["beta"],
        clonogens=1e9,
        g=case["g"],
    )


def by_loop(case, tiles):
    """The response as a reader would write it: NumPy over the draws, a loop over the tiles."""
    out = []
    gamma = math.log(2) / 2000
    for dose in case["dose"][:tiles]:
        d = dose * case["factor"]
        effect = case["alpha"] * d * case["oxygen"]
        effect += case["beta"] * case["g"] * d**2 * case["oxygen"] ** 2
        ln_s = gamma * 1000 - effect
        bed = -ln_s / case["alpha"]
        eqd2 = bed / (1 + 2 / (case["alpha"] / case["beta"]))
        out.append((ln_s, bed, eqd2))
    return out


def response_figures(case):
    """Seconds of all tiles and draws, in blocks, and of the loop, scaled."""
    part = max(1, case["dose"].size // 10)
    begin = time.perf_counter()
    total = sum(float(response.ln_survival.sum()) for response in blocks(case))
    ours = time.perf_counter() - begin
    begin = time.perf_counter()
    loop = by_loop(case, part)
    theirs = (time.perf_counter() - begin) * case["dose"].size / part
    first = next(blocks(case)).ln_survival[:, :part]
    gap = np.abs(np.array([row[0][:BLOCK] for row in loop]).T - first).max()
    assert math.isfinite(total)
    draws = case["factor"].size
    return {
        "response_s": ours,
        "response_loop_s": theirs,
        "response_ratio": theirs / ours,
        "response_deviation": float(gap),
        "draws_per_s": draws / ours,
        "tile_draws_per_s": draws * case["dose"].size / ours,
    }


def protraction_figures(tiles, seed, few=3):
    """G of tiles with decay rates of their own against quad and dblquad on a few of them."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0.1, 1, (tiles, 2))
    rates = rng.uniform(0.005, 0.2, (tiles, 2))
    end = 100.0
    begin = time.perf_counter()
    g = protraction(levels, rates, REPAIR, end)
    ours = time.perf_counter() - begin
    errors = []
    begin = time.perf_counter()
    for a, r, found in zip(levels[:few], rates[:few], g, strict=False):

        def rate(t, a=a, r=r):
            return a[0] * math.exp(-r[0] * t) + a[1] * math.exp(-r[1] * t)

        def both(s, t, rate=rate):
            return rate(t) * rate(s) * sum(p * math.exp(-mu * (t - s)) for p, mu in REPAIR)

        dose = quad(rate, 0, end)[0]
        q = 2 * dblquad(both, 0, end, 0, lambda t: t, epsabs=0, epsrel=1e-8)[0]
        errors.append(abs(q / dose**2 / found - 1))
    theirs = (time.perf_counter() - begin) * tiles / few
    return {
        "protraction_s": ours,
        "dblquad_s": theirs,
        "protraction_ratio": theirs / ours,
        "protraction_deviation": max(errors),
    }


def sampled_taps(kernel, spacing, density, finer):
    """The kernel in the plane, integrated along z, by mean over finer points of each pixel."""
    reach = kernel.reach_um / density
    edges = np.concatenate([[0.0], np.geomspace(1e-2, reach, 4000)])
    middle = (edges[1:] + edges[:-1]) / 2
    per_um = np.diff(kernel.fraction_within(edges * density)) / np.diff(edges)
    half = math.ceil(reach / spacing)
    # an even number of points: none lies at r = 0, where the kernel has no value
    fine = (np.arange((2 * half + 1) * finer) + 0.5) * spacing / finer - (half + 0.5) * spacing
    # along z at a distance: int f(r) / (4 pi r^2) dz with r^2 = distance^2 + z^2
    distance = np.geomspace(spacing / finer / 10, 1.5 * reach, 500)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    line = []
    for away in distance:
        top = math.asinh(math.sqrt(max(reach**2 - away**2, 0.0)) / away)
        u = (nodes + 1) / 2 * top
        r = away * np.cosh(u)
        line.append((weights / 2 * top * np.interp(r, middle, per_um) / r).sum() / (2 * np.pi))
    radius = np.hypot(fine[:, None], fine)
    plane = np.interp(radius, distance, line)
    size = 2 * half + 1
    taps = plane.reshape(size, finer, size, finer).mean(axis=(1, 3))
    taps *= (1 - kernel.within[0]) / taps.sum()
    taps[half, half] += kernel.within[0]  # what is absorbed at the decay itself
    return taps


def spread_figures(size, spacing=20.0, density=1.05):
    """Spread of a smooth map by the built-in kernel against fftconvolve with sampled taps."""
    kernel = DoseKernel.built_in("Lu-177")
    sd = 150.0
    y, x = (np.mgrid[:size, :size] - size // 2) * spacing
    source = np.exp(-(x**2 + y**2) / (2 * sd**2))
    spread_dose(source[:50, :50], spacing, kernel)  # libraries loaded before the clock starts
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        ours = spread_dose(source, spacing, kernel, density_g_ml=density)
        seconds.append(time.perf_counter() - begin)
    k = np.linspace(0, 8 / sd, 2001)
    spectrum = sd**2 * np.exp(-((sd * k) ** 2) / 2) * kernel.transfer(k / density) * k
    places = np.array([0, 5, 10, 20])
    exact = np.array([np.trapezoid(spectrum * j0(k * p * spacing), k) for p in places])
    middle = size // 2
    at = (middle, middle + places)
    for finer in (2, 4, 8, 16, 32):
        begin = time.perf_counter()
        taps = sampled_taps(kernel, spacing, density, finer)
        made = time.perf_counter() - begin
        begin = time.perf_counter()
        theirs = fftconvolve(source, taps, mode="same")
        convolved = time.perf_counter() - begin
        error = float(np.abs(theirs[at] - exact).max())
        if error <= ACCURACY:
            break
    return {
        "spread_s": min(seconds),
        "spread_worst_s": max(seconds),
        "spread_deviation": float(np.abs(ours[at] - exact).max()),
        "spread_energy": float(abs(ours.sum() / source.sum() - 1)),
        "fftconvolve_s": convolved,
        "fftconvolve_taps_s": made,
        "fftconvolve_points": finer,
        "fftconvolve_deviation": error,
        "spread_ratio": (convolved + made) / min(seconds),
    }


def peak_gib(tiles, draws, seed):
    """Peak of the memory, GiB, and seconds of a process that streams all draws of all tiles."""
    command = [sys.executable, __file__, "--tiles", str(tiles), "--draws", str(draws)]
    command += ["--seed", str(seed), "--stream"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return json.loads(ended.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiles", type=int, default=40_000)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=2_000, help="pixels along the spread map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream", action="store_true", help="stream once and print the peak")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    case = drawn(given.tiles, given.draws, given.seed)
    if given.stream:
        begin = time.perf_counter()
        streamed(case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds = {"stream_s": time.perf_counter() - begin, "stream_cpu_s": time.process_time()}
        print(json.dumps({"peak_gib": peak, **seconds}))
        return
    found = {
        "tiles": given.tiles,
        "draws": given.draws,
        **response_figures(case),
        **protraction_figures(given.tiles, given.seed),
        **spread_figures(given.size),
        **peak_gib(given.tiles, given.draws, given.seed),
        "bars": BARS,
    }
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name != "bars":
            bar = f"  (bar {BARS[name]:g})" if name in BARS else ""
            print(f"{name:24} {value:.4g}{bar}")


if __name__ == "__main__":
    main()
