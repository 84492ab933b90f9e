"""Local Moran against esda, its memory, and how often the tests reject when nothing is there.

python benchmarks/spatial.py [--permutations 999] [--sizes 4000 40000 400000] [--pairs 1000]
                             [--skip esda memory null correlation] [--json]

``moran_ratio`` is esda's time over ours at equal permutations, one core each.  The memory is the
peak of a process of its own that labels 400,000 tiles with 9,999 permutations.  The null study
draws independent fields, white or smooth, and counts p-values at most 5 % and 0.5 %, with 95 %
confidence intervals: of `associate` (one pair of fields each), and of `local_moran` (all tiles
of a field; the interval is over fields).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import beta

from napari_mosaik.core import Lattice, TileGrid
from napari_mosaik.spatial import (
    AssociationParams,
    MoranParams,
    TileGraph,
    associate,
    local_moran,
)

STRIDE_UM = 300.0
SIZES = {4_000: (63, 64), 40_000: (200, 200), 400_000: (632, 633)}
LEVELS = (0.05, 0.005)
SMOOTHNESS = (0.0, 1.0, 2.0, 4.0)
SKIPS = ("esda", "memory", "null", "correlation")


def section(rows, columns, rounded=False):
    """Tile grid of a section; a disk where *rounded*."""
    inside = np.ones((rows, columns), bool)
    if rounded:
        r, c = np.ogrid[:rows, :columns]
        inside = ((2 * r - rows + 1) / rows) ** 2 + ((2 * c - columns + 1) / columns) ** 2 <= 1
    kept = np.flatnonzero(inside)
    lattice = Lattice("cd34", (rows, columns), (STRIDE_UM, STRIDE_UM))
    return TileGrid(lattice, 400.0, kept, np.ones(kept.size), np.ones(kept.size, bool))


def field(rng, grid, sigma):
    """A stationary field on the tiles: white noise, smoothed over *sigma* tiles."""
    rows, columns = grid.lattice.shape
    margin = int(4 * sigma) + 1
    noise = rng.normal(size=(rows + 2 * margin, columns + 2 * margin))
    smooth = gaussian_filter(noise, sigma) if sigma else noise
    return smooth[margin:-margin, margin:-margin].ravel()[grid.kept]


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def moran_times(permutations, sizes):
    """Seconds of esda and of ours on each size, one core each, compiled beforehand."""
    import esda

    params = MoranParams(permutations=permutations)
    out = {}
    for n, (rows, columns) in {64: (8, 8), **{n: SIZES[n] for n in sizes}}.items():
        grid = section(rows, columns)
        values = field(np.random.default_rng(n), grid, 1.0)
        graph = TileGraph.moore(grid)
        theirs = graph.graph
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            esda_s = timed(
                lambda values=values, theirs=theirs: esda.Moran_Local(
                    values, theirs, permutations=permutations, n_jobs=1, seed=0
                )
            )
        ours_s = timed(lambda values=values, graph=graph: local_moran(values, graph, params))
        if n > 64:
            out[str(len(grid))] = {"esda_s": esda_s, "ours_s": ours_s, "ratio": esda_s / ours_s}
    return {
        "permutations": permutations,
        "sizes": out,
        "moran_ratio": min(size["ratio"] for size in out.values()),
    }


def label_many():
    """What the measured process does: the largest map at the default number of permutations."""
    grid = section(*SIZES[400_000])
    values = field(np.random.default_rng(0), grid, 1.0)
    graph = TileGraph.moore(grid)
    seconds = timed(lambda: local_moran(values, graph, MoranParams()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"tiles": len(grid), "permutations": 9999, "seconds": seconds, "kib": peak}))


def memory():
    """Peak memory and seconds of the largest map, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, __file__, "--label-many"], check=True, capture_output=True, text=True
    )
    found = json.loads(answer.stdout)
    return {**found, "peak_gib": found.pop("kib") / 2**20}


def rate(rejected, n):
    """Share with its exact 95 % interval (Clopper and Pearson)."""
    low = beta.ppf(0.025, rejected, n - rejected + 1) if rejected else 0.0
    high = beta.ppf(0.975, rejected + 1, n - rejected) if rejected < n else 1.0
    return {"rate": rejected / n, "low": float(low), "high": float(high)}


def null_of_associate(grid, sigma, pairs, rng):
    """Rejection rates of the p-values of one correlation, over independent pairs of fields."""
    kinds = ("naive", "dutilleul", "msr")
    p = {kind: np.full(pairs, np.nan) for kind in kinds}
    sizes = np.full(pairs, np.nan)
    params = AssociationParams()
    for i in range(pairs):
        x, y = field(rng, grid, sigma), field(rng, grid, sigma)
        found = associate(x, y, grid.centres_um, params)
        sizes[i] = found.ess_pearson
        for kind in kinds:
            p[kind][i] = getattr(found, f"p_{kind}_pearson")
    return {
        "tiles": len(grid),
        "smoothed_over_tiles": sigma,
        "pairs": pairs,
        "median_effective_size": float(np.nanmedian(sizes)),
        "undefined": {kind: int(np.isnan(p[kind]).sum()) for kind in kinds},
        "rates": {
            kind: {str(a): rate(int((p[kind] <= a).sum()), pairs) for a in LEVELS} for kind in kinds
        },
    }


