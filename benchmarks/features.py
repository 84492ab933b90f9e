"""Texture and shape of 100,000 nuclei against scikit-image.

python benchmarks/features.py [--nuclei 100000] [--sample 1000] [--json]

``texture_ratio``: seconds of scikit-image's ``graycomatrix`` in a plain loop over the nuclei (four
angles, symmetric, masked to the nucleus by a level of its own that is cut off) over ours on all
cores; ``texture_ratio_one_core`` beside it.  ``morphology_ratio``: seconds of ``regionprops_table``
over ours, one core each, for the columns that both have.  scikit-image is timed on a sample of the
nuclei and scaled by their number, since both of its loops treat one nucleus after the other; the
values of the sample are compared with ours.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from skimage.feature import graycomatrix
from skimage.measure import regionprops_table

from napari_mosaik.core import Lattice
from napari_mosaik.features import TextureParams, grey_levels, measure_objects, texture_table

SPACING_UM = 0.5
PITCH_PX = 26
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
SHAPES = ("label", "area", "centroid", "eccentricity", "axis_major_length", "axis_minor_length",
          "perimeter_crofton", "solidity")  # fmt: skip
"""Columns of `regionprops_table` that `measure_objects` has too; it gives them all at once."""


def scene(n_nuclei, seed=0):
    """Labels of ellipses on a jittered lattice, and a haematoxylin density with grain."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(n_nuclei)))
    down = int(np.ceil(n_nuclei / across))
    labels = np.zeros((down * PITCH_PX, across * PITCH_PX), np.int32)
    r, c = np.mgrid[:PITCH_PX, :PITCH_PX] - (PITCH_PX - 1) / 2
    for k in range(n_nuclei):
        long, aspect = rng.uniform(6.0, 10.0), rng.uniform(1.0, 1.8)
        angle, (dr, dc) = rng.uniform(0, np.pi), rng.uniform(-1.5, 1.5, 2)
        u = (r - dr) * np.cos(angle) + (c - dc) * np.sin(angle)
        v = (c - dc) * np.cos(angle) - (r - dr) * np.sin(angle)
        row, col = divmod(k, across)
        window = (
            slice(row * PITCH_PX, (row + 1) * PITCH_PX),
            slice(col * PITCH_PX, (col + 1) * PITCH_PX),
        )
        labels[window][(u / long) ** 2 + (v * aspect / long) ** 2 <= 1] = k + 1
    grain = rng.normal(size=labels.shape).astype(np.float32)
    density = np.where(labels > 0, 0.9, 0.15).astype(np.float32) + 0.25 * grain
    return labels, density


