"""Does the review queue find the tiles whose correction is worth most?  A study on the phantom.

python benchmarks/correction.py [--seeds 1,2,...] [--corrections 200] [--jobs N] [--folder DIR]
                                [--json]

For each seed one case of the phantom is drawn ("quick", A2) with its H&E slide (2 µm pixels).  The
fast tissue classifier starts from what the simulated reader has drawn in two neighbouring tiles,
the same for all orders.  Then the reader corrects tiles, ten at a time (twenty after the first
hundred); each time the classifier is trained again on all that was drawn, and the order of the
remaining tiles follows from its new prediction:

    queue     the review queue of the program (default ranking, with its control tiles)
    entropy   highest mean entropy of the class probabilities
    random    a random permutation

Nothing of the phantom's truth enters an order.  The reader sees the truth of one tile, and draws it
with errors: outlines are displaced by a smooth random field (SD 12 µm), regions below 1500 µm² are
overlooked, and one tile in twenty-five has two classes mistaken for each other.

After each training: Dice of the predicted class map against the truth over the whole tissue (mean
of neoplastic and non-neoplastic, one sample per 16 µm), and the mean absolute error of the uptake
that a fixed model predicts from the class map (ridge regression on the area fractions around each
tile and the vessels; trained on the true map of another case, A3 of seed 100), against the PET
(SUV, g/mL).
The registration is the true one.  Intervals are 95 % bootstrap intervals of the mean over seeds.

Bar: the queue first reaches the Dice that random order has after 200 corrections with at most 100,
in the median over seeds.  Exit code 1 when it is missed.  Where the curves are flat the first time
says little: the curves are the result.

The signals of the queue were chosen on the seeds 101 and 102, the turns of the kinds of tiles on 11
to 14.  The curve of an order that is done is kept in *--folder* and not computed again, as long as
this file and the code that it measures are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import pickle
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

BATCH, LATER_BATCH, EARLY = 10, 20, 100
ORDERS = ("queue", "random", "entropy")
OUTLINE_SD_UM, OUTLINE_SMOOTH_UM = 12.0, 40.0
OVERLOOKED_UM2 = 1500.0
MISTAKEN = 0.04
SPACING_UM, COARSE = 8.0, 2
TILE_UM, STRIDE_UM = 400.0, 300.0
READ_UM = 2.0
POINTS = 12
CASE, OTHER, OTHER_SEED, SIZE = "A2", "A3", 100, "quick"
CLASSES = ("background", "neoplastic", "non-neoplastic")
N_TREES = 20


# --- the phantom ----------------------------------------------------------------------------------
def measured_tiles(specimen, classes):
    """Centres (n, 2), µm, vessel perimeter per area (n,), 1/µm, and measured SUV (n,), g/mL."""
    from napari_mosaik.phantom.physics import ScannerLaw, patient_activity, pet_pose, simulate_scan
    from napari_mosaik.phantom.truth import tile_table

    plan, scanner = specimen.plan, ScannerLaw()
    lattice, to_cd34 = pet_pose(plan, specimen.anatomy, scanner)
    pet, _ = simulate_scan(specimen.uptake, lattice, to_cd34, plan, specimen.seed, scanner)
    table = tile_table(
        specimen.anatomy, specimen.vessels, specimen.nuclei("caix"), classes, specimen.uptake, pet,
        to_cd34,
    )  # fmt: skip
    centres = np.stack([table["row_um"], table["col_um"]], axis=1)
    supply = table["vessel_perimeter_um"] / (table["coverage"] * TILE_UM**2)
    return centres, supply, table["pet_bq_ml"] / patient_activity(plan)


def drawn_case(seed):
    """Features, truth and tiles of one case on the 8 µm lattice of the specimen."""
    from scipy import ndimage

    from napari_mosaik.core import Raster
    from napari_mosaik.phantom.cohort import draw_specimen
    from napari_mosaik.phantom.presets import random_generator
    from napari_mosaik.phantom.render import render
    from napari_mosaik.phantom.section import mount_section
    from napari_mosaik.phantom.truth import class_map, vessel_map
    from napari_mosaik.segment.tissue_classifier import TissueClassParams, block_features

    specimen = draw_specimen(CASE, SIZE, seed)
    truth = class_map(specimen.anatomy, vessel_map(specimen.anatomy, specimen.vessels))
    centres, supply, measured = measured_tiles(specimen, truth)
    extent = specimen.size.extent_um
    to_cd34 = specimen.plan.transform("he", extent)
    section = mount_section(
        specimen.anatomy, specimen.vessels, specimen.nuclei("he"), to_cd34,
        random_generator(seed, CASE, 4, 0),
    )  # fmt: skip
    shape = tuple(round(e / READ_UM) for e in extent)
    rgb = np.empty((*shape, 3), np.uint8)
    for row in range(0, shape[0], 500):
        for col in range(0, shape[1], 500):
            size = (min(500, shape[0] - row), min(500, shape[1] - col))
            rgb[row : row + size[0], col : col + size[1]] = render(
                section, (row, col), size, READ_UM
            )
    features = block_features(rgb, READ_UM, TissueClassParams(n_trees=N_TREES))
    own = Raster(features, specimen.anatomy.lattice(SPACING_UM))  # of the slide, in its own µm
    points = to_cd34.inverse().apply(truth.lattice.centres_um().reshape(-1, 2))
    features = own.at(points, outside=0.0).astype(np.float32).reshape(*truth.values.shape, -1)
    tissue = ndimage.binary_fill_holes(truth.values > 1)
    return {
        "features": features, "truth": truth.values, "tissue": tissue, "centres": centres,
        "supply": supply, "measured": measured,
        "slices": tile_slices(centres), "windows": neighbour_windows(centres),
    }  # fmt: skip


def start_tiles(case, reading, seed):
    """Two neighbouring tiles, at a random place, in which the reader sees both tissue classes."""
    order = np.random.default_rng([seed, 77]).permutation(len(case["centres"]))
    both = [tile for tile in order if {2, 3} <= set(np.unique(reading[tile]).tolist())]
    distance = np.hypot(*(case["centres"] - case["centres"][both[0]]).T)
    return np.argsort(distance, kind="stable")[:2].tolist()


# --- the uptake model -----------------------------------------------------------------------------
def tile_slices(centres):
    """Rows and columns of each tile on the 8 µm lattice."""
    low = np.rint((centres - TILE_UM / 2) / SPACING_UM).astype(int)
    size = round(TILE_UM / SPACING_UM)
    return [(slice(r, r + size), slice(c, c + size)) for r, c in low]


def uptake_features(codes, centres, supply):
    """Area fractions in the tile and around it, and vessels: (n, f)."""
    from scipy import ndimage

    columns, spacing = [supply], SPACING_UM * COARSE
    index = np.clip(np.rint(centres / spacing - 0.5).astype(int), 0, np.asarray(codes.shape) - 1)
    for code in (2, 3):
        part = (codes == code).astype(np.float32)
        for width_um in (TILE_UM, 3 * TILE_UM, 5 * TILE_UM):
            mean = ndimage.uniform_filter(part, round(width_um / spacing), mode="constant")
            columns.append(mean[index[:, 0], index[:, 1]])
    columns += [supply * columns[1], supply * columns[2]]
    return np.stack(columns, axis=1)


def fitted_uptake():
    """A ridge regression of the measured uptake on the true map of another case."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from napari_mosaik.phantom.cohort import draw_specimen
    from napari_mosaik.phantom.truth import class_map, vessel_map

    other = draw_specimen(OTHER, SIZE, OTHER_SEED)
    truth = class_map(other.anatomy, vessel_map(other.anatomy, other.vessels))
    centres, supply, measured = measured_tiles(other, truth)
    model = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(-2, 5)))
    return model.fit(uptake_features(truth.values[::COARSE, ::COARSE], centres, supply), measured)