def null_of_borders(grid, sigma, pairs, rng, surrogates=399):
    """Rejection rates of random signs with the border's rows closed, and as they are."""
    n = len(grid)
    apart = np.linalg.norm(grid.centres_um[:, None] - grid.centres_um[None], axis=-1)
    near = ((apart > 0) & (apart < 1.5 * STRIDE_UM)).astype(float)
    middle = np.eye(n) - 1 / n
    bases = {"closed": np.diag(near.sum(axis=1).max() - near.sum(axis=1)) + near, "open": near}
    for kind, weights in bases.items():
        bases[kind] = np.linalg.eigh(middle @ weights @ middle + 100 / n)[1][:, :-1]
    p = {kind: [] for kind in bases}
    for _ in range(pairs // 20):
        x, y = (np.stack([field(rng, grid, sigma) for _ in range(20)], axis=1) for _ in range(2))
        x, y = ((v - v.mean(axis=0)) / (v.std(axis=0) * np.sqrt(n)) for v in (x, y))
        r = np.abs((x * y).sum(axis=0))
        signs = rng.integers(0, 2, (surrogates, n - 1)) * 2.0 - 1
        for kind, vectors in bases.items():
            drawn = np.abs(signs @ ((vectors.T @ x) * (vectors.T @ y)))
            p[kind].append((1 + (drawn >= r - 1e-12).sum(axis=0)) / (surrogates + 1))
    found = {kind: np.concatenate(values) for kind, values in p.items()}
    return {
        "tiles": n,
        "smoothed_over_tiles": sigma,
        "rates": {
            kind: {str(a): rate(int((values <= a).sum()), values.size) for a in LEVELS}
            for kind, values in found.items()
        },
    }


def null_of_moran(grid, sigma, fields, rng):
    """Share of tiles labelled at each level; the interval is over fields."""
    graph, params = TileGraph.moore(grid), MoranParams(permutations=1999, fdr=True)
    found = [local_moran(field(rng, grid, sigma), graph, params, rng) for _ in range(fields)]
    p = np.stack([one.p_value for one in found])  # each with its own draws
    out = {}
    for level in LEVELS:
        each = (p <= level).mean(axis=1)
        half = 1.96 * each.std(ddof=1) / np.sqrt(fields)
        mean = float(each.mean())
        out[str(level)] = {"rate": mean, "low": max(0.0, mean - half), "high": mean + half}
    any_fdr = [(np.isin(one.label, (1, 2, 3, 4))).any() for one in found]
    return {
        "tiles": len(grid),
        "smoothed_over_tiles": sigma,
        "fields": fields,
        "permutations": found[0].permutations,
        "rates": out,
        "maps_with_a_label_at_fdr_0.05": rate(int(np.sum(any_fdr)), fields),
    }


def null_study(pairs, correlation=True):
    """The null study, each part with draws of its own; local Moran alone without *correlation*."""
    grids = section(14, 15), section(20, 20, rounded=True)
    begin = time.perf_counter()
    draws = [np.random.default_rng([0, part]) for part in range(3)]
    found = {"associate": [], "borders": []}
    found["local_moran"] = [
        null_of_moran(grids[1], sigma, max(20, pairs // 5), draws[0]) for sigma in SMOOTHNESS[:3]
    ]
    if correlation:
        found["associate"] = [
            null_of_associate(grid, sigma, pairs, draws[1])
            for grid in grids
            for sigma in SMOOTHNESS
        ]
        found["borders"] = [
            null_of_borders(grids[0], sigma, pairs, draws[2]) for sigma in SMOOTHNESS[1:]
        ]
    return {**found, "seconds": time.perf_counter() - begin}


def spelled(one):
    return f"{100 * one['rate']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


def show(found):
    """The tables as they stand in docs/spatial.md."""
    if "moran" in found:
        print(f"\n| tiles | esda, s | ours, s | ratio |  ({found['moran']['permutations']} draws)")
        for n, size in found["moran"]["sizes"].items():
            print(f"| {n} | {size['esda_s']:.2f} | {size['ours_s']:.2f} | {size['ratio']:.1f} |")
        print(f"moran_ratio {found['moran']['moran_ratio']:.1f} (bar 3)")
    if "memory" in found:
        m = found["memory"]
        print(
            f"\n{m['tiles']} tiles x {m['permutations']} permutations: {m['peak_gib']:.2f} GiB "
            f"(bar 2), {m['seconds']:.1f} s"
        )
    if "null" in found:
        show_null(found["null"])


def show_null(found):
    """The tables of the null study."""
    print("\n| tiles | smoothed over | ESS | test | <= 5 %, % | <= 0.5 %, % |")
    for row in found["associate"]:
        size = f"{row['median_effective_size']:.0f}"
        for kind, rates in row["rates"].items():
            print(line(row, size, kind, *(spelled(rates[str(level)]) for level in LEVELS)))
    print("\n| tiles | smoothed over | border | <= 5 %, % | <= 0.5 %, % |")
    for row in found["borders"]:
        for kind, rates in row["rates"].items():
            print(line(row, kind, *(spelled(rates[str(level)]) for level in LEVELS)))
    print("\n| tiles | smoothed over | tiles <= 5 %, % | tiles <= 0.5 %, % | maps, FDR 5 %, % |")
    for row in found["local_moran"]:
        cells = [spelled(row["rates"][str(level)]) for level in LEVELS]
        print(line(row, *cells, spelled(row["maps_with_a_label_at_fdr_0.05"])))


def line(row, *cells):
    return f"| {row['tiles']} | {row['smoothed_over_tiles']:g} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--permutations", type=int, default=999, help="for the ratio to esda")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of fields a row")
    parser.add_argument("--skip", nargs="*", default=[], choices=SKIPS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--label-many", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.label_many:
        label_many()
        return
    found = {}
    if "esda" not in given.skip:
        found["moran"] = moran_times(given.permutations, given.sizes)
    if "memory" not in given.skip:
        found["memory"] = memory()
    if "null" not in given.skip:
        found["null"] = null_study(given.pairs, "correlation" not in given.skip)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