def timed(work, repeats=3):
    """Least seconds of a few runs."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def theirs_texture(levels, mask):
    """Difference entropy of one nucleus by scikit-image, bits: mean of the four angles."""
    padded = np.where(mask, levels + 1, 0).astype(np.uint8)
    pairs = graycomatrix(padded, [1], ANGLES, levels=33, symmetric=True)[1:, 1:, 0]
    apart = np.abs(np.subtract.outer(np.arange(32), np.arange(32)))
    found = []
    for angle in range(len(ANGLES)):
        counts = np.bincount(apart.ravel(), pairs[..., angle].ravel().astype(float), 32)
        if counts.sum() > 0:
            p = counts[counts > 0] / counts.sum()
            found.append(-(p * np.log2(p)).sum())
    return np.mean(found) if found else np.nan


def loop_of_theirs(labels, levels, wanted):
    """The plain loop: one nucleus after the other, in its bounding box."""
    from scipy.ndimage import find_objects

    boxes = find_objects(labels)
    return np.array([theirs_texture(levels[boxes[k]], labels[boxes[k]] == k + 1) for k in wanted])


def ours_on_all_cores(labels, density, cores):
    """Strips of whole nuclei side by side, as blocks of a slide are."""
    rows = np.linspace(0, labels.shape[0] // PITCH_PX, cores + 1).astype(int) * PITCH_PX

    def strip(place):
        part = labels[rows[place] : rows[place + 1]]
        first = int(part[part > 0].min()) - 1 if part.any() else 0
        own = np.where(part > 0, part - first, 0)
        return texture_table(own, density[rows[place] : rows[place + 1]])

    with ThreadPoolExecutor(cores) as pool:
        parts = list(pool.map(strip, range(cores)))
    return np.concatenate([part["difference_entropy_bits"] for part in parts])


def texture(labels, density, sample, rng):
    """Seconds and ratios of the texture."""
    n = int(labels.max())
    cores = len(os.sched_getaffinity(0))
    wanted = np.sort(rng.choice(n, min(sample, n), replace=False))
    texture_table(labels[:PITCH_PX], density[:PITCH_PX])  # compiled before it is timed
    one = timed(lambda: texture_table(labels, density))
    every = timed(lambda: ours_on_all_cores(labels, density, cores))
    levels = grey_levels(density, TextureParams())
    begin = time.perf_counter()
    theirs = loop_of_theirs(labels, levels, wanted)
    taken = time.perf_counter() - begin
    ours = ours_on_all_cores(labels, density, cores)[wanted]
    scaled = taken * n / wanted.size
    return {
        "nuclei": n,
        "cores": cores,
        "sample": int(wanted.size),
        "skimage_s_of_sample": taken,
        "skimage_s_scaled": scaled,
        "ours_s_all_cores": every,
        "ours_s_one_core": one,
        "largest_difference_bits": float(np.nanmax(np.abs(ours - theirs))),
        "texture_ratio": scaled / every,
        "texture_ratio_one_core": scaled / one,
    }


def morphology(labels, sample):
    """Seconds and ratio of the shapes."""
    n = int(labels.max())
    lattice = Lattice("he", labels.shape, (SPACING_UM, SPACING_UM))
    small = labels[: PITCH_PX * max(1, sample * PITCH_PX // labels.shape[1])]
    count = int(small.max())
    measure_objects(small, Lattice("he", small.shape, (SPACING_UM, SPACING_UM)))
    ours_s = timed(lambda: measure_objects(labels, lattice))
    begin = time.perf_counter()
    theirs = regionprops_table(small, properties=SHAPES)
    taken = time.perf_counter() - begin
    plain_s = timed(lambda: regionprops_table(small, properties=SHAPES[:-1]), repeats=1)
    ours = measure_objects(labels, lattice, n_labels=n)
    row = np.asarray(theirs["label"]) - 1
    gap = np.abs(np.asarray(ours["area_um2"])[row] / SPACING_UM**2 - theirs["area"]).max()
    return {
        "nuclei": n,
        "sample": count,
        "regionprops_s_scaled": taken * n / count,
        "regionprops_s_scaled_without_solidity": plain_s * n / count,
        "ours_s": ours_s,
        "largest_difference_of_area_px": float(gap),
        "morphology_ratio": taken * n / count / ours_s,
        "morphology_ratio_without_solidity": plain_s * n / count / ours_s,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=1000, help="nuclei for scikit-image")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    labels, density = scene(given.nuclei)
    found = {
        "texture": texture(labels, density, given.sample, np.random.default_rng(1)),
        "morphology": morphology(labels, given.sample),
    }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    t, m = found["texture"], found["morphology"]
    print(
        f"difference entropy of {t['nuclei']} nuclei: scikit-image {t['skimage_s_scaled']:.1f} s "
        f"(from {t['sample']}), ours {t['ours_s_all_cores']:.2f} s on {t['cores']} cores: "
        f"texture_ratio {t['texture_ratio']:.0f} (bar 30), on one core "
        f"{t['texture_ratio_one_core']:.0f}; largest difference {t['largest_difference_bits']:.1e} "
        "bit"
    )
    print(
        f"shapes of {m['nuclei']} nuclei: regionprops_table {m['regionprops_s_scaled']:.1f} s "
        f"(from {m['sample']}), ours {m['ours_s']:.2f} s: morphology_ratio "
        f"{m['morphology_ratio']:.0f} (bar 5); without solidity "
        f"{m['morphology_ratio_without_solidity']:.1f}"
    )


if __name__ == "__main__":
    main()