# --- the reader -----------------------------------------------------------------------------------
def drawn_tile(truth, where, rng):
    """What the reader draws in a tile: its true classes, with errors; sees nothing beyond it."""
    from scipy import ndimage

    seen = truth[where]
    smooth = OUTLINE_SMOOTH_UM / SPACING_UM
    shift = [ndimage.gaussian_filter(rng.standard_normal(seen.shape), smooth) for _ in range(2)]
    shift = [one / max(one.std(), 1e-9) * OUTLINE_SD_UM / SPACING_UM for one in shift]
    index = [
        np.clip(np.rint(place + by), 0, length - 1).astype(int)
        for place, by, length in zip(np.indices(seen.shape), shift, seen.shape, strict=True)
    ]
    drawn = seen[index[0], index[1]]
    least = OVERLOOKED_UM2 / SPACING_UM**2
    for code in np.unique(drawn):
        regions, n = ndimage.label(drawn == code)
        area = np.bincount(regions.ravel(), minlength=n + 1)
        small = (area < least)[regions] & (regions > 0)
        if small.any() and not small.all():
            nearest = ndimage.distance_transform_edt(small, return_distances=False,
                                                     return_indices=True)  # fmt: skip
            drawn = np.where(small, drawn[nearest[0], nearest[1]], drawn)
    if rng.random() < MISTAKEN:
        swapped = {2: 3, 3: 2}
        drawn = np.vectorize(lambda code: swapped.get(int(code), int(code)))(drawn)
    return drawn.astype(np.uint8)


