"""Dose what-if: response, protraction and spread of dose against what a reader would write.

python benchmarks/dose.py [--tiles 40000] [--draws 1000] [--seed 0] [--json]
python benchmarks/dose.py --phantom demo/cohort/B11 [--figure FILE.png] [--json]

The second form says what the PET hides: dose from the planted uptake of a sample case, before the
scanner's blur, against dose from its measured and predicted tiles, by the code of the step.

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
from dataclasses import replace
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
PLAN_FIGURES = {"local": "plan", "built-in": "plan_kernel", "oxygen": "plan_oxygen"}
BARS = {
    "response_s": 20.0,
    "spread_s": 2.0,
    "peak_gib": 1.0,
    "plan_s": 20.0,
    "plan_peak_gib": 1.0,
    "plan_kernel_peak_gib": 1.0,
    "plan_oxygen_peak_gib": 1.0,
}
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
    found = {}
    for more in ([], *(["--whole-plan", words] for words in PLAN_FIGURES)):
        ended = subprocess.run(
            [*command, *more], check=True, capture_output=True, text=True, env=os.environ
        )
        found |= json.loads(ended.stdout)
    return found


def whole_plan(tiles, draws, seed, words):
    """Seconds of a plan of two courses and five fractions as the step computes it.

    Error fields of the prediction are drawn, and spread by the kernel if it is not local; with
    oxygen survival is the mean over the distances to the vessels;
    quantiles, indices, histogram and shares computed.
    """
    from napari_mosaik.core.frame import Lattice
    from napari_mosaik.core.progress import run_to_end
    from napari_mosaik.core.tiles import TileGrid
    from napari_mosaik.predictor import draw_errors
    from napari_mosaik.workflow.plan_dose import iter_plan_dose
    from napari_mosaik.workflow.plan_record import parse_plan

    side = round(math.sqrt(tiles))
    count = side * side
    lattice = Lattice("cd34", (side, side), (300.0, 300.0))
    inside = np.ones(count)
    grid = TileGrid(lattice, 300.0, np.arange(count), inside, inside > 0)
    oxygen = words == "oxygen"
    kernel = "local" if oxygen else words
    begin = time.perf_counter()
    errors = np.empty((draws, count), np.float32)
    fields = {"sd": 0.08, "case_sd": 0.04, "length_um": 1100.0}
    for start in range(0, draws, 125):
        size = min(125, draws - start)
        errors[start : start + size] = draw_errors(
            fields, grid.cells, lattice.spacing_um, size, start
        )
    suv = np.random.default_rng(seed).gamma(4, 0.3, count)
    uptake = replace(uptake_record(suv, inside, grid, 2e4, 0.9), errors=errors)
    plan = parse_plan(
        {
            "name": "A",
            "courses": [{"activity": 7400, "day": day} for day in (0, 84)],
            "fractions": [{"number": 5, "dose_gy": 2, "day": 72}],
            "draws": draws,
            "clonogens": CELLS,
            "kernel": kernel,
            "oxygen": oxygen,
        }
    )
    run_to_end(iter_plan_dose(plan, uptake))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    word = PLAN_FIGURES[words]
    return {f"{word}_s": time.perf_counter() - begin, f"{word}_peak_gib": peak}


# --- what the PET hides ---------------------------------------------------------------------------
NUCLIDE, REFERENCE_MBQ, CELLS = "Lu-177", 7400.0, 1e9
UNSEEN = np.linspace(0.0, 0.5, 26)
CHAIN = ("tiles of the truth", "measured tiles", "predicted tiles")


def uptakes_of(folder):
    """The same specimen as `TileUptake`: pixels and tiles of the truth, and tiles of the chain."""
    from pathlib import Path

    from napari_mosaik.core.catalogue import PARAMETERS, PREDICTION, TILES, UPTAKE
    from napari_mosaik.core.frame import Lattice
    from napari_mosaik.core.tiles import TileGrid
    from napari_mosaik.io import Case
    from napari_mosaik.uptake import du_bois_bsa_m2

    case = Case(Path(folder))
    fields, masks = (np.load(case.root / "truth" / f"{n}.npz") for n in ("fields", "masks"))
    truth = fields["uptake_g_ml"].astype(float)
    step = float(fields["uptake_spacing_um"][0])
    parts = round(step / float(masks["spacing_um"][0]))
    inside = (masks["classes"] == 2).astype(float)  # neoplastic
    rows, columns = (n // parts for n in inside.shape)
    shares = inside[: rows * parts, : columns * parts]
    shares = shares.reshape(rows, parts, columns, parts).mean(axis=(1, 3))
    truth = truth[:rows, :columns]
    scale = json.loads((case.root / "truth" / "truth.json").read_text())["transforms"]["pet"]
    person = case.file.injection
    surface = du_bois_bsa_m2(person.weight_kg, person.height_cm)
    per_weight = 1e3 * person.weight_kg / (1e4 * surface)  # from SUV by surface to SUV by weight

    def tiles(suv, weight, grid):
        return uptake_record(suv, weight, grid, 1e3 * person.weight_kg, scale["scale"])

    lattice = Lattice("cd34", truth.shape, (step, step))
    kept = np.flatnonzero(truth.ravel() > 0)
    pixels = TileGrid(lattice, step, kept, np.ones(kept.size), np.ones(kept.size, bool))
    found = {"truth": tiles(truth.ravel()[kept], shares.ravel()[kept], pixels)}
    grid = case.store.read(TILES)
    weight = np.asarray(case.store.read(PARAMETERS)["neoplastic_fraction"]) * grid.coverage
    means = tile_means(truth, step, grid)
    measured = np.asarray(case.store.read(UPTAKE)["suv"], float) * per_weight
    rows = [means, measured]
    if case.store.origin(PREDICTION) is not None:
        rows.append(np.asarray(case.store.read(PREDICTION)["suv"], float) * per_weight)
    for name, suv in zip(CHAIN, rows, strict=False):
        found[name] = tiles(suv, np.nan_to_num(weight), grid)
    return found


def tile_means(truth, step, grid):
    """Mean of the truth over the tissue of each tile."""
    means = np.full(len(grid), np.nan)
    for tile, (top, left) in enumerate(grid.corners_um):
        ends = [
            round((edge + offset) / step) for edge in (top, left) for offset in (0, grid.size_um)
        ]
        top, bottom, left, right = (max(end, 0) for end in ends)
        box = truth[top:bottom, left:right]
        if (box > 0).any():
            means[tile] = box[box > 0].mean()
    return means


def uptake_record(suv, weight, grid, measure, scale):
    """Uptake with one time course, no errors, and tissue in every class of vessel distance."""
    from napari_mosaik.workflow.plan_dose import TileUptake, distance_edges_um

    n = len(grid)
    time_h, shape = np.array([72.0]), np.ones((1, 1))
    suv = np.asarray(suv, float)
    far = np.full((n, distance_edges_um().size - 1), 1 / (distance_edges_um().size - 1))
    return TileUptake(suv, None, measure, None, weight, far, time_h, shape, grid, scale)


def median_response(uptake, mbq, kernel="local", cv=0.0):
    """EUD, tumour control, doses and weights at the median of all assumptions."""
    from napari_mosaik.dosimetry import equivalent_uniform_dose, tumour_control
    from napari_mosaik.workflow.plan_dose import SOURCE_TITLES, PlanModel
    from napari_mosaik.workflow.plan_record import parse_plan

    course = {"nuclide": NUCLIDE, "activity": mbq}
    plan = parse_plan({"name": "A", "courses": [course], "kernel": kernel, "within_cv": cv})
    model = PlanModel(plan, uptake)
    own = model.factors(dict.fromkeys(SOURCE_TITLES, np.zeros(1)))
    found = model.response({k: v[:, None] for k, v in own.items()}, None, slice(None))
    weight = np.where(np.isfinite(uptake.suv), uptake.weight, 0.0)
    control = tumour_control(found.ln_survival[0], weight, clonogens=CELLS)
    g = float(model.protraction(np.ones(1))[0])
    eud = equivalent_uniform_dose(
        found.ln_survival[0], weight, alpha_per_gy=plan.alpha, beta_per_gy2=plan.beta, g=g
    )
    mean = float(np.nansum(found.dose_gy[0] * weight) / weight.sum())
    return {
        "mean_gy": mean,
        "eud_gy": float(eud),
        "tcp": float(control.probability),
        "ln_survivors": float(control.ln_survivors),
        "dose_gy": found.dose_gy[0],
        "weight": weight,
    }


def activity_for(uptake, wanted, kernel="local"):
    """Activity, MBq, with which tumour control has the wanted probability."""
    low, high = 1e2, 1e7
    for _ in range(50):
        middle = math.sqrt(low * high)
        reached = median_response(uptake, middle, kernel)["tcp"] >= wanted
        low, high = (low, middle) if reached else (middle, high)
    return high


def hidden_figures(folder, figure=None):
    """What a dose map from PET hides: bias of mean, EUD and tumour control."""
    uptakes = uptakes_of(folder)
    truth = median_response(uptakes["truth"], REFERENCE_MBQ, "built-in")
    local = median_response(uptakes["truth"], REFERENCE_MBQ)
    cure = activity_for(uptakes["truth"], 0.5, "built-in")
    cured = median_response(uptakes["truth"], cure, "built-in")
    rows = {
        "truth, 40 µm, kernel": (truth, cured),
        "truth, 40 µm, local": (local, median_response(uptakes["truth"], cure)),
    }
    for name in CHAIN:
        if name in uptakes:
            one = uptakes[name]
            rows[name] = (median_response(one, REFERENCE_MBQ), median_response(one, cure))
    found = {
        "activity_mbq": REFERENCE_MBQ,
        "cure_mbq": cure,
        "clonogens": CELLS,
        "rows": {
            name: {
                "mean_gy": at["mean_gy"],
                "eud_gy": at["eud_gy"],
                "eud_bias": at["eud_gy"] / truth["eud_gy"] - 1,
                "eud_at_cure_gy": late["eud_gy"],
                "eud_bias_at_cure": late["eud_gy"] / cured["eud_gy"] - 1,
                "tcp_at_cure": late["tcp"],
            }
            for name, (at, late) in rows.items()
        },
    }
    measured = uptakes["measured tiles"]
    euds = [median_response(measured, cure, cv=cv)["eud_gy"] for cv in UNSEEN]
    found["within_cv_that_mends_it"] = (
        float(np.interp(-cured["eud_gy"], -np.array(euds), UNSEEN))
        if min(euds) <= cured["eud_gy"] <= max(euds)
        else None
    )
    if figure:
        draw_hidden(uptakes, found, figure)
    return found


def draw_hidden(uptakes, found, path):
    """Histogram at the activity that controls half, and tumour control against activity."""
    from matplotlib.figure import Figure

    from napari_mosaik.dosimetry import dose_volume

    figure = Figure((10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    cure = found["cure_mbq"]
    for name, uptake in uptakes.items():
        kernel = "built-in" if name == "truth" else "local"
        words = "truth before the blur (40 µm)" if name == "truth" else name
        one = median_response(uptake, cure, kernel)
        histogram = dose_volume(one["dose_gy"], one["weight"])
        (line,) = left.plot(histogram.sorted_gy, histogram.percent, label=words)
        activities = cure * np.geomspace(0.6, 1.7, 60)
        tcp = [median_response(uptake, mbq, kernel)["tcp"] for mbq in activities]
        right.plot(activities / 1e3, tcp, label=words, color=line.get_color())
    left.set(xlabel="absorbed dose, Gy", ylabel="neoplastic tissue with at least it, %")
    right.set(xlabel=f"activity of {NUCLIDE}, GBq", ylabel="tumour control probability")
    left.set_title(f"{cure / 1e3:.3g} GBq")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)


def print_hidden(found):
    cure = found["cure_mbq"] / 1e3
    print(f"half of the tumours controlled at {cure:.3g} GBq ({found['clonogens']:g} cells)")
    for name, row in found["rows"].items():
        print(
            f"{name:22} mean {row['mean_gy']:6.2f} Gy  EUD {row['eud_gy']:6.2f} Gy "
            f"({row['eud_bias']:+.1%})  at that activity EUD {row['eud_at_cure_gy']:6.1f} Gy "
            f"({row['eud_bias_at_cure']:+.1%})  TCP {row['tcp_at_cure']:.3f}"
        )
    print(f"within-tile CV that mends the measured EUD: {found['within_cv_that_mends_it']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiles", type=int, default=40_000)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=2_000, help="pixels along the spread map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream", action="store_true", help="stream once and print the peak")
    parser.add_argument("--whole-plan", choices=PLAN_FIGURES, help="one plan, so")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--phantom", metavar="CASE", help="a sample case with its truth")
    parser.add_argument("--figure", help="picture of what the PET hides")
    given = parser.parse_args()
    if given.phantom:
        hidden = hidden_figures(given.phantom, given.figure)
        print(json.dumps(hidden, indent=2)) if given.json else print_hidden(hidden)
        return
    case = drawn(given.tiles, given.draws, given.seed)
    if given.whole_plan:
        print(json.dumps(whole_plan(given.tiles, given.draws, given.seed, given.whole_plan)))
        return
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