# --- the loop -------------------------------------------------------------------------------------
def trained(case, codes, seed):
    """Class probabilities (every second row, column, 3) after training on the drawn codes.

    They are 0 off tissue.
    """
    from napari_mosaik.segment.tissue_classifier import TissueClassParams, train_fast
    from napari_mosaik.segment.training_pixels import sample_training_pixels

    params = TissueClassParams(n_trees=N_TREES)
    rng = np.random.default_rng([seed, 5])
    features, labels = sample_training_pixels(case["features"], codes, params.max_per_class, rng)
    model = train_fast(features, labels, params, rng, CLASSES)
    inside, every = case["tissue"][::COARSE, ::COARSE], case["features"][::COARSE, ::COARSE]
    out = np.zeros((*inside.shape, len(CLASSES)), np.float32)
    out[inside] = model.forest.predict(every[inside])
    return out


def judged(case, probability):
    """Mean Dice of the two tissue classes, and the error of the predicted uptake, g/mL."""
    codes = np.where(case["tissue"][::COARSE, ::COARSE], probability.argmax(axis=2) + 1, 1)
    truth, dice = case["truth"][::COARSE, ::COARSE], []
    for code in (2, 3):
        found, real = codes == code, truth == code
        dice.append(2 * (found & real).sum() / max(1, found.sum() + real.sum()))
    features = uptake_features(codes, case["centres"], case["supply"])
    predicted = case["uptake_model"].predict(features)
    return float(np.mean(dice)), float(np.mean(np.abs(predicted - case["measured"]))), predicted


def tile_points(case, probability):
    """Class probabilities (n, p, p, 3) at points of each tile; NaN off tissue."""
    step = ((np.arange(POINTS) + 0.5) / POINTS * TILE_UM / SPACING_UM).astype(int)
    inside, out = case["tissue"][::COARSE, ::COARSE], []
    for rows, cols in case["slices"]:
        window = np.ix_((rows.start + step) // COARSE, (cols.start + step) // COARSE)
        out.append(np.where(inside[window][..., None], probability[window], np.nan))
    return np.stack(out)


def next_tiles(order, case, probability, predicted, left, batch, rng_seed):
    """The next tiles to correct in one of the orders that follow the model."""
    from napari_mosaik.annotate.review_queue import (
        DEFAULT_RANKING,
        RANKINGS,
        ReviewQueueParams,
        class_signals,
        cold_among_hot,
        draw_queue,
        priorities,
        spread_order,
        take_turns,
        tile_kinds,
    )

    points = tile_points(case, probability)
    signals = class_signals(points, CLASSES)
    n = len(case["centres"])
    closed = np.ones(n, bool)
    closed[left] = False
    if order == "entropy":
        value = np.where(closed, -np.inf, np.nan_to_num(signals["uncertainty"].values))
        return np.argsort(-value, kind="stable")[: min(batch, len(left))].tolist()
    signals["cold-among-hot"] = cold_among_hot(predicted, case["windows"], "g/mL")
    priority, reasons = priorities(signals, RANKINGS[DEFAULT_RANKING], n)
    priority[closed] = np.nan
    params = ReviewQueueParams()
    tiles, scores = spread_order(priority, case["centres"], params.apart_um)
    kinds = tile_kinds(points, ~closed, params.kinds)
    tiles, scores = take_turns(tiles, scores, kinds)
    queue = draw_queue(tiles, scores, reasons, rng_seed, params.control_share)
    return [item.tile for item in queue[:batch]]


def neighbour_windows(centres):
    """Index (n, 3, 3) of the tiles around each tile, -1 where there is none."""
    cells = np.rint((centres - centres.min(axis=0)) / STRIDE_UM).astype(int)
    index = np.full(cells.max(axis=0) + 3, -1)
    index[cells[:, 0] + 1, cells[:, 1] + 1] = np.arange(len(cells))
    return np.stack([index[r : r + 3, c : c + 3] for r, c in cells])


def studied(seed, corrections, uptake_model):
    """A function that gives the curve of one order of a seed: {"corrections", "dice", ...}."""
    case = {**drawn_case(seed), "uptake_model": uptake_model}
    n = len(case["centres"])
    if n < corrections + 2:
        raise SystemExit(f"the case of seed {seed} has {n} tiles, too few for {corrections}")
    reading = {
        tile: drawn_tile(case["truth"], where, np.random.default_rng([seed, 9, tile]))
        for tile, where in enumerate(case["slices"])
    }
    return lambda order: curve_of(order, case, reading, seed, corrections)


def curve_of(order, case, reading, seed, corrections):
    """The curve of one order: {"corrections", "dice", "uptake_mae"}."""
    codes = np.zeros(case["truth"].shape, np.uint8)

    def correct(tiles):
        for tile in tiles:
            where = case["slices"][tile]
            codes[where] = np.where(case["tissue"][where], reading[tile], codes[where])

    first = start_tiles(case, reading, seed)
    correct(first)
    shuffled = np.random.default_rng([seed, 3]).permutation(len(case["centres"]))
    left = [tile for tile in shuffled.tolist() if tile not in first]
    curve, done = {"corrections": [], "dice": [], "uptake_mae": []}, 0
    while True:
        probability = trained(case, codes, seed)
        dice, mae, predicted = judged(case, probability)
        for key, value in zip(curve, (done, dice, mae), strict=True):
            curve[key].append(value)
        if done >= corrections:
            return curve
        batch = min(BATCH if done < EARLY else LATER_BATCH, corrections - done)
        chosen = left[:batch]
        if order != "random":
            chosen = next_tiles(order, case, probability, predicted, left, batch, seed + done)
        correct(chosen)
        left = [tile for tile in left if tile not in set(chosen)]
        done += len(chosen)


# --- the report -----------------------------------------------------------------------------------
def code_digest(order="random"):
    """Digest of this file and of the code that it measures; random order needs no queue."""
    import napari_mosaik

    root = Path(napari_mosaik.__file__).parent
    files = [Path(__file__)]
    if order != "random":
        files.append(root / "annotate" / "review_queue.py")
    for folder in ("phantom", "segment"):
        files += sorted((root / folder).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def kept(path, make):
    """What a file holds (pickled); made and kept there where it is absent."""
    if not path.is_file():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(make()))
        part.replace(path)
    return pickle.loads(path.read_bytes())


def kept_study(seed, corrections, folder):
    """The curves of a seed, {order: curve}, from the folder, or computed and kept there."""

    @cache
    def study():
        uptake_model = kept(folder / f"uptake-{code_digest()}.pickle", fitted_uptake)
        return studied(seed, corrections, uptake_model)

    return {
        order: kept(
            folder / f"seed-{seed}-{corrections}-{order}-{code_digest(order)}.pickle",
            lambda order=order: study()(order),
        )
        for order in ORDERS
    }


def interval(values):
    """Mean over seeds, (seeds, points), with its 95 % bootstrap interval."""
    values = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return values.mean(axis=0), low, high


def summary(seeds, studies):
    """The curves with intervals, and the corrections that the queue needs."""
    orders = {}
    for order in ORDERS:
        record = {"corrections": studies[0][order]["corrections"]}
        for key in ("dice", "uptake_mae"):
            mean, low, high = interval([one[order][key] for one in studies])
            record |= {key: mean, f"{key}_low": low, f"{key}_high": high}
        orders[order] = {k: [round(float(v), 5) for v in values] for k, values in record.items()}
    needed = []
    for one in studies:
        at = one["random"]["corrections"]
        goal = one["random"]["dice"][at.index(200)] if 200 in at else math.inf
        queue = one["queue"]
        reached = [c for c, d in zip(queue["corrections"], queue["dice"], strict=True) if d >= goal]
        needed.append(reached[0] if reached else None)
    # A seed that never reached it needs more than any other: infinity in the median.
    middle = float(np.median([math.inf if value is None else value for value in needed]))
    return {
        "seeds": list(seeds),
        "orders": orders,
        "corrections_for_random_200": {
            "queue": middle if math.isfinite(middle) else None,
            "queue_by_seed": needed,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,2,3,4,5,6,7,8,9,10")
    parser.add_argument("--corrections", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    folder = Path(tempfile.gettempdir()) / "napari-mosaik-correction"
    parser.add_argument("--folder", type=Path, default=folder)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        seeds = [int(part) for part in given.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {given.seeds!r} is not a list of numbers like 1,2,3")
    if given.corrections < BATCH or given.corrections % BATCH:
        parser.error(f"--corrections {given.corrections} is not a positive multiple of {BATCH}")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    studies = []
    with ProcessPoolExecutor(max(1, min(given.jobs, len(seeds)))) as pool:
        n = len(seeds)
        work = pool.map(kept_study, seeds, [given.corrections] * n, [given.folder] * n)
        for seed, study in zip(seeds, work, strict=True):
            studies.append(study)
            print(f"seed {seed} done, {len(studies)} of {n}", file=sys.stderr)
    record = summary(seeds, studies)
    if given.json:
        print(json.dumps(record, indent=1))
    else:
        show(record)
    needed = record["corrections_for_random_200"]["queue"]
    return 0 if needed is not None and needed <= 100 else 1


def show(record):
    """The curves as a Markdown table."""
    print("| corrections | " + " | ".join(f"Dice, {o} | SUV error, {o}" for o in ORDERS) + " |")
    print("|---" * (1 + 2 * len(ORDERS)) + "|")
    orders = record["orders"]
    for i, n in enumerate(orders["queue"]["corrections"]):
        if n not in (0, 10, 20, 30, 50, 70, 100, 150, 200):
            continue
        cells = []
        for order in ORDERS:
            for key in ("dice", "uptake_mae"):
                value, low, high = (orders[order][k][i] for k in (key, f"{key}_low", f"{key}_high"))
                cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {n} | " + " | ".join(cells) + " |")
    needed = record["corrections_for_random_200"]
    print(f"\ncorrections that the queue needs for the Dice of 200 in random order: "
          f"{needed['queue']} (by seed: {needed['queue_by_seed']})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
